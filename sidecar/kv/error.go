package kv

import (
	"context"
	"errors"
	"fmt"
	"time"

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

	KindDataError // the rows of the key cannot be a value; see origin.CauseOf. A retry does not help
	KindNoAppend  // the database generates no keys for the rows; nothing was written
)

// String returns the name of a kind for operators.
func (k Kind) String() string {
	return [...]string{
		KindInternal: "internal", KindInvalidKey: "invalid_key", KindNotCached: "not_cached", KindOverloaded: "overloaded",
		KindUnavailable: "unavailable", KindDeadline: "deadline", KindCanceled: "canceled", KindVersion: "version",
		KindReadOnly: "read_only", KindInvalidValue: "invalid_value", KindIDReused: "id_reused", KindConflict: "conflict",
		KindUnknown: "unknown", KindDataError: "data_error", KindNoAppend: "no_append",
	}[k]
}

// Error is an error with a kind.
type Error struct {
	Kind Kind
	// RetryAfter is when a retry may help; 0 if it cannot.
	RetryAfter time.Duration
	// Err is what failed, without secrets. Only operators see its text: it may name hosts, databases and tables.
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
	case origin.CauseOf(err) != 0:
		return KindDataError
	case errors.Is(err, origin.ErrOverloaded), errors.Is(err, flight.ErrFull): //guard:full-sidecar-refuses-instead-of-a-stale-answer
		return KindOverloaded
	case errors.Is(err, context.DeadlineExceeded):
		return KindDeadline
	case errors.Is(err, context.Canceled):
		return KindCanceled
	}
	return KindInternal
}

// Reason returns why a key or value is invalid, or why a dataset has no append, without the names of origins, members and datasets around it: clients that
// sent the key or value see it.
func Reason(err error) string {
	if wrong, ok := errors.AsType[*origin.ValueError](err); ok {
		return wrong.Error()
	}
	if cannot, ok := errors.AsType[*origin.AppendError](err); ok {
		return cannot.Error()
	}
	for {
		next := errors.Unwrap(err)
		if next == nil || next == origin.ErrInvalidKey || next == origin.ErrInvalidValue {
			return err.Error()
		}
		err = next
	}
}

// RetryAfter returns when a retry may help, or 0.
func RetryAfter(err error) time.Duration {
	var e *Error
	if errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}

// ErrBatchBytes is the error of a key of a batch whose value does not fit into the response. The key can be read in another
// batch, or alone.
var ErrBatchBytes = errors.New("batch response too large")

// ErrNoMemory is the error of a request for which there is no memory.
var ErrNoMemory = &Error{Kind: KindOverloaded, RetryAfter: time.Second,
	Err: errors.New("other requests use up the memory for clients (client_memory in the configuration)")}

// ErrUnreachable means that a peer did not answer: the connection failed or timed out, or its breaker is open.
var ErrUnreachable = errors.New("peer unreachable")

// TracedError is an error of a request that is traced. Its text is that of Err.
type TracedError struct {
	Err             error
	TraceID, SpanID string // as OpenTelemetry writes them
}

func (e *TracedError) Error() string { return e.Err.Error() }

func (e *TracedError) Unwrap() error { return e.Err }

// Err returns the error that applications get of a key whose rows cannot be a value; nil for any other answer.
func (a Answer) Err(dataset string) error {
	return DataError(dataset, a.DataError)
}

// DataError returns the error that applications get of a key with a data error; nil without a cause.
func DataError(dataset string, cause origin.DataCause) error {
	if cause == 0 {
		return nil
	}
	return dataError(dataset, cause)
}

// dataError is a function of its own so that the stack frame of a hit stays small.
func dataError(dataset string, cause origin.DataCause) error {
	return &Error{Kind: KindDataError, Err: fmt.Errorf("dataset %s: %w", dataset, &origin.DataError{
		Cause: cause, Text: "the rows of the key in the database cannot be its value (" + cause.String() + ")"})}
}

// Excusable reports whether a stale answer is better than an error of this kind.
func (k Kind) Excusable() bool {
	return k == KindUnavailable || k == KindOverloaded || k == KindDeadline
}

// StaleDetail returns the Detail of a stale answer that is sent because of err.
func StaleDetail(err error) string {
	switch {
	case errors.Is(err, ErrUnreachable):
		return DetailOwnerUnreachable
	case KindOf(err) == KindOverloaded:
		return DetailOverloaded
	case KindOf(err) == KindDeadline, errors.Is(err, context.DeadlineExceeded):
		return DetailOriginSlow
	}
	return DetailOriginError
}
