package sqldb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// ErrRetry says that nothing was written, and that another attempt may succeed at once.
var ErrRetry = errors.New("transaction aborted (deadlock or serialization failure)")

// ErrNotRenewed is the ErrRetry of a transaction whose new row a trigger does not let it update; see rowwrite.Transaction.Waited.
// On a slow connection each attempt may end like this.
var ErrNotRenewed = fmt.Errorf("%w: the row that it created cannot be updated", ErrRetry)

// Unknown says that COMMIT was sent and that its outcome is unknown.
func Unknown(err error) error { return fmt.Errorf("%w: %w", origin.ErrUnknown, err) }

// PlainError is Err with another text.
type PlainError struct {
	Text string
	Err  error
}

func (e *PlainError) Error() string { return e.Text }

// Unwrap returns the original error.
func (e *PlainError) Unwrap() error { return e.Err }

// NoAnswerError says that a server accepted a connection but sent no greeting before the deadline, which is Err.
type NoAnswerError struct {
	Server string // what was expected there
	Addr   string
	Err    error
}

func (e *NoAnswerError) Error() string {
	return fmt.Sprintf("%v: no %s has answered at %s: check host and port, and that they are not those of another kind of "+
		"database", e.Err, e.Server, e.Addr)
}

// Unwrap returns the deadline error.
func (e *NoAnswerError) Unwrap() error { return e.Err }

// ServerTimeout is how long the database may work on a statement: a little less than the caller waits, so that the
// database ends the statement before this side gives up. It is 0 without a deadline, and at least a millisecond otherwise. It
// has few values, so that the statements with it are few, and can stay prepared.
func ServerTimeout(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	limit := max(time.Until(deadline)*9/10, time.Millisecond)
	step := time.Millisecond
	for limit/step >= timeoutSteps {
		step *= 2
	}
	return limit.Truncate(step)
}

// timeoutSteps makes ServerTimeout at most 1/32 shorter than 9/10 of the time that is left.
const timeoutSteps = 64

// withAdvice adds to an error of the network what an operator can do.
func withAdvice(err error) error {
	var unresolved *net.DNSError
	switch {
	case errors.As(err, &unresolved):
		return fmt.Errorf("%w; correct the host in the DSN, or the DNS of this pod", err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w; nothing listens at this address: start the database, or correct host and port in the DSN", err)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return fmt.Errorf("%w; no route leads to this address: check the host in the DSN and the network policies", err)
	}
	return err
}
