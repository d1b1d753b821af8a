// Package backoff waits between the attempts of an operation that fails: exponentially longer, with jitter, and no longer
// than the context lives.
package backoff

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff is the state of one series of attempts. It is not safe for concurrent use.
type Backoff struct {
	// First and Longest bound one wait. Both are at least 2ns, and First is at most Longest.
	First, Longest time.Duration

	next time.Duration // upper bound of the next wait; zero before the first
}

// Next returns how long to wait before the next attempt, and doubles the wait after it. Half of each wait is random, so
// that many members do not return to a server all at once.
func (b *Backoff) Next() time.Duration {
	wait := max(b.next, b.First)
	b.next = min(2*wait, b.Longest)
	return wait/2 + rand.N(wait/2) //guard:members-return-at-the-same-time
}

// Reset makes the next wait the first of a new series. Call it after a success.
func (b *Backoff) Reset() { b.next = 0 }

// Wait sleeps for Next. It returns false when ctx ended first.
func (b *Backoff) Wait(ctx context.Context) bool { return Sleep(ctx, b.Next()) }

// Sleep waits for d. It returns false when ctx ended first.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
