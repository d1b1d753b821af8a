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
	r := w.WriteMany(ctx, []origin.Change{c})[0]
	return r.Value, r.Err
}

// Append implements origin.Writer.
func (w *rowWriter) Append(ctx context.Context, data []byte) (origin.Row, error) {
	ctx = w.source.db.commented(ctx)
	rows, err := w.run(ctx, &transaction{plans: []planned{func(t *tables.Table) (*rowwrite.Transaction, error) { return w.planner.Append(t, data) }}})
	if errors.Is(err, origin.ErrInvalidKey) { // the client has sent none: a sequence that is behind the rows, for example
		err = origin.InvalidValue(w.source.dataset.Key[0], "the database refuses the key that it generates; nothing was written")
	}
	if err != nil {
		return origin.Row{}, w.failed(err)
	}
	tx := rows[0].tx
	return origin.Row{Key: tx.Change.Key, Value: tx.Value()}, nil
}

func (w *rowWriter) failed(err error) error {
	return fmt.Errorf("origin %q: %w", w.source.db.name, withAdvice(err))
}

// attempts makes changes on connections of pool. A transaction that did not reach its COMMIT has written nothing and can be
// retried, whatever was sent.
func (w *rowWriter) attempts(ctx context.Context, pool *connpool.Pool, tx *transaction) (rows []row, err error) {
	db := w.source.db
	for range db.maxConns + maxAttempts {
		err = pool.Use(ctx, func(conn *sql.Conn) error {
			rows, err = w.attempt(ctx, conn, tx)
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
	return rows, err
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

// attempt makes changes in one transaction. If the columns are those of an older schema, it reads them again and starts over.
func (w *rowWriter) attempt(ctx context.Context, conn *sql.Conn, tx *transaction) ([]row, error) {
	t, err := w.tables.Get(ctx, conn)
	if err != nil {
		return nil, err
	}
	rows, err := w.attemptWith(ctx, conn, t, tx)
	if err == nil || !w.tables.Recheck(t, w.source.db.classOf(err), causeOf(err)) {
		return rows, err
	}
	if t, err = w.tables.Get(ctx, conn); err != nil {
		return nil, err
	}
	return w.attemptWith(ctx, conn, t, tx)
}

func (w *rowWriter) attemptWith(ctx context.Context, conn *sql.Conn, t *tables.Table, tx *transaction) (rows []row, err error) {
	err = w.source.db.database.Writer.Use(conn, func(s WriteSession) error {
		rows, err = w.transact(ctx, s, t, tx)
		return err
	})
	return rows, err
}

// rejected turns a refusal of the database into an outcome.
func (w *rowWriter) rejected(err error) error {
	db := w.source.db
	if err != nil && !isOutcome(err) && db.classOf(err) == errclass.Statement { //guard:rejected-value-reported-as-outage
		return origin.InvalidValue("", "the database rejects it (%s)", db.database.Errors.Code(err))
	}
	return err
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
