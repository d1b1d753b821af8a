package kv

import "time"

// Policy is how fresh a dataset's answers are. Durations are limited to 0 to 36 years.
type Policy struct {
	// TTL is how long an entry is fresh, counted from before its load began.
	TTL time.Duration
	// TTLJitter is the share of TTL, 0 to 1, by which entries expire earlier at random, so that entries that were loaded
	// together do not expire together.
	TTLJitter float64
	// NegativeTTL is the TTL of a negative entry: for a row that does not exist, or for rows that are a data error.
	NegativeTTL time.Duration
	// StaleWhileRevalidate is how long after TTL a stale answer is sent at once, with one load in the background.
	StaleWhileRevalidate time.Duration
	// StaleIfError is how long after TTL a stale answer is sent when the origin fails.
	StaleIfError time.Duration
	// NegativeStaleIfError is how long after NegativeTTL "not found" is sent, marked as stale, when the origin fails.
	NegativeStaleIfError time.Duration
	// LocalTTL is the longest life of a copy of another member's entry; a copy never outlives that entry.
	LocalTTL time.Duration
	// LoadTimeout bounds one load.
	LoadTimeout time.Duration
	// WriteTimeout bounds one write.
	WriteTimeout time.Duration
	// GapTTL is the longest life of an entry while the change feed is broken; 0 for a dataset without a feed.
	GapTTL time.Duration
	// FailoverTTL is the TTL of an entry that was loaded for an owner that could not be reached.
	FailoverTTL time.Duration
	// MaxFlights bounds the loads that run at once and, separately, the peer fetches.
	MaxFlights int
}

// DefaultPolicy is the policy of a dataset without settings.
func DefaultPolicy() Policy {
	return Policy{
		TTL:          10 * time.Second,
		TTLJitter:    0.1,
		NegativeTTL:  time.Second,
		StaleIfError: 5 * time.Minute,
		LocalTTL:     time.Second,
		LoadTimeout:  time.Second,
		WriteTimeout: 2 * time.Second,
		FailoverTTL:  2 * time.Second,
		MaxFlights:   10000,
	}
}

// longest bounds every duration, so that no sum of a few of them overflows.
const longest = time.Duration(1 << 60)

// BoundDuration returns d, or the nearest duration in bounds.
func BoundDuration(d time.Duration) time.Duration { return min(max(d, 0), longest) }

// TTLOf returns the TTL of a value, or of a negative entry.
func (p Policy) TTLOf(negative bool) time.Duration {
	if negative {
		return p.NegativeTTL
	}
	return p.TTL
}

// Bounded returns p with every duration in bounds.
func (p Policy) Bounded() Policy {
	for _, d := range []*time.Duration{
		&p.TTL, &p.NegativeTTL, &p.StaleWhileRevalidate, &p.StaleIfError, &p.NegativeStaleIfError, &p.LocalTTL, &p.LoadTimeout,
		&p.WriteTimeout, &p.GapTTL, &p.FailoverTTL,
	} {
		*d = BoundDuration(*d)
	}
	return p
}
