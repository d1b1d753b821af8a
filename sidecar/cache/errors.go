package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/internal/flight"
)

// Kind classifies the errors of reads and writes. Each edge (HTTP, gRPC, peer) maps kinds to its codes in one table.
type Kind uint8

// The kinds of errors.
const (
	KindInternal    Kind = iota // a bug in this program
	KindInvalidKey              // no row can have this key; the caller must change it
	KindNotCached               // OnlyIfCached or MemoryOnly, and nothing usable in memory
	KindOverloaded              // a limit was reached; nothing was tried; see RetryAfter
	KindUnavailable             // the origin, or every member that could query it, failed; see RetryAfter
	KindDeadline                // the caller's deadline passed first
	KindCanceled                // the caller canceled

	KindVersion      // the origin's value is older than MinVersion; or, without RetryAfter, has no version
	KindReadOnly     // the dataset is read-only
	KindInvalidValue // the value cannot be stored in the row; see origin.ValueError
	KindIDReused     // the write's ID was used for another write; nothing was written
	KindConflict     // the row does not meet the write's condition; nothing was written
	KindUnknown      // the write may or may not have happened; see RetryAfter
)

// Error is an error with a kind.
type Error struct {
	Kind Kind
	// RetryAfter is when a retry may help; 0 if it cannot.
	RetryAfter time.Duration
	// Err is what failed, without secrets.
	Err error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// KindOf classifies any error that a Dataset or a Peer returns.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, origin.ErrInvalidKey):
		return KindInvalidKey
	case errors.Is(err, origin.ErrOverloaded), errors.Is(err, flight.ErrFull): //guard:full-sidecar-refuses-instead-of-a-stale-answer
		return KindOverloaded
	case errors.Is(err, context.DeadlineExceeded):
		return KindDeadline
	case errors.Is(err, context.Canceled):
		return KindCanceled
	}
	return KindInternal
}

// RetryAfter returns when a retry may help, or 0.
func RetryAfter(err error) time.Duration {
	var e *Error
	if errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}

// MaxKeyBytes bounds a key.
const MaxKeyBytes = 1024

// CheckKey returns an error of KindInvalidKey unless key can be the key of an entry: 1 to MaxKeyBytes of UTF-8 without NUL.
func CheckKey(key string) error {
	switch {
	case key == "":
		return invalidKey("the key is empty")
	case len(key) > MaxKeyBytes:
		return invalidKey(fmt.Sprintf("the key has %d bytes; at most %d are allowed", len(key), MaxKeyBytes))
	case !utf8.ValidString(key):
		return invalidKey("the key is not UTF-8")
	case strings.IndexByte(key, 0) >= 0:
		return invalidKey("the key contains a NUL byte")
	}
	return nil
}

func invalidKey(why string) error { return &Error{Kind: KindInvalidKey, Err: errors.New(why)} }

// retryAfter is sent to callers when the origin failed or a limit was reached.
const retryAfter = time.Second

// classify gives an error of the origin, of a flight or of a peer its kind. Errors that have one keep it.
func (c *core) classify(err error) error {
	var known *Error
	var panicked *flight.PanicError
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.As(err, &panicked):
		return &Error{Kind: KindInternal, Err: fmt.Errorf("dataset %s: %w", c.name, err)}
	case errors.Is(err, origin.ErrInvalidKey):
		return &Error{Kind: KindInvalidKey, Err: fmt.Errorf("dataset %s: %w", c.name, err)}
	case errors.Is(err, origin.ErrOverloaded), errors.Is(err, flight.ErrFull):
		return &Error{Kind: KindOverloaded, RetryAfter: retryAfter, Err: fmt.Errorf("dataset %s: %w", c.name, err)}
	case errors.Is(err, context.DeadlineExceeded):
		return c.unavailable(fmt.Errorf("no answer within %v: %w", c.Policy().LoadTimeout, err))
	}
	return c.unavailable(err)
}

func (c *core) unavailable(err error) error {
	return &Error{Kind: KindUnavailable, RetryAfter: retryAfter, Err: fmt.Errorf("dataset %s: %w", c.name, err)}
}

// callersError tells the end of the caller's own context from a failure of the flight that it waited for.
func (c *core) callersError(ctx context.Context, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &Error{Kind: KindDeadline, Err: fmt.Errorf("dataset %s: the caller's deadline passed", c.name)}
	case ctx.Err() != nil:
		return &Error{Kind: KindCanceled, Err: fmt.Errorf("dataset %s: the caller canceled", c.name)}
	}
	return c.classify(err)
}
