package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/internal/flight"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// retryAfter is sent to callers when the origin failed or a limit was reached.
const retryAfter = time.Second

// classify gives an error of the origin, of a flight or of a peer its kind. Errors that have one keep it.
func (c *core) classify(err error) error {
	var known *kv.Error
	var panicked *flight.PanicError
	switch {
	case err == nil || errors.As(err, &known):
		return err
	case errors.As(err, &panicked):
		return &kv.Error{Kind: kv.KindInternal, Err: fmt.Errorf("dataset %s: %w", c.name, err)}
	case errors.Is(err, origin.ErrInvalidKey):
		return &kv.Error{Kind: kv.KindInvalidKey, Err: fmt.Errorf("dataset %s: %w", c.name, err)}
	case errors.Is(err, origin.ErrOverloaded), errors.Is(err, flight.ErrFull):
		return &kv.Error{Kind: kv.KindOverloaded, RetryAfter: retryAfter, Err: fmt.Errorf("dataset %s: %w", c.name, err)}
	case errors.Is(err, context.DeadlineExceeded):
		return c.unavailable(fmt.Errorf("no answer within %v: %w", c.Policy().LoadTimeout, err))
	}
	return c.unavailable(err)
}

func (c *core) unavailable(err error) error {
	return &kv.Error{Kind: kv.KindUnavailable, RetryAfter: retryAfter, Err: fmt.Errorf("dataset %s: %w", c.name, err)}
}

// callersError tells the end of the caller's own context from a failure of the flight that it waited for.
func (c *core) callersError(ctx context.Context, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &kv.Error{Kind: kv.KindDeadline, Err: fmt.Errorf("dataset %s: the caller's deadline passed", c.name)}
	case ctx.Err() != nil:
		return &kv.Error{Kind: kv.KindCanceled, Err: fmt.Errorf("dataset %s: the caller canceled", c.name)}
	}
	return c.classify(err)
}
