// Package origin says what a source of truth is. The adapters beside it (sqldb) are sources; guard decorates them;
// origintest holds the conformance test that every source passes.
package origin

import (
	"context"
	"errors"
	"fmt"
)

// Value is one immutable value as an origin holds it.
type Value struct {
	// Data is never modified after Load has returned it.
	Data []byte
	// Version is the row's version column, which grows with each write; 0 where there is none.
	Version int64
}

// Result answers one key of a Load.
type Result struct {
	Value Value
	// Err is nil, ErrNotFound, an error that wraps ErrInvalidKey, or one that says why the key's row can not be a value
	// (too large, not the only one): what is wrong with one key is no reason to fail the others that share its query.
	Err error
}

// Origin is the source of truth of one dataset. It is safe for concurrent use.
type Origin interface {
	// Load reads keys, which are distinct and not empty, in as few queries as it can. results[i] answers keys[i].
	// An error means that the origin could not answer at all; it wraps ErrOverloaded where the query was never made
	// because a bound was reached. The result never says that a key is absent when the origin could not tell.
	// Load returns soon after ctx is done, and leaves no query behind in the origin.
	Load(ctx context.Context, keys []string) (results []Result, err error)
}

var (
	// ErrNotFound says that the origin answered, and that it has no such key.
	ErrNotFound = errors.New("no such key")
	// ErrInvalidKey says that no such key can exist: it is not of the key column's type, or too long for it.
	ErrInvalidKey = errors.New("invalid key")
	// ErrOverloaded says that a bound (queue, statements in flight) refused the load before it began.
	ErrOverloaded = errors.New("origin overloaded")
)

// Writer is an Origin that also takes changes. It is safe for concurrent use.
type Writer interface {
	// Write makes one change, in one statement or transaction, and returns the row as Load would answer it now; after a
	// delete a Value without Data, whose Version is greater than that of the deleted row. nil means committed. Errors
	// that wrap ErrConflict, ErrInvalidKey, ErrInvalidValue or ErrOverloaded, and all others but ErrUnknown, mean that
	// nothing was written. A condition on the version of an origin without versions is ErrInvalidValue.
	Write(ctx context.Context, c Change) (Value, error)
}

// Change is one row to be.
type Change struct {
	Key string
	// Delete deletes the row, if there is one; otherwise Data is its new value, in the form that Load gives.
	Delete bool
	Data   []byte
	If     Condition
}

// Condition says what must be so for a Change to happen. At most one field is set; the zero value asks nothing.
type Condition struct {
	Absent  bool  // there is no such row
	Present bool  // there is one
	Version int64 // there is one of this version
}

// ValueError says which column of a value is wrong. It wraps ErrInvalidValue.
type ValueError struct {
	Column string // empty where it is the value as a whole
	Reason string // what is wrong and what to do
}

func (e *ValueError) Error() string {
	if e.Column == "" {
		return e.Reason
	}
	return "column " + e.Column + ": " + e.Reason
}

// Unwrap returns ErrInvalidValue.
func (e *ValueError) Unwrap() error { return ErrInvalidValue }

// InvalidValue returns a ValueError whose reason is formatted.
func InvalidValue(column, format string, args ...any) *ValueError {
	return &ValueError{Column: column, Reason: fmt.Sprintf(format, args...)}
}

var (
	// ErrConflict says that the row is not what the condition says.
	ErrConflict = errors.New("the row is not what the condition says")
	// ErrInvalidValue says that the value can not be this row; most are a *ValueError.
	ErrInvalidValue = errors.New("invalid value")
	// ErrUnknown says that a change may or may not have been made: the connection ended before the answer came.
	ErrUnknown = errors.New("the outcome of the write is unknown")
)

// Lister is an Origin whose rows can be gone through.
type Lister interface {
	// List returns rows in the order of their keys.
	List(ctx context.Context, q ListQuery) ([]Row, error)
}

// ListQuery says which rows.
type ListQuery struct {
	// After is the key after which to begin; empty means at the first.
	After string
	// Limit bounds the rows, 1 to 1000.
	Limit int
	// Where has the columns, of text, that must equal a value.
	Where map[string]string
}

// Row is one row of a List.
type Row struct {
	Key   string
	Value Value
}

// Feed tells of changes as they are made, whoever makes them.
type Feed interface {
	// Follow calls handle, from one goroutine, until ctx is done or the feed breaks; then it returns why. Called again it
	// goes on where it was, if the origin can tell what happened since.
	Follow(ctx context.Context, handle func(Changes)) error
}

// ErrFeedUnavailable says that what a feed rests on is not there, or may not be read: until somebody makes it, no change is told.
var ErrFeedUnavailable = errors.New("change feed not installed or not readable")

// Changes are some changes. The first ones of a Follow, perhaps none, come once nothing will be missed any more.
type Changes struct {
	// Missed says that others before these are not known: any row may have changed.
	Missed bool
	Rows   []Changed
}

// Changed is a row that was written or deleted.
type Changed struct {
	Key     string
	Version int64 // of the row now; 0 when it is not known
}
