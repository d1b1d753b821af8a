package guard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/ringside-cache/ringside/origin"
)

// DefaultMaxQueue is the default of LimitConfig.MaxQueue.
const DefaultMaxQueue = 1000

// LimitConfig limits the concurrent use of one origin.
type LimitConfig struct {
	// MaxInFlight limits the concurrent Loads, Writes and Lists, and so the concurrent statements; 0 means
	// origin.DefaultMaxConns.
	MaxInFlight int
	// MaxQueue limits those that wait for their turn; one more is rejected at once with origin.ErrOverloaded. 0 means
	// DefaultMaxQueue; less than 0 means no queue.
	MaxQueue int
}

func (c LimitConfig) maxInFlight() int64 {
	if c.MaxInFlight <= 0 {
		return origin.DefaultMaxConns
	}
	return int64(c.MaxInFlight)
}

func (c LimitConfig) maxQueue() int64 {
	if c.MaxQueue == 0 {
		return DefaultMaxQueue
	}
	return int64(max(c.MaxQueue, 0))
}

// Limiter is the budget of one origin, which its datasets share. It grants turns in the order of arrival.
type Limiter struct {
	turns       *semaphore.Weighted
	maxInFlight int64
	maxQueue    int64
	inFlight    atomic.Int64
	queued      atomic.Int64
	refused     atomic.Int64
	gaveUp      atomic.Int64
	background  chan struct{} // has room for the one background statement
}

// LimitStats is the use of a Limiter.
type LimitStats struct {
	MaxInFlight, MaxQueue int64
	InFlight, Queued      int64 // now
	Refused               int64 // since the start: the queue was full
	GaveUp                int64 // since the start: the caller's context ended in the queue
}

// NewLimiter returns a Limiter with nothing in flight.
func NewLimiter(c LimitConfig) *Limiter {
	return &Limiter{
		turns: semaphore.NewWeighted(c.maxInFlight()), maxInFlight: c.maxInFlight(), maxQueue: c.maxQueue(),
		background: make(chan struct{}, 1),
	}
}

// Writer turns next into a writer within the budget. A Write that waits for its turn, or does not get one, has not begun.
func (l *Limiter) Writer(next origin.Writer) origin.Writer { return limitedWriter{l, next} } //guard:writes-outside-budget

// Lister turns next into a lister within the budget.
func (l *Limiter) Lister(next origin.Lister) origin.Lister { return limitedLister{l, next} } //guard:lists-outside-budget

// Stats returns the use of the limits.
func (l *Limiter) Stats() LimitStats {
	return LimitStats{
		MaxInFlight: l.maxInFlight, MaxQueue: l.maxQueue,
		InFlight: l.inFlight.Load(), Queued: l.queued.Load(),
		Refused: l.refused.Load(), GaveUp: l.gaveUp.Load(),
	}
}

// idlePause is the time between two looks for an idle turn.
const idlePause = 5 * time.Millisecond

// EnterIdle waits for a turn that nobody else needs: one background statement runs at a time, and it begins only while nobody
// waits and, if there is more than one turn, another one stays free. Call leave at its end. It may wait as long as the origin is busy.
func (l *Limiter) EnterIdle(ctx context.Context) (leave func(), err error) {
	select {
	case l.background <- struct{}{}: //guard:two-background-statements-at-once
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for !l.tryIdle() {
		select {
		case <-time.After(idlePause):
		case <-ctx.Done():
			<-l.background
			return nil, ctx.Err()
		}
	}
	l.inFlight.Add(1)
	return func() {
		l.leave()
		<-l.background
	}, nil
}

// tryIdle takes a turn if it is idle. TryAcquire fails while others wait.
func (l *Limiter) tryIdle() bool {
	n := min(2, l.maxInFlight) //guard:background-statement-takes-the-last-turn
	if !l.turns.TryAcquire(n) {
		return false
	}
	l.turns.Release(n - 1)
	return true
}

type limitedWriter struct {
	limiter *Limiter
	next    origin.Writer
}

func (w limitedWriter) Write(ctx context.Context, c origin.Change) (origin.Value, error) {
	if err := w.limiter.enter(ctx); err != nil {
		return origin.Value{}, err
	}
	defer w.limiter.leave()
	return w.next.Write(ctx, c)
}

func (w limitedWriter) WriteMany(ctx context.Context, cs []origin.Change) []origin.Result {
	if err := w.limiter.enter(ctx); err != nil { //guard:batches-of-writes-outside-budget
		return slices.Repeat([]origin.Result{{Err: err}}, len(cs))
	}
	defer w.limiter.leave()
	return w.next.WriteMany(ctx, cs)
}

func (w limitedWriter) Append(ctx context.Context, data []byte) (origin.Row, error) {
	if err := w.limiter.enter(ctx); err != nil { //guard:appends-outside-budget
		return origin.Row{}, err
	}
	defer w.limiter.leave()
	return w.next.Append(ctx, data)
}

type limitedLister struct {
	limiter *Limiter
	next    origin.Lister
}

func (w limitedLister) List(ctx context.Context, q origin.ListQuery) ([]origin.Row, error) {
	if err := w.limiter.enter(ctx); err != nil {
		return nil, err
	}
	defer w.limiter.leave()
	return w.next.List(ctx, q)
}

// enter waits for a turn. A nil Limiter grants one at once.
func (l *Limiter) enter(ctx context.Context) error {
	if l == nil {
		return nil
	}
	if !l.turns.TryAcquire(1) {
		if err := l.queue(ctx); err != nil {
			return err
		}
	}
	l.inFlight.Add(1)
	return nil
}

func (l *Limiter) leave() {
	if l == nil {
		return
	}
	l.inFlight.Add(-1)
	l.turns.Release(1)
}

func (l *Limiter) queue(ctx context.Context) error {
	defer l.queued.Add(-1)
	if l.queued.Add(1) > l.maxQueue { //guard:queue-without-limit
		l.refused.Add(1)
		return fmt.Errorf("%w: %d statements in flight and %d waiting", origin.ErrOverloaded, l.maxInFlight, l.maxQueue)
	}
	err := l.turns.Acquire(ctx, 1)
	if err == nil {
		return nil
	}
	l.gaveUp.Add(1)
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("wait for a turn at the origin: %w", err)
	}
	return fmt.Errorf("%w: no turn in time: %w", origin.ErrOverloaded, err)
}
