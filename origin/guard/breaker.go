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

// ErrOpen says that the origin failed so often in a row that it is left alone for a while. It does not wrap
// origin.ErrOverloaded: it is an outage, through which stale values are served.
var ErrOpen = errors.New("the origin keeps failing and is not asked for a while")

// BreakerConfig says when an origin is left alone.
type BreakerConfig struct {
	// Failures in a row open the breaker; 0 means DefaultFailures.
	Failures uint32
	// Cooldown is how long it stays open, before one Load is let through to see; 0 means DefaultCooldown.
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

// Breaker turns an origin into one that is not asked while it keeps failing. Absent and invalid keys are answers, and
// a Load that its caller gave up or that a bound refused says nothing about the origin.
type Breaker struct {
	next    origin.Origin
	circuit *gobreaker.CircuitBreaker[[]origin.Result]
	last    atomic.Pointer[error] // the latest failure; nil before the first
	opened  atomic.Int64
	refused atomic.Int64
}

// BreakerStats is the state of a Breaker.
type BreakerStats struct {
	Open    bool  // now; a half-open breaker is not open
	Opened  int64 // times, since the start
	Refused int64 // Loads, since the start
}

// NewBreaker returns a closed breaker around next.
func NewBreaker(next origin.Origin, c BreakerConfig) *Breaker {
	b := &Breaker{next: next}
	b.circuit = gobreaker.NewCircuitBreaker[[]origin.Result](gobreaker.Settings{
		Timeout:     c.cooldown(),
		ReadyToTrip: func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= c.failures() },
		IsExcluded:  saysNothing,
		OnStateChange: func(_ string, _, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				b.opened.Add(1)
			}
		},
	})
	return b
}

func saysNothing(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, origin.ErrOverloaded) //guard:callers-leave-open-breaker
}

// Stats returns the state.
func (b *Breaker) Stats() BreakerStats {
	return BreakerStats{
		Open: b.circuit.State() == gobreaker.StateOpen, Opened: b.opened.Load(), Refused: b.refused.Load(),
	}
}

// Load implements origin.Origin.
func (b *Breaker) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	results, err := b.circuit.Execute(func() ([]origin.Result, error) {
		results, err := b.next.Load(ctx, keys)
		if err != nil && !saysNothing(err) {
			b.last.Store(&err)
		}
		return results, err
	})
	if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		b.refused.Add(1)
		last := b.last.Load()
		if last == nil { // all that failed were panics
			return nil, ErrOpen
		}
		return nil, fmt.Errorf("%w; its last failure: %v", ErrOpen, *last)
	}
	return results, err
}
