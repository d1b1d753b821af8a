package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ringside-cache/ringside/origin/sqldb"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// writer implements sqldb.Writer.
type writer struct{ settings *settings }

func (writer) Write(ctx context.Context, conn *sql.Conn, tx *sqldb.WriteTransaction) error {
	return conn.Raw(func(raw any) error {
		t := transaction{raw.(*stdlib.Conn).Conn().PgConn(), tx}
		return t.run(ctx)
	})
}

func (w writer) Rehearsal() (begin, prefix string) { return w.settings.rehearse, "EXPLAIN " }

// transaction runs a write in two round trips: the statements that open the transaction travel together with the change,
// and COMMIT travels alone, so that nothing was written if the connection ends before it.
type transaction struct {
	conn *pgconn.PgConn
	tx   *sqldb.WriteTransaction
}

func (t transaction) run(ctx context.Context) error {
	commit, err := t.steps(ctx)
	if !commit {
		t.rollback(ctx)
		return err
	}
	return t.commit(ctx)
}

func (t transaction) steps(ctx context.Context) (commit bool, err error) {
	for i, step := range t.tx.Steps {
		batch, before := &pgconn.Batch{}, 0
		if i == 0 {
			before = t.begin(ctx, batch)
		}
		batch.ExecParams(step.SQL, textParameters(step.Parameters), nil, nil, nil)
		if err := t.read(t.conn.ExecBatch(ctx, batch), before); err != nil {
			return false, t.explain(err, step.Parameters)
		}
		if t.tx.Matched() {
			break
		}
	}
	return t.tx.Verify()
}

// begin opens a transaction that may write, with the settings, and returns how many results that has. The limits make the
// database end it if this side stops sending.
func (t transaction) begin(ctx context.Context, batch *pgconn.Batch) (results int) {
	batch.ExecParams("BEGIN READ WRITE", nil, nil, nil, nil)
	batch.ExecParams(sessionOf(t.conn).write, [][]byte{limitOf(ctx)}, nil, nil, nil)
	return 2
}

// read adds the rows of the result that follows the first ones to the transaction.
func (t transaction) read(results *pgconn.MultiResultReader, before int) error {
	var err error
	for i := 0; err == nil && results.NextResult(); i++ {
		if i < before {
			_, err = results.ResultReader().Close()
			continue
		}
		err = readRows(results.ResultReader(), t.tx.Query, t.tx.Change.Key, t.tx.Rows)
	}
	if end := results.Close(); err == nil { // otherwise it returns the same error
		err = end
	}
	return err
}

// rollback makes the connection usable again; what is not committed is not written.
func (t transaction) rollback(ctx context.Context) {
	if t.conn.IsClosed() || t.conn.TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sqldb.RollbackTimeout)
	defer cancel()
	_ = t.conn.Exec(ctx, "ROLLBACK").Close() // if it fails, the pool finds the connection closed or in a transaction, and drops it
}

// commit does not use pgconn.SafeToRetry, which considers a lost answer safe.
func (t transaction) commit(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		t.rollback(ctx)
		return err
	}
	results, err := t.conn.Exec(ctx, "COMMIT").ReadAll()
	switch {
	case err == nil && results[0].CommandTag.String() == "COMMIT":
		return nil
	case err == nil:
		return errors.New("the database answered COMMIT with " + results[0].CommandTag.String())
	case isRefusal(err):
		return t.explain(err, nil)
	}
	return sqldb.Unknown(err) //guard:postgres-lost-commit-answer-retried
}

// isRefusal reports whether a COMMIT that failed with err was certainly rolled back, as after an ERROR. A FATAL error, and
// a pooler's error about a lost server (class 08), may follow a successful COMMIT.
func isRefusal(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.SeverityUnlocalized == "ERROR" && !strings.HasPrefix(e.Code, "08") && !strings.HasPrefix(e.Code, "57P") //guard:fatal-commit-assumed-rolled-back
}

// explain classifies an error before COMMIT.
func (t transaction) explain(err error, parameters []sqltext.Parameter) error {
	e, ok := errors.AsType[*pgconn.PgError](err)
	switch {
	case !ok && t.conn.IsClosed(), ok && strings.HasPrefix(e.Code, "57P"):
		return driver.ErrBadConn
	case !ok:
		return err
	case e.Code == "42P10": // ON CONFLICT needs a unique index
		return sqldb.ErrNotUnique
	case e.Code == "40001" || e.Code == "40P01": // serialization failure, deadlock
		return fmt.Errorf("%w: %w", sqldb.ErrRetry, err)
	}
	if refused := refusal(e, parameters); refused != nil {
		return refused
	}
	return err
}
