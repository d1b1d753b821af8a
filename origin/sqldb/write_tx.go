package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"time"
)

// rollbackTime is how long a connection may take to leave its transaction before it is given up.
const rollbackTime = time.Second

// transaction makes an edit statement by statement, in a database whose changes do not return rows as Load reads them.
type transaction struct {
	edit *edit

	begin    func(ctx context.Context) error
	exec     func(ctx context.Context, s step) (rows int64, err error)
	read     func(ctx context.Context) error // gives the row to the edit; nobody else may change it then
	commit   func(ctx context.Context) error
	rollback func(ctx context.Context)
}

func (t *transaction) run(ctx context.Context) error {
	if err := t.begin(ctx); err != nil {
		return err
	}
	commit, err := t.steps(ctx)
	if !commit {
		t.rollback(ctx)
		return err
	}
	return t.commit(ctx)
}

func (t *transaction) steps(ctx context.Context) (commit bool, err error) {
	if t.edit.change.Delete { // afterwards it is too late
		if err := t.read(ctx); err != nil {
			return false, err
		}
	}
	met, err := t.try(ctx)
	switch {
	case err != nil:
		return false, err
	case !met:
		t.edit.rows.begin([]string{t.edit.change.Key})
	case !t.edit.change.Delete:
		if err := t.read(ctx); err != nil {
			return false, err
		}
	}
	return t.edit.settle()
}

func (t *transaction) try(ctx context.Context) (met bool, err error) {
	for _, s := range t.edit.steps {
		n, err := t.exec(ctx, s)
		if err != nil || n > 0 {
			return n > 0, err
		}
	}
	return false, nil
}

// values are the parameters as the driver takes them.
func (s step) values() []any {
	values := make([]any, len(s.args))
	for i, a := range s.args {
		values[i] = a.value
	}
	return values
}

// rollback reports whether there was a transaction to end. A connection that can not end it is dropped.
func rollback(ctx context.Context, conn *sql.Conn) bool {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTime)
	defer cancel()
	_, err := conn.ExecContext(ctx, "ROLLBACK")
	if err != nil {
		_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	}
	return err == nil
}
