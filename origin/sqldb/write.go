package sqldb

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// maxAttempts bounds the attempts at a transaction that the database gives up. It writes one row, so that it hardly
// ever stands in another's way twice.
const maxAttempts = 5

// Writer returns the origin.Writer of a dataset, which must be of a table. Reads stay read-only; only what it does
// writes. It does not connect; CheckWritable does.
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
		err = sqltext.CheckWriter(ds)
	}
	if err != nil {
		return nil, fmt.Errorf("dataset %q: %w", ds.Name, err)
	}
	return &rowWriter{s, db.catalogOf(ds)}, nil
}

func (db *DB) tableSource(ds origin.Dataset) (*source, error) {
	if ds.Table == "" {
		return nil, errors.New("only a dataset with table and key can be written or listed, not one with query")
	}
	return db.source(ds)
}

func (db *DB) catalogOf(ds origin.Dataset) *tableCache {
	return &tableCache{reader: db.database.Catalog, table: ds.Table, key: ds.Key}
}

// rowWriter changes the rows that a source reads.
type rowWriter struct {
	source  *source
	catalog *tableCache
}

// Write implements origin.Writer.
func (w *rowWriter) Write(ctx context.Context, c origin.Change) (origin.Value, error) {
	v, err := w.write(ctx, c)
	if err != nil {
		return origin.Value{}, fmt.Errorf("origin %q, dataset %q: %w", w.source.db.name, w.source.dataset.Name, err)
	}
	return v, nil
}

func (w *rowWriter) write(ctx context.Context, c origin.Change) (v origin.Value, err error) {
	if err := w.check(c); err != nil {
		return origin.Value{}, err
	}
	db := w.source.db
	for range db.maxConns + maxAttempts {
		v, err = w.attempt(ctx, c)
		// A transaction that did not come to its COMMIT is none: it may be tried anew whatever was sent.
		if !errors.Is(err, driver.ErrBadConn) && !errors.Is(err, ErrRetry) || ctx.Err() != nil {
			break
		}
	}
	return v, db.explainWrite(ctx, err)
}

// check finds what is wrong with a change without asking the database.
func (w *rowWriter) check(c origin.Change) error {
	rows := rowset.New(w.source.dataset, true, 0, nil)
	if len(rows.ValidKeys([]string{c.Key})) == 0 {
		return rows.Result(c.Key).Err
	}
	if c.If.Version != 0 && w.source.dataset.Version == "" {
		return origin.InvalidValue("", "the dataset has no version column to compare: set `version`, or use another condition")
	}
	if limit := w.source.db.maxValueBytes; len(c.Data) > limit {
		return origin.InvalidValue("", "the value has %d bytes, over max_value_bytes %d", len(c.Data), limit)
	}
	return nil
}

func (w *rowWriter) attempt(ctx context.Context, c origin.Change) (origin.Value, error) {
	conn, err := w.source.db.writes.Conn(ctx)
	if err != nil {
		return origin.Value{}, err
	}
	defer conn.Close() // returns it to the pool; says only that it was broken, as the change has said before
	t, err := w.catalog.get(ctx, conn)
	if err != nil {
		return origin.Value{}, err
	}
	e, err := w.transaction(t, c)
	if err == nil {
		err = w.source.db.database.Writer.Write(ctx, conn, e)
	}
	if err != nil {
		w.catalog.doubt(t, err)
		return origin.Value{}, err
	}
	return e.value, nil
}

// edit is one change as a transaction.
type WriteTransaction struct {
	Change    origin.Change
	Query     *sqltext.Query // reads the row, as Load does; before a deletion, otherwise after the change
	Steps     []sqltext.Step
	Rows      *rowset.Set // takes the row
	keyColumn string
	namedKey  *rowjson.Input // by the value, as key; nil where it is the key to the byte

	value origin.Value // of the row now, once settled
}

