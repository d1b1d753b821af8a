// Package origin defines what a source of truth is: the interfaces of one dataset (Origin, Writer, Lister, Feed) and those of
// the kinds of origins (Driver, Source). Packages sqldb, httporigin and etcdorigin implement them, guard decorates them, drivers lists the kinds, and
// origintest has the conformance tests that every implementation passes.
package origin

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Value is one immutable value as an origin stores it.
type Value struct {
	// Data is never modified after Load has returned it.
	Data []byte
	// Version is the row's version column, which grows with each write; 0 if there is none.
	Version int64
	// Content says what Data is.
	Content Content
	// Expires is the time until which the row is valid, on the clock of those who wrote it; zero if it does not say.
	Expires time.Time
	// MaxStale is how long the value may be used after it has ceased to be fresh; nil: as long as the dataset says.
	MaxStale *time.Duration
}

// Content says what the bytes of a value are.
type Content uint8

// The contents. Members send their numbers to each other.
const (
	ContentUnknown Content = iota // the origin does not know
	ContentJSON
	ContentText // UTF-8
	ContentBytes
)

// String returns the name that operators see.
func (c Content) String() string {
	switch c {
	case ContentJSON:
		return "json"
	case ContentText:
		return "text"
	case ContentBytes:
		return "bytes"
	}
	return "unknown"
}

// Result is the result of one key of a Load, or of one change of a WriteMany.
type Result struct {
	Value Value
	// Err of a Load is nil, ErrNotFound, an error that wraps ErrInvalidKey, a *DataError, or that of one query of several: an error of
	// one key must not fail the others.
	Err error
}

// IsAnswer reports whether r is what the origin has of its key: a value, "not found", or rows that cannot be a value.
func (r Result) IsAnswer() bool {
	return r.Err == nil || errors.Is(r.Err, ErrNotFound) || CauseOf(r.Err) != 0 //guard:data-error-is-an-outage
}

// Origin is the source of truth of one dataset. It is safe for concurrent use.
type Origin interface {
	// Load reads keys, which are distinct and not empty, in as few queries as possible. results[i] is the result of keys[i].
	// An error means that the origin returned nothing; it wraps ErrOverloaded if a limit prevented the query. A key is
	// only reported as not found if the origin said so. Load returns soon after ctx is done, and leaves no query running in
	// the origin.
	Load(ctx context.Context, keys []string) (results []Result, err error)
}

var (
	// ErrNotFound says that the origin has no such key.
	ErrNotFound = errors.New("no such key")
	// ErrInvalidKey says that no such key can exist: it does not fit the key column's type, or is too long.
	ErrInvalidKey = errors.New("invalid key")
	// ErrOverloaded says that a limit (queue, statements in flight) rejected the load before it began.
	ErrOverloaded = errors.New("origin overloaded")
)

// Writer changes the rows of one dataset. It is safe for concurrent use.
type Writer interface {
	// Write makes one change, in one statement or transaction, and returns the row as Load would return it now; after a
	// deletion, a Value without Data whose Version is greater than that of the deleted row. A nil error means committed.
	// ErrUnknown means that the outcome is unknown. All other errors, such as ErrConflict, ErrInvalidKey, ErrInvalidValue
	// and ErrOverloaded, mean that nothing was written. A condition on a version is ErrInvalidValue if the origin has no
	// versions.
	Write(ctx context.Context, c Change) (Value, error)
	// WriteMany makes changes of distinct keys, in one transaction if the origin lets it: the results are those of Write, in the
	// order of cs, and a change that fails does not keep the others from being made.
	WriteMany(ctx context.Context, cs []Change) []Result
	// Append inserts one row, in the form of Change.Data but without its key, which the origin generates, and returns its key
	// and value as Load would return them now. Its errors are those of Write; an *AppendError says that the origin generates
	// no key. After ErrUnknown, another Append may insert the row again.
	Append(ctx context.Context, data []byte) (Row, error)
}

// AppendError says why the origin generates no keys for the rows of a dataset, and what to do. Nothing was written.
type AppendError struct{ Reason string }

func (e *AppendError) Error() string { return e.Reason }

// Change is one write of a row.
type Change struct {
	Key string
	// Delete deletes the row, if it exists. Otherwise Data is its new value, in the form that Load returns.
	Delete bool
	Data   []byte
	If     Condition
}

// Condition is required for a Change. At most one field is set; the zero value requires nothing.
type Condition struct {
	Absent  bool  // the row does not exist
	Present bool  // the row exists
	Version int64 // the row exists at this version
}

// ValueError says which column of a value is invalid. It wraps ErrInvalidValue.
type ValueError struct {
	Column string // empty if the whole value is invalid
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
	// ErrConflict says that the row does not satisfy the condition.
	ErrConflict = errors.New("the row does not satisfy the condition")
	// ErrInvalidValue says that the row cannot have this value; most are a *ValueError.
	ErrInvalidValue = errors.New("invalid value")
	// ErrUnknown says that a change may or may not have been made: the connection ended before the answer arrived.
	ErrUnknown = errors.New("the outcome of the write is unknown")
)

// Lister lists the rows of one dataset. It is safe for concurrent use.
type Lister interface {
	// List returns rows in the order of their keys.
	List(ctx context.Context, q ListQuery) ([]Row, error)
}

// ListQuery selects rows.
type ListQuery struct {
	// After is the key after which to begin; empty means at the first key.
	After string
	// Limit is the maximum number of rows, 1 to 1000.
	Limit int
	// Where has the text columns that must equal a value.
	Where map[string]string
}

// Row is one row of a List.
type Row struct {
	Key   string
	Value Value
}

// Feed reports changes as they are made, also those that bypass the cache.
type Feed interface {
	// Follow calls handle, from one goroutine, until ctx is done or the feed breaks, and returns the reason. The next call
	// continues from the same position, if the origin knows what has changed since.
	Follow(ctx context.Context, handle func(Changes)) error
}

// LoggedFeed is a Feed of which the origin keeps changes: in a table, of which the feed deletes old rows, or in its log.
type LoggedFeed interface {
	Feed
	// LogStats returns what the feed has last seen of them.
	LogStats() LogStats
}

// LogStats describes the changes that an origin keeps. What this kind of feed does not have is 0.
type LogStats struct {
	Rows    int64 // about how many there are; 0 before the first look, and while this feed does not run
	MaxRows int64 // that are kept
	WAL     int64 // bytes of the origin's log that are kept for this feed; 0 while it does not run
	MaxWAL  int64 // at which the feed starts over
	// PruneError is why old rows could not be deleted the last time; nil if they could.
	PruneError error
}

// ErrFeedUnavailable says that what a feed needs in the origin does not exist, or cannot be read: until an operator installs
// it, no change is reported.
var ErrFeedUnavailable = errors.New("change feed not installed or not readable")

// Changes are changes of rows. Follow reports the first ones, perhaps none, as soon as it can miss no later change.
type Changes struct {
	// Missed says that earlier changes are unknown: any row may have changed.
	Missed bool
	Rows   []Changed
}

// Changed is a row that was written or deleted.
type Changed struct {
	Key     string
	Version int64 // of the row after the change; 0 if unknown
}

// KeyLister lists the keys of one dataset. It is safe for concurrent use.
type KeyLister interface {
	// ListKeys passes on each key that begins with prefix, which is the same for bytes, in no particular order and perhaps more than
	// once, until yield returns false. The list may also have keys whose rows are gone when they are loaded.
	ListKeys(ctx context.Context, prefix string, yield func(key string) bool) error
}
