package kv

import "time"

// Policy is how fresh a dataset's answers are. Durations are limited to 0 to 36 years.
type Policy struct {
	// TTL is how long an entry is fresh, counted from before its load began.
	TTL time.Duration `json:"ttl_ns"`
	// TTLJitter is the share of TTL, 0 to 1, by which entries expire earlier at random, so that entries that were loaded
	// together do not expire together.
	TTLJitter float64 `json:"ttl_jitter"`
	// NegativeTTL is the TTL of a negative entry: for a row that does not exist, or for rows that are a data error.
	NegativeTTL time.Duration `json:"negative_ttl_ns"`
	// StaleWhileRevalidate is how long after TTL a stale answer is sent at once, with one load in the background.
	StaleWhileRevalidate time.Duration `json:"stale_while_revalidate_ns"`
	// StaleIfError is how long after TTL a stale answer is sent when the origin fails.
	StaleIfError time.Duration `json:"stale_if_error_ns"`
	// NegativeStaleIfError is how long after NegativeTTL "not found" is sent, marked as stale, when the origin fails.
	NegativeStaleIfError time.Duration `json:"negative_stale_if_error_ns"`
	// LocalTTL is the longest life of a copy of another member's entry; a copy never outlives that entry.
	LocalTTL time.Duration `json:"local_ttl_ns"`
	// LoadTimeout bounds one load.
	LoadTimeout time.Duration `json:"load_timeout_ns"`
	// WriteTimeout bounds one write.
	WriteTimeout time.Duration `json:"write_timeout_ns"`
	// GapTTL is the longest life of an entry while the change feed is broken; 0 for a dataset without a feed.
	GapTTL time.Duration `json:"gap_ttl_ns"`
	// FailoverTTL is the TTL of an entry that was loaded for an owner that could not be reached.
	FailoverTTL time.Duration `json:"failover_ttl_ns"`
	// MaxFlights bounds the loads that run at once and, separately, the peer fetches.
	MaxFlights int `json:"max_flights"`
	// VerifyRate is how many cached entries per second all members together compare with the database; 0 is off.
	VerifyRate int `json:"verify_rate"`
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
		VerifyRate:   2,
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

const (
	// hotCopies is how many times longer than others copies of hot keys live, and HotCopyTTL the longest that they live because of
	// that: a copy whose invalidations do not arrive any more without anybody knowing may outlive the loss by so long anyway,
	// because it takes so long to find it. Longer copies would need pings, as many as the fetches that they save.
	hotCopies  = 4
	HotCopyTTL = 5 * time.Second / 2
)

// CopyTTL returns the longest life of a copy of another member's entry, which never outlives that entry.
func (p Policy) CopyTTL(hot bool) time.Duration {
	if !hot {
		return p.LocalTTL
	}
	return max(p.LocalTTL, min(hotCopies*p.LocalTTL, HotCopyTTL)) //guard:copies-of-hot-keys-live-too-long
}

// Longest returns the policy with the longer one of each time of p and o that says how long an entry is sent.
func (p Policy) Longest(o Policy) Policy {
	p.TTL, p.NegativeTTL = max(p.TTL, o.TTL), max(p.NegativeTTL, o.NegativeTTL)
	p.StaleWhileRevalidate = max(p.StaleWhileRevalidate, o.StaleWhileRevalidate)
	p.StaleIfError = max(p.StaleIfError, o.StaleIfError)
	p.NegativeStaleIfError = max(p.NegativeStaleIfError, o.NegativeStaleIfError)
	p.GapTTL, p.LoadTimeout = max(p.GapTTL, o.GapTTL), max(p.LoadTimeout, o.LoadTimeout)
	return p
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
