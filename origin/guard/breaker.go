package guard

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/ringside-cache/ringside/origin"
)

// Defaults of BreakerConfig.
const (
	DefaultFailures = 5
	DefaultCooldown = time.Second
)

// ErrOpen says that the breaker is open because of consecutive failures. It does not wrap origin.ErrOverloaded: it is an
// outage, during which the cache serves stale values.
var ErrOpen = errors.New("circuit breaker open: the origin keeps failing")

// BreakerConfig says when a breaker opens, and for how long.
type BreakerConfig struct {
	// Failures is how many consecutive failures open the breaker; 0 means DefaultFailures.
	Failures uint32
	// Cooldown is how long the breaker stays open before it lets one Load through as a probe; 0 means DefaultCooldown.
	Cooldown time.Duration
}

func (c BreakerConfig) failures() uint32 {
	if c.Failures == 0 {
		return DefaultFailures
	}
	return c.Failures
}

func (c BreakerConfig) cooldown() time.Duration {
	if c.Cooldown <= 0 {
		return DefaultCooldown
	}
	return c.Cooldown
}

// Breaker turns an origin into one that rejects Loads at once while the origin keeps failing. Results for keys that are not
// found or invalid are successes. A Load that a limit rejected says nothing about the origin, nor does one that its caller
// canceled, unless the reason is that its time has passed.
type Breaker struct {
	next    origin.Origin
	circuit *gobreaker.CircuitBreaker[struct{}]
	last    atomic.Pointer[error] // the latest failure; nil before the first
	refused atomic.Int64
}

// BreakerStats is the state of a Breaker.
type BreakerStats struct {
	Open    bool  // now; false if half-open
	Closed  bool  // now; false if half-open
	Refused int64 // Loads, since the start
}

// NewBreaker returns a closed breaker around next.
func NewBreaker(next origin.Origin, c BreakerConfig) *Breaker {
	b := &Breaker{next: next}
	b.circuit = gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:     c.cooldown(),
		ReadyToTrip: func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= c.failures() },
		IsExcluded:  isNeutral,
	})
	return b
}

// isNeutral reports whether an error says nothing about the origin.
func isNeutral(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, origin.ErrOverloaded) //guard:cancelled-loads-open-breaker
}

// timedOut makes the end of a canceled Load a timeout if its context was canceled because the callers' time has passed.
func timedOut(ctx context.Context, err error) error {
	if errors.Is(err, context.Canceled) && errors.Is(context.Cause(ctx), context.DeadlineExceeded) { //guard:frozen-origin-does-not-open-breaker
		return fmt.Errorf("%w: %v", context.DeadlineExceeded, err)
	}
	return err
}

// Stats returns the state.
func (b *Breaker) Stats() BreakerStats {
	state := b.circuit.State()
	return BreakerStats{
		Open: state == gobreaker.StateOpen, Closed: state == gobreaker.StateClosed, Refused: b.refused.Load(),
	}
}

// Load implements origin.Origin.
func (b *Breaker) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	return origin.Collect(ctx, b, keys)
}

// LoadEach implements origin.Streamer.
func (b *Breaker) LoadEach(ctx context.Context, keys []string, yield func(int, origin.Result)) error {
	_, err := b.circuit.Execute(func() (struct{}, error) {
		err := timedOut(ctx, origin.LoadEach(ctx, b.next, keys, yield))
		if err != nil && !isNeutral(err) {
			b.last.Store(&err)
		}
		return struct{}{}, err
	})
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		b.refused.Add(1)
		last := b.last.Load()
		if last == nil { // all failures were panics
			return ErrOpen
		}
		return fmt.Errorf("%w; its last failure: %v", ErrOpen, *last)
	}
	return err
}
