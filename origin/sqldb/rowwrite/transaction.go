// Package rowwrite plans and verifies writes of single rows: the statements of a change, run one after the other until one
// matches the row, and the check of the row before COMMIT. It runs no statement itself.
package rowwrite

import (
	"errors"
	"fmt"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
	"github.com/ringside-cache/ringside/origin/sqldb/tables"
)

// Transaction is one change as a transaction.
type Transaction struct {
	Change origin.Change
	Query  *sqltext.Query // reads the row as Load does: before a deletion or compare, and after any other change
	Steps  []sqltext.Step
	Rows   *rowset.Set // receives the row
	View   bool        // rows may be impossible to lock
	// Appends is how the step generates the key, which SetKey sets; NotGenerated: the key is that of Change.
	Appends tables.Generation

	plan         *sqltext.WritePlan
	columns      []rowjson.Column // that a value may set
	generatedKey string           // the key column that the database generates, or ""
	assignments  []assignment
	generated    []rowjson.Member // that the row must have after the write
	namedKey     []rowjson.Member // of the value for columns of the key, except those with the same bytes as Change.Key

	value origin.Value // of the row after Verify
}

// Value is that of the row after Verify.
func (tx *Transaction) Value() origin.Value { return tx.value }

// Matched reports whether a step has matched a row.
func (tx *Transaction) Matched() bool { return tx.Rows.Rows() > 0 }

// Verify checks the row of a transaction before COMMIT, and reports whether to commit. The matched row may be another one than
// the requested one: a collation may consider 'A' and 'a' equal.
func (tx *Transaction) Verify() (commit bool, err error) {
	n, result := tx.Rows.Rows(), tx.Rows.Result(tx.Change.Key)
	mustExist := tx.Change.Delete || tx.Change.If.Present || tx.Change.If.Version != 0
	switch other := tx.Rows.RowsOf(tx.Change.Key) == 0; { //guard:write-changes-row-of-another-key
	case n > 1: //guard:write-changes-several-rows
		return false, fmt.Errorf("table %s has %d rows with this key: %w", tx.Query.Table, n, tables.ErrNotUnique)
	case n == 0 && tx.generatedKey != "" && tx.Change.If == (origin.Condition{}) && !tx.Change.Delete:
		return false, origin.InvalidValue(tx.generatedKey, "the database generates the key: no row can be created with it")
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
func (tx *Transaction) Match(a Attempts) (matched bool, err error) {
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
func (tx *Transaction) VerifyWritten(read func() error) (commit bool, err error) {
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
func (tx *Transaction) VerifyDeleted(read func() error) (commit bool, err error) {
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
func (tx *Transaction) Forget() { tx.Rows.Begin([]string{tx.Change.Key}) }

// satisfied reports whether the row that was read satisfies the condition, so that a step should have matched.
func (tx *Transaction) satisfied() bool {
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
func (tx *Transaction) NotMatched() error {
	if tx.Change.Delete && tx.Change.If == (origin.Condition{}) {
		return nil
	}
	return origin.ErrConflict
}

func (tx *Transaction) deletedVersion(held int64) int64 {
	if tx.Rows.Dataset.Version == "" {
		return 0
	}
	return held + 1
}
