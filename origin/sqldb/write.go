package sqldb

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/connpool"
	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
	"github.com/ringside-cache/ringside/origin/sqldb/rowwrite"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
	"github.com/ringside-cache/ringside/origin/sqldb/tables"
)

// maxAttempts limits the attempts at a transaction that the database aborts. A transaction writes one row, so that it
// rarely conflicts twice.
const maxAttempts = 5

// Writer implements origin.WritableSource, for datasets of a table.
func (db *DB) Writer(ds origin.Dataset) (origin.Writer, error) {
	w, err := db.newWriter(ds)
	if err != nil {
		return nil, err
	}
	return w, nil
}

func (db *DB) newWriter(ds origin.Dataset) (*rowWriter, error) {
	s, err := db.tableSource(ds)
	if err == nil {
		err = cmp.Or(sqltext.CheckWriter(ds), db.database.ReadsOnly)
	}
	if err != nil {
		return nil, err
	}
	planner := &rowwrite.Planner{Dataset: ds, Syntax: db.database.Syntax, MaxValueBytes: db.maxValueBytes}
	return &rowWriter{s, tables.NewCache(db.database.Catalog.ReadTable, ds), planner}, nil
}

func (db *DB) tableSource(ds origin.Dataset) (*source, error) {
	if ds.Table == "" {
		return nil, errors.New("only a dataset with table and key can be written or listed, not one with query")
	}
	return db.source(ds)
}

// rowWriter writes the rows that a source reads.
type rowWriter struct {
	source  *source
	tables  *tables.Cache
	planner *rowwrite.Planner
}

// Write implements origin.Writer.
func (w *rowWriter) Write(ctx context.Context, c origin.Change) (origin.Value, error) {
	ctx = w.source.db.commented(ctx)
	err := w.planner.Check(c)
	var tx *rowwrite.Transaction
	if err == nil {
		tx, err = w.run(ctx, func(t *tables.Table) (*rowwrite.Transaction, error) { return w.planner.Plan(t, c) })
	}
	if err != nil {
		return origin.Value{}, fmt.Errorf("origin %q: %w", w.source.db.name, withAdvice(err))
	}
	return tx.Value(), nil
}

// Append implements origin.Writer.
func (w *rowWriter) Append(ctx context.Context, data []byte) (origin.Row, error) {
	ctx = w.source.db.commented(ctx)
	tx, err := w.run(ctx, func(t *tables.Table) (*rowwrite.Transaction, error) { return w.planner.Append(t, data) })
	if errors.Is(err, origin.ErrInvalidKey) { // the client has sent none: a sequence that is behind the rows, for example
		err = origin.InvalidValue(w.source.dataset.Key[0], "the database refuses the key that it generates; nothing was written")
	}
	if err != nil {
		return origin.Row{}, fmt.Errorf("origin %q: %w", w.source.db.name, withAdvice(err))
	}
	return origin.Row{Key: tx.Change.Key, Value: tx.Value()}, nil
}

// planned returns the transaction of a change of a table.
type planned func(*tables.Table) (*rowwrite.Transaction, error)

// attempts makes a change on connections of pool. A transaction that did not reach its COMMIT has written nothing and can be
// retried, whatever was sent.
func (w *rowWriter) attempts(ctx context.Context, pool *connpool.Pool, plan planned) (tx *rowwrite.Transaction, err error) {
	db := w.source.db
	for range db.maxConns + maxAttempts {
		err = pool.Use(ctx, func(conn *sql.Conn) error {
			tx, err = w.attempt(ctx, conn, plan)
			if err == nil && pool.Moved() {
				err = Unknown(errMoved)
			}
			return db.dropUnusable(conn, err)
		})
		if isOutcome(err) || !db.classOf(err).Retryable() || ctx.Err() != nil {
			break
		}
	}
	if errors.Is(err, ErrNotRenewed) {
		err = origin.InvalidValue("", "a trigger of the table suppresses the update of the row that the write creates; nothing was written")
	}
	return tx, err
}

var errMoved = errors.New("the database file was replaced during the write")

// isOutcome reports whether err is the answer to a change, rather than the failure to make it.
func isOutcome(err error) bool {
	for _, known := range []error{origin.ErrUnknown, origin.ErrConflict, origin.ErrInvalidKey, origin.ErrInvalidValue} {
		if errors.Is(err, known) {
			return true
		}
	}
	_, cannot := errors.AsType[*origin.AppendError](err)
	return cannot
}

// attempt makes a change in one transaction. If the columns are those of an older schema, it reads them again and starts over.
func (w *rowWriter) attempt(ctx context.Context, conn *sql.Conn, plan planned) (*rowwrite.Transaction, error) {
	t, err := w.tables.Get(ctx, conn)
	if err != nil {
		return nil, err
	}
	tx, err := w.attemptWith(ctx, conn, t, plan)
	if err == nil || !w.tables.Recheck(t, w.source.db.classOf(err), err) {
		return tx, err
	}
	if t, err = w.tables.Get(ctx, conn); err != nil {
		return nil, err
	}
	return w.attemptWith(ctx, conn, t, plan)
}

func (w *rowWriter) attemptWith(ctx context.Context, conn *sql.Conn, t *tables.Table, plan planned) (*rowwrite.Transaction, error) {
	tx, err := plan(t)
	if err != nil {
		return nil, err
	}
	db := w.source.db
	err = db.database.Writer.Write(ctx, conn, tx)
	switch {
	case err == nil:
		return tx, nil
	case !isOutcome(err) && db.classOf(err) == errclass.Statement: //guard:rejected-value-reported-as-outage
		err = origin.InvalidValue("", "the database rejects it (%s)", db.database.Errors.Code(err))
	}
	return nil, err
}

// explainWrite turns a driver's error into one that callers can classify.
func (db *DB) explainWrite(ctx context.Context, err error) error {
	if err == nil || isOutcome(err) {
		return err
	}
	switch class := db.classOf(err); {
	case ctx.Err() != nil:
		return fmt.Errorf("write (nothing was written): %w", ctx.Err())
	case class == errclass.TimedOut:
		return fmt.Errorf("write ended by the database at its time limit, nothing was written: %w",
			context.DeadlineExceeded)
	case class == errclass.ReadOnly:
		return fmt.Errorf("write (nothing was written): the server is read-only, such as a standby: connect to the primary "+
			"(PostgreSQL: target_session_attrs=read-write): %w", err)
	case class == errclass.Denied:
		return fmt.Errorf("write (nothing was written): the account of the DSN may not do this; `ringside validate` says "+
			"what a writable dataset needs: %w", err)
	}
	return fmt.Errorf("write (nothing was written): %w", err)
}
