package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/ringside-cache/ringside/origin/sqldb"
	"github.com/ringside-cache/ringside/origin/sqldb/rowwrite"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// writer implements sqldb.Writer.
type writer struct{}

func (writer) Use(conn *sql.Conn, use func(sqldb.WriteSession) error) error {
	return use(writeSession{conn})
}

// writeSession implements sqldb.WriteSession.
type writeSession struct{ conn *sql.Conn }

func (w writeSession) Apply(ctx context.Context, tx *rowwrite.Transaction) (keep bool, err error) {
	s := &rowwrite.Stepwise{Transaction: tx, TriggersDecide: true}
	s.Exec = func(ctx context.Context, step sqltext.Step) (int64, error) {
		result, err := w.conn.ExecContext(ctx, step.SQL, step.Values()...)
		if err != nil {
			return 0, refusal(err)
		}
		return result.RowsAffected()
	}
	s.Insert = func(ctx context.Context, step sqltext.Step) (key string, err error) {
		err = w.conn.QueryRowContext(ctx, step.SQL, step.Values()...).Scan(&key)
		if errors.Is(err, sql.ErrNoRows) {
			return "", nil
		}
		return key, refusal(err)
	}
	s.Read = func(ctx context.Context) error {
		return reader{}.Read(ctx, w.conn, tx.Query, []string{tx.Change.Key}, tx.Rows)
	}
	return s.Apply(ctx)
}

func (w writeSession) Exec(ctx context.Context, statement string) error {
	_, err := w.conn.ExecContext(ctx, statement)
	return err
}

func (w writeSession) Rollback(ctx context.Context) { sqldb.Rollback(ctx, w.conn) }

func (writer) Rehearsal() (begin, prefix string) { return "BEGIN IMMEDIATE", "" }

func (w writeSession) Begin(ctx context.Context) error {
	return untilFree(ctx, func() error { return w.Exec(ctx, "BEGIN IMMEDIATE") })
}

// Commit does not let the context interrupt COMMIT, which waits only for readers, in slices of busySlice. A COMMIT that
// fails leaves the transaction open: if it can be rolled back, nothing was written.
func (w writeSession) Commit(ctx context.Context) error {
	err := ctx.Err()
	for err == nil {
		if err = w.Exec(context.WithoutCancel(ctx), "COMMIT"); err == nil {
			return nil
		}
		if isBusy(err) {
			err = ctx.Err()
		}
	}
	if sqldb.Rollback(ctx, w.conn) {
		return refusal(err)
	}
	return sqldb.Unknown(err)
}
