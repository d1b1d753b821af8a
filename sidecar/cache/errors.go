package cache

import (
	"context"
	"errors"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/internal/flight"
)

// Kind classes what can go wrong with a read or a write. Each edge (HTTP, gRPC, peer) maps kinds to its codes in one table.
type Kind uint8

// The kinds of errors.
const (
	KindInternal    Kind = iota // a defect of this program
	KindInvalidKey              // the key can not exist; the caller must change it
	KindNotCached               // OnlyIfCached or MemoryOnly, and nothing usable in memory
	KindOverloaded              // a bound was reached; nothing was tried; see RetryAfter
	KindUnavailable             // the origin, or every member that could ask it, failed; see RetryAfter
	KindDeadline                // the caller's deadline passed first
	KindCanceled                // the caller went away

	KindVersion      // the origin's value is older than MinVersion; or, without RetryAfter, has no version
	KindReadOnly     // the dataset takes no writes
	KindInvalidValue // the value can not be the row; see origin.ValueError
	KindIDReused     // the write's ID was used for another write; nothing was written
	KindConflict     // the row is not what the write's condition says; nothing was written
	KindUnknown      // the write may or may not have happened; see RetryAfter
)

// Error is an error of a known kind.
type Error struct {
	Kind Kind
	// RetryAfter is when trying again may help; 0 where it does not.
	RetryAfter time.Duration
	// Err says what happened, without secrets.
	Err error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// KindOf classes any error that a Dataset or a Peer returns.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, origin.ErrInvalidKey):
		return KindInvalidKey
	case errors.Is(err, origin.ErrOverloaded), errors.Is(err, flight.ErrFull): //guard:full-sidecar-refuses-where-stale-value
		return KindOverloaded
	case errors.Is(err, context.DeadlineExceeded):
		return KindDeadline
	case errors.Is(err, context.Canceled):
		return KindCanceled
	}
	return KindInternal
}

// RetryAfter returns when trying again may help, or 0.
func RetryAfter(err error) time.Duration {
	var e *Error
	if errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}
