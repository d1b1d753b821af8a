package sqldb

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/connpool"
	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
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
		return nil, fmt.Errorf("dataset %q: %w", ds.Name, err)
	}
	return &rowWriter{s, db.cacheTable(ds)}, nil
}

func (db *DB) tableSource(ds origin.Dataset) (*source, error) {
	if ds.Table == "" {
		return nil, errors.New("only a dataset with table and key can be written or listed, not one with query")
	}
	return db.source(ds)
}

// rowWriter writes the rows that a source reads.
type rowWriter struct {
	source *source
	tables *tableCache
}

// Write implements origin.Writer.
func (w *rowWriter) Write(ctx context.Context, c origin.Change) (origin.Value, error) {
	v, err := w.write(ctx, c)
	if err != nil {
		return origin.Value{}, fmt.Errorf("origin %q, dataset %q: %w", w.source.db.name, w.source.dataset.Name, err)
	}
	return v, nil
}

// attempts makes a change on connections of pool. A transaction that did not reach its COMMIT has written nothing and can be
// retried, whatever was sent.
func (w *rowWriter) attempts(ctx context.Context, pool *connpool.Pool, c origin.Change) (v origin.Value, err error) {
	db := w.source.db
	for range db.maxConns + maxAttempts {
		err = pool.Use(ctx, func(conn *sql.Conn) error {
			v, err = w.attempt(ctx, conn, c)
			if err == nil && pool.Moved() {
				err = Unknown(errMoved)
			}
			return db.dropUnusable(conn, err)
		})
		if isOutcome(err) || !db.classOf(err).Retryable() || ctx.Err() != nil {
			break
		}
	}
	return v, err
}

var errMoved = errors.New("the database file was replaced during the write")