func (w *rowWriter) transaction(t *Table, c origin.Change) (*WriteTransaction, error) {
	ds := w.source.dataset
	param, err := t.Key.Parse(c.Key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", origin.ErrInvalidKey, err)
	}
	if c.Delete {
		ds.Columns, ds.Value = []string{ds.Key}, "" // its version is all that is asked
	}
	p := &sqltext.WritePlan{Syntax: w.source.db.database.Syntax, Dataset: ds, Key: sqltext.Parameter{Column: ds.Key, Value: param}}
	e := &WriteTransaction{
		Change: c, Query: sqltext.Load(ds, p.Syntax), keyColumn: ds.Key,
		Rows: rowset.New(ds, true, w.source.db.maxValueBytes, nil),
	}
	if !c.Delete {
		if p.Set, e.namedKey, err = w.assignments(t, c); err != nil {
			return nil, err
		}
		p.Whole = len(p.Set) == len(w.writable(t.Columns))
	}
	e.Steps = p.Steps(c)
	e.Rows.Begin([]string{c.Key})
	return e, nil
}

// writable returns those of columns that a value may set.
func (w *rowWriter) writable(columns []rowjson.Column) []rowjson.Column {
	ds := w.source.dataset
	return slices.DeleteFunc(slices.Clone(columns), func(c rowjson.Column) bool {
		return c.Name == ds.Key || c.Name == ds.Version || c.Generated
	})
}

// met reports whether a step has met a row.
func (e *WriteTransaction) Matched() bool { return e.Rows.Rows() > 0 }

// settle looks at the row of a transaction that could be committed now, and reports whether it should be. The row that
// was met may not be the one that was meant: to the database's collation, 'A' may be 'a'.
func (e *WriteTransaction) Verify() (commit bool, err error) {
	n, result := e.Rows.Rows(), e.Rows.Result(e.Change.Key)
	mustExist := e.Change.Delete || e.Change.If.Present || e.Change.If.Version != 0
	switch other := e.Rows.RowsOf(e.Change.Key) == 0; { //guard:write-changes-row-of-another-key
	case n > 1: //guard:write-changes-several-rows
		return false, fmt.Errorf("%d rows of table %s are of this key: %w", n, e.Query.Table, ErrNotUnique)
	case n == 0, other && mustExist:
		return false, e.NotMatched()
	case other:
		return false, fmt.Errorf("%w: the database holds it as another one, %q", origin.ErrInvalidKey, e.Rows.AnyKey())
	case result.Err != nil: //guard:row-written-too-large-to-read
		return false, origin.InvalidValue("", "the row could not be read: %v", result.Err)
	case e.Change.Delete:
		e.value.Version = e.deletedVersion(result.Value.Version)
		return true, nil
	}
	e.value = result.Value
	err = e.checkKey(result.Value.Data)
	return err == nil, err
}

// missed is the outcome where no step has met a row.
func (e *WriteTransaction) NotMatched() error {
	if e.Change.Delete && e.Change.If == (origin.Condition{}) {
		return nil
	}
	return origin.ErrConflict
}

func (e *WriteTransaction) deletedVersion(held int64) int64 {
	if e.Rows.Dataset.Version == "" {
		return 0
	}
	return held + 1
}

// explainWrite makes of a driver's error one that callers can classify.
func (db *DB) explainWrite(ctx context.Context, err error) error {
	for _, clear := range []error{
		origin.ErrUnknown, origin.ErrConflict, origin.ErrInvalidKey, origin.ErrInvalidValue,
	} {
		if err == nil || errors.Is(err, clear) {
			return err
		}
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("write (nothing was written): %w", ctx.Err())
	case db.database.Errors.TimedOut(err):
		return fmt.Errorf("write ended by the database at its time limit, nothing was written: %w",
			context.DeadlineExceeded)
	case db.database.Errors.Denied(err):
		return fmt.Errorf("write (nothing was written): the account of the DSN may not do this; `ringside validate` says "+
			"what a writable dataset needs: %w", err)
	}
	return fmt.Errorf("write (nothing was written): %w", err)
}
