package guard

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// Timeout turns an origin into one that gives up a Load after a time.
type Timeout struct {
	next     origin.Origin
	after    time.Duration
	exceeded atomic.Int64
}

// NewTimeout gives each Load of next the time after, or what its caller has left, if that is less.
func NewTimeout(next origin.Origin, after time.Duration) *Timeout {
	return &Timeout{next: next, after: after}
}

// Exceeded counts the Loads that were given up because their time had passed.
func (t *Timeout) Exceeded() int64 { return t.exceeded.Load() }

// Load implements origin.Origin.
func (t *Timeout) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, t.after)
	defer cancel()
	results, err := t.next.Load(ctx, keys)
	if errors.Is(err, context.DeadlineExceeded) {
		t.exceeded.Add(1)
		err = fmt.Errorf("load of at most %v: %w", t.after, err)
	}
	return results, err
}