// isOutcome reports whether err is the answer to a change, rather than the failure to make it.
func isOutcome(err error) bool {
	for _, known := range []error{origin.ErrUnknown, origin.ErrConflict, origin.ErrInvalidKey, origin.ErrInvalidValue} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

// check finds what is wrong with a change without the database.
func (w *rowWriter) check(c origin.Change) error {
	set := rowset.New(w.source.dataset, 0)
	if len(set.ValidKeys([]string{c.Key})) == 0 {
		return set.Result(c.Key).Err
	}
	if c.If.Version != 0 && w.source.dataset.Version == "" {
		return origin.InvalidValue("", "the dataset has no version column to compare: set `version`, or use another condition")
	}
	if limit := w.source.db.maxValueBytes; len(c.Data) > limit {
		return origin.InvalidValue("", "the value has %d bytes, over max_value_bytes %d", len(c.Data), limit)
	}
	return nil
}

// attempt makes a change in one transaction. If the columns are those of an older schema, it reads them again and starts over.
func (w *rowWriter) attempt(ctx context.Context, conn *sql.Conn, c origin.Change) (origin.Value, error) {
	t, err := w.tables.get(ctx, conn)
	if err != nil {
		return origin.Value{}, err
	}
	v, err := w.attemptWith(ctx, conn, t, c)
	if err == nil || !w.tables.recheck(t, w.source.db.classOf(err), err) {
		return v, err
	}
	if t, err = w.tables.get(ctx, conn); err != nil {
		return origin.Value{}, err
	}
	return w.attemptWith(ctx, conn, t, c)
}

func (w *rowWriter) attemptWith(ctx context.Context, conn *sql.Conn, t *Table, c origin.Change) (origin.Value, error) {
	tx, err := w.transaction(t, c)
	if err != nil {
		return origin.Value{}, err
	}
	db := w.source.db
	err = db.database.Writer.Write(ctx, conn, tx)
	switch {
	case err == nil:
		return tx.value, nil
	case !isOutcome(err) && db.classOf(err) == errclass.Statement: //guard:rejected-value-reported-as-outage
		err = origin.InvalidValue("", "the database rejects it (%s)", db.database.Errors.Code(err))
	}
	return origin.Value{}, err
}

// WriteTransaction is one change as a transaction.
type WriteTransaction struct {
	Change origin.Change
	Query  *sqltext.Query // reads the row as Load does: before a deletion or compare, and after any other change
	Steps  []sqltext.Step
	Rows   *rowset.Set // receives the row
	View   bool        // rows may be impossible to lock

	plan         *sqltext.WritePlan
	columns      []rowjson.Column // that a value may set
	keyGenerated bool
	assignments  []assignment
	generated    []rowjson.Member // that the row must have after the write
	namedKey     *rowjson.Input   // the key in the value; nil if it has the same bytes as Change.Key

	value origin.Value // of the row after Verify
}

func (w *rowWriter) transaction(t *Table, c origin.Change) (*WriteTransaction, error) {
	ds := w.source.dataset
	param, err := t.keyParameter(ds, c.Key)
	if err != nil {
		return nil, err
	}
	if c.Delete {
		ds.Columns, ds.Value = []string{ds.Key}, "" // only the version is needed
	}
	tx := &WriteTransaction{
		Change: c, Query: sqltext.Load(ds, w.source.db.database.Syntax), Rows: rowset.New(ds, w.source.db.maxValueBytes),
		plan: &sqltext.WritePlan{
			Syntax: w.source.db.database.Syntax, Dataset: ds, Key: sqltext.Parameter{Column: ds.Key, Value: param},
		},
		View:    t.View,
		columns: w.writable(t.Columns),
	}
	key := t.Column(ds.Key)
	tx.keyGenerated = key != nil && key.Generated
	if !c.Delete {
		if tx.assignments, tx.namedKey, err = w.assignments(t, c); err != nil {
			return nil, err
		}
	}
	if !tx.compares() {
		tx.planSteps(c, parametersOf(tx.assignments))
	}
	tx.Forget()
	return tx, nil
}

func parametersOf(assignments []assignment) []sqltext.Parameter {
	set := make([]sqltext.Parameter, len(assignments))
	for i, a := range assignments {
		set[i] = sqltext.Parameter{Column: a.Name, Value: a.parameter}
	}
	return set
}

// planSteps plans the statements that set these columns. A key that the database generates cannot be inserted.
func (tx *WriteTransaction) planSteps(c origin.Change, set []sqltext.Parameter) {
	if len(set) == 0 && tx.keyGenerated && len(tx.columns) > 0 { // the statement must assign something, but not the key
		set = []sqltext.Parameter{{Column: tx.columns[0].Name, Value: sqltext.Unchanged{}}}
	}
	tx.plan.Set, tx.plan.Whole = set, len(set) == len(tx.columns)
	if tx.keyGenerated && !c.Delete && c.If == (origin.Condition{}) {
		c.If.Present = true
	}
	tx.Steps = tx.plan.Steps(c)
}

// writable returns the columns that a value may set.
func (w *rowWriter) writable(columns []rowjson.Column) []rowjson.Column {
	ds := w.source.dataset
	return slices.DeleteFunc(slices.Clone(columns), func(c rowjson.Column) bool {
		return c.Name == ds.Key || c.Name == ds.Version || c.Generated
	})
}

// Matched reports whether a step has matched a row.
func (tx *WriteTransaction) Matched() bool { return tx.Rows.Rows() > 0 }

// Verify checks the row of a transaction before COMMIT, and reports whether to commit. The matched row may be another one than
// the requested one: a collation may consider 'A' and 'a' equal.
func (tx *WriteTransaction) Verify() (commit bool, err error) {
	n, result := tx.Rows.Rows(), tx.Rows.Result(tx.Change.Key)
	mustExist := tx.Change.Delete || tx.Change.If.Present || tx.Change.If.Version != 0
	switch other := tx.Rows.RowsOf(tx.Change.Key) == 0; { //guard:write-changes-row-of-another-key
	case n > 1: //guard:write-changes-several-rows
		return false, fmt.Errorf("table %s has %d rows with this key: %w", tx.Query.Table, n, ErrNotUnique)
	case n == 0 && tx.keyGenerated && tx.Change.If == (origin.Condition{}) && !tx.Change.Delete:
		return false, origin.InvalidValue(tx.plan.Dataset.Key, "the database generates the key: no row can be created with it")
	case n == 0, other && mustExist:
		return false, tx.NotMatched()
	case other:
		return false, fmt.Errorf("%w: the database stores it as another key, %q", origin.ErrInvalidKey, tx.Rows.AnyKey())
	case result.Err != nil: //guard:row-written-too-large-to-read
		return false, origin.InvalidValue("", "the row could not be read: %v", result.Err)
	case tx.Change.Delete:
		tx.value.Version = tx.deletedVersion(result.Value.Version)
		return true, nil
	}
	tx.value = result.Value
	err = tx.checkMembers(result.Value.Data)
	return err == nil, err
}

// errSuppressed is the outcome if the row satisfies the condition, but the statements change nothing.
var errSuppressed = origin.InvalidValue("", "a trigger or rule of the table suppressed the write; nothing was written")

// Attempts are how a write transaction changes and reads the row.
type Attempts struct {
	Compare func() error                     // adds the row to Rows, and locks it, before Try
	Try     func() (matched bool, err error) // runs the steps until one matches the row
	Read    func() error                     // adds the row to Rows, and locks it
	// Suppresses reports, after Try, whether the table has triggers or the like that can suppress a write.
	Suppresses func() bool
}

// Match reports whether a step has matched a row. If none has, although the row satisfies the condition, another transaction
// may have changed it in between, so that Match tries again. If that does not help, a trigger suppresses the write.
func (tx *WriteTransaction) Match(a Attempts) (matched bool, err error) {
	for range 3 {
		if err := tx.compareWith(a.Compare); err != nil {
			return false, err
		}
		matched, err = a.Try()
		if err != nil || matched {
			return matched, err
		}
		tx.Forget()
		if !a.Suppresses() {
			return false, nil
		}
		if err := a.Read(); err != nil {
			return false, err
		}
		if !tx.satisfied() {
			tx.Forget()
			return false, nil
		}
	}
	return false, errSuppressed //guard:suppressed-write-is-conflict
}

// VerifyWritten is Verify for a row that read adds to Rows.
func (tx *WriteTransaction) VerifyWritten(read func() error) (commit bool, err error) {
	tx.Forget()
	if err := read(); err != nil {
		return false, err
	}
	if !tx.Matched() {
		return false, origin.InvalidValue("", "a trigger or rule of the table removes the row; nothing was written")
	}
	return tx.Verify()
}

// VerifyDeleted is Verify for a deletion after which a trigger may have inserted the row again.
func (tx *WriteTransaction) VerifyDeleted(read func() error) (commit bool, err error) {
	if commit, err = tx.Verify(); !commit {
		return false, err
	}
	tx.Forget()
	if err := read(); err != nil {
		return false, err
	}
	if tx.Rows.RowsOf(tx.Change.Key) > 0 {
		return false, errSuppressed
	}
	return true, nil
}

// Forget forgets the rows of the transaction.
func (tx *WriteTransaction) Forget() { tx.Rows.Begin([]string{tx.Change.Key}) }

// satisfied reports whether the row that was read satisfies the condition, so that a step should have matched.
func (tx *WriteTransaction) satisfied() bool {
	r, cond := tx.Rows.Result(tx.Change.Key), tx.Change.If
	exists := tx.Rows.RowsOf(tx.Change.Key) > 0
	switch {
	case cond.Absent:
		return tx.Rows.Rows() == 0 || exists && errors.Is(r.Err, origin.ErrNotFound)
	case cond.Present:
		return exists && r.Err == nil
	case cond.Version != 0:
		return exists && r.Err == nil && r.Value.Version == cond.Version
	}
	return exists || !tx.Change.Delete
}

// NotMatched is the outcome if no step has matched a row.
func (tx *WriteTransaction) NotMatched() error {
	if tx.Change.Delete && tx.Change.If == (origin.Condition{}) {
		return nil
	}
	return origin.ErrConflict
}

func (tx *WriteTransaction) deletedVersion(held int64) int64 {
	if tx.Rows.Dataset.Version == "" {
		return 0
	}
	return held + 1
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
