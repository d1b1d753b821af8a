package sqldb

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"

	"github.com/ringside-cache/ringside/origin"
)

// errAgain says that nothing was written, and that another attempt may succeed at once.
var errAgain = errors.New("the database gave the transaction up for another one's sake")

var errNotUnique = errors.New("the key column has no unique index of its own: make it the primary key, or give it one")

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
		err = checkWriter(ds)
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

func (db *DB) catalogOf(ds origin.Dataset) *catalog {
	return &catalog{dialect: db.dialect, table: ds.Table, key: ds.Key}
}

// rowWriter changes the rows that a source reads.
type rowWriter struct {
	source  *source
	catalog *catalog
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
		if !errors.Is(err, driver.ErrBadConn) && !errors.Is(err, errAgain) || ctx.Err() != nil {
			break
		}
	}
	return v, db.explainWrite(ctx, err)
}

// check finds what is wrong with a change without asking the database.
func (w *rowWriter) check(c origin.Change) error {
	rows := newCollector(w.source.dataset, true, 0, nil)
	if len(rows.askable([]string{c.Key})) == 0 {
		return rows.results[c.Key].Err
	}
	if c.If.Version != 0 && w.source.dataset.Version == "" {
		return invalid("", "the dataset has no version column to compare: set `version`, or use another condition")
	}
	if limit := w.source.db.maxValueBytes; len(c.Data) > limit {
		return invalid("", "the value has %d bytes, over max_value_bytes %d", len(c.Data), limit)
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
	e, err := w.edit(t, c)
	if err == nil {
		err = w.source.db.dialect.change(ctx, conn, e)
	}
	if err != nil {
		w.catalog.doubt(t, err)
		return origin.Value{}, err
	}
	return e.value, nil
}

// edit is one change as a transaction.
type edit struct {
	change    origin.Change
	statement *statement // reads the row, as Load does; before a deletion, otherwise after the change
	steps     []step
	rows      *collector // takes the row
	keyColumn string
	namedKey  *given // by the value, as key; nil where it is the key to the byte

	value origin.Value // of the row now, once settled
}

func (w *rowWriter) edit(t *table, c origin.Change) (*edit, error) {
	ds := w.source.dataset
	param, err := t.key.parse(c.Key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", origin.ErrInvalidKey, err)
	}
	if c.Delete {
		ds.Columns, ds.Value = []string{ds.Key}, "" // its version is all that is asked
	}
	p := &plan{dialect: w.source.db.dialect, dataset: ds, key: assignment{ds.Key, param}}
	e := &edit{
		change: c, statement: statementOf(ds, p.dialect), keyColumn: ds.Key,
		rows: newCollector(ds, true, w.source.db.maxValueBytes, nil),
	}
	if !c.Delete {
		if p.set, e.namedKey, err = w.assignments(t, c); err != nil {
			return nil, err
		}
		p.whole = len(p.set) == len(w.writable(t.columns))
	}
	e.steps = p.steps(c)
	e.rows.begin([]string{c.Key})
	return e, nil
}

// writable returns those of columns that a value may set.
func (w *rowWriter) writable(columns []tableColumn) []tableColumn {
	ds := w.source.dataset
	return slices.DeleteFunc(slices.Clone(columns), func(c tableColumn) bool {
		return c.name == ds.Key || c.name == ds.Version || c.generated
	})
}

// met reports whether a step has met a row.
func (e *edit) met() bool { return len(e.rows.seen) > 0 }

// settle looks at the row of a transaction that could be committed now, and reports whether it should be. The row that
// was met may not be the one that was meant: to the database's collation, 'A' may be 'a'.
func (e *edit) settle() (commit bool, err error) {
	n := 0
	for _, rows := range e.rows.seen {
		n += rows
	}
	result := e.rows.results[e.change.Key]
	mustExist := e.change.Delete || e.change.If.Present || e.change.If.Version != 0
	switch other := e.rows.seen[e.change.Key] == 0; { //guard:write-one-key-changes-row-another
	case n > 1: //guard:write-changes-several-rows
		return false, fmt.Errorf("%d rows of table %s are of this key: %w", n, e.statement.table, errNotUnique)
	case n == 0, other && mustExist:
		return false, e.missed()
	case other:
		return false, fmt.Errorf("%w: the database holds it as another one, %q", origin.ErrInvalidKey, e.rows.anyKey())
	case result.Err != nil: //guard:row-written-too-large-read
		return false, invalid("", "the row could not be read: %v", result.Err)
	case e.change.Delete:
		e.value.Version = e.deletedVersion(result.Value.Version)
		return true, nil
	}
	e.value = result.Value
	err = e.checkKey(result.Value.Data)
	return err == nil, err
}

// missed is the outcome where no step has met a row.
func (e *edit) missed() error {
	if e.change.Delete && e.change.If == (origin.Condition{}) {
		return nil
	}
	return origin.ErrConflict
}

func (e *edit) deletedVersion(held int64) int64 {
	if e.rows.dataset.Version == "" {
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
	case db.dialect.timedOut(err):
		return fmt.Errorf("write ended by the database at its time limit, nothing was written: %w",
			context.DeadlineExceeded)
	case db.dialect.denied(err):
		return fmt.Errorf("write (nothing was written): the account of the DSN may not do this; `ringside validate` says "+
			"what a writable dataset needs: %w", err)
	}
	return fmt.Errorf("write (nothing was written): %w", err)
}

// unknown says that a COMMIT was sent, and that what came of it is not known.
func unknown(err error) error { return fmt.Errorf("%w: %w", origin.ErrUnknown, err) }
