package kv

import (
	"sync"
	"time"
)

// Verdict is the outcome of one comparison of a cached entry with the database.
type Verdict uint8

// The verdicts.
const (
	// Same: the database has what is cached.
	Same Verdict = iota
	// StaleWithinPromise: the database has something else, and the policy allows that.
	StaleWithinPromise
	// OlderThanPromised: reads get what the policy does not allow any more.
	OlderThanPromised
	// DifferentAtSameVersion: the database has another value with the version of the cached one.
	DifferentAtSameVersion
	// ChangedMeanwhile: the entry was replaced, invalidated or expired while it was compared, which says nothing.
	ChangedMeanwhile
	Verdicts
)

// String returns the name of the verdict in metrics and in the admin API.
func (v Verdict) String() string {
	return [...]string{"same", "stale_within_promise", "older_than_promised", "different_at_same_version", "changed_meanwhile"}[v]
}

// Broken reports whether a promise is broken.
func (v Verdict) Broken() bool { return v == OlderThanPromised || v == DifferentAtSameVersion }

// VerifySkip is why a comparison that was due did not take place.
type VerifySkip uint8

// The reasons.
const (
	SkipBreaker VerifySkip = iota // the circuit breaker of the dataset is not closed
	SkipBusy                      // all statements of the origin were in use
	SkipSlow                      // the statement before took long
	SkipFailed                    // the statement failed
	VerifySkips
)

// String returns the name of the reason in metrics and in the admin API.
func (s VerifySkip) String() string { return [...]string{"breaker", "busy", "slow", "failed"}[s] }

// peakWindow is how long a Peak has a value at least.
const peakWindow = 5 * time.Minute

// Peak is the greatest of the durations observed in the last 5 to 10 minutes. Its zero value is ready.
type Peak struct {
	mu                sync.Mutex // guards all below
	began             time.Time  // of the window that current is of
	current, previous time.Duration
}

// Observe takes one duration into account.
func (p *Peak) Observe(d time.Duration, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turnLocked(now)
	p.current = max(p.current, d)
}

// Value returns the greatest duration; 0 if there was none.
func (p *Peak) Value(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turnLocked(now)
	return max(p.current, p.previous)
}

func (p *Peak) turnLocked(now time.Time) {
	switch since := now.Sub(p.began); {
	case since >= 2*peakWindow:
		p.began, p.current, p.previous = now, 0, 0
	case since >= peakWindow:
		p.began, p.current, p.previous = p.began.Add(peakWindow), 0, p.current
	}
}
