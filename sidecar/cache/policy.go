package cache

import (
	"crypto/sha256"
	"encoding/base64"
	"math/rand/v2"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/internal/entries"
)

// Policy is how fresh a dataset's answers are. Durations are limited to 0 to 36 years.
type Policy struct {
	// TTL is how long an entry is fresh, counted from before its load began.
	TTL time.Duration
	// TTLJitter is the share of TTL, 0 to 1, by which entries expire earlier at random, so that entries that were loaded
	// together do not expire together.
	TTLJitter float64
	// NegativeTTL is the TTL of an entry for a row that does not exist.
	NegativeTTL time.Duration
	// StaleWhileRevalidate is how long after TTL a stale answer is sent at once, with one load in the background.
	StaleWhileRevalidate time.Duration
	// StaleIfError is how long after TTL a stale answer is sent when the origin fails.
	StaleIfError time.Duration
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

func bounded(d time.Duration) time.Duration { return min(max(d, 0), longest) }

// bounded returns p with every duration in bounds.
func (p Policy) bounded() Policy {
	for _, d := range []*time.Duration{
		&p.TTL, &p.NegativeTTL, &p.StaleWhileRevalidate, &p.StaleIfError, &p.LocalTTL, &p.LoadTimeout,
		&p.WriteTimeout, &p.GapTTL, &p.FailoverTTL,
	} {
		*d = bounded(*d)
	}
	return p
}

// loaded returns the entry of a load or a write of this member. Its times count from before the load began: the row may
// have changed since. gap tells that changes are not reported.
func (p Policy) loaded(v origin.Value, notFound bool, began, seen int64, why entries.Reason, gap bool) *entries.Entry {
	ttl := time.Duration(float64(p.TTL) * (1 - p.TTLJitter*rand.Float64()))
	if notFound {
		ttl = p.NegativeTTL
	}
	if why == entries.Failover { //guard:failover-entry-lives-for-its-full-ttl
		ttl = min(ttl, p.FailoverTTL)
	}
	if gap {
		ttl = min(ttl, p.GapTTL)
	}
	e := &entries.Entry{
		NotFound: notFound, Version: v.Version, Reason: why,
		Began: began, Took: seen - began, Seen: seen, FreshUntil: began + int64(ttl), //guard:ttl-counts-from-the-end-of-the-load
	}
	if !notFound {
		e.Value, e.ETag = v.Data, etagOf(v.Data)
	}
	p.setStaleWindows(e)
	return e
}

// copied returns the local copy of another member's answer to a request that was sent at the given time. A copy is never
// taken to be younger than it is, and never outlives the original.
func (p Policy) copied(a Answer, owner string, sent, now int64) *entries.Entry {
	said, began, ends := times(a, sent, now)
	e := &entries.Entry{
		Value: a.Value, NotFound: a.NotFound, Version: a.Version, Owner: owner, Reason: entries.PeerFetch,
		Began: began, Took: now - sent, Seen: now, FreshUntil: min(ends, said+int64(p.LocalTTL)), //guard:local-copy-outlives-the-owners-entry
	}
	if a.Stale {
		// The owner has nothing better while the origin is away: ask it as seldom as for a fresh value.
		e.RefreshFailed(said + int64(p.LocalTTL)) //guard:each-stale-read-is-a-peer-fetch
	}
	if !a.NotFound {
		e.ETag = etagOf(a.Value)
	}
	p.setStaleWindows(e)
	return e
}

// handedOver returns the entry that a new owner takes over from the previous one, for the time that it had left there, at
// most for what the ttl leaves of it here.
func (p Policy) handedOver(a Answer, sent, now int64) *entries.Entry {
	e := p.copied(a, "", sent, now)
	ttl := p.TTL
	if a.NotFound {
		ttl = p.NegativeTTL
	}
	_, _, ends := times(a, sent, now)
	e.Reason, e.FreshUntil = entries.Handover, min(ends, e.Began+int64(ttl)) // the previous owner may have another policy
	p.setStaleWindows(e)
	return e
}

func (p Policy) setStaleWindows(e *entries.Entry) {
	e.SetStaleWindows(p.TTL, p.StaleWhileRevalidate, p.StaleIfError)
}

// times converts the durations in another member's answer to this member's clock: when the answer was made, at the earliest
// (when the request was sent, plus the time that the member took), when its load began, and when it ends. The durations
// come from outside: none may overflow, nor put the answer before its request or the load after the answer.
func times(a Answer, sent, now int64) (said, began, ends int64) {
	said = sent + min(max(int64(a.Took), 0), now-sent)
	return said, said - int64(bounded(a.Age)), said + int64(bounded(a.Fresh)) //guard:local-copy-is-taken-to-be-younger
}

// etagOf depends on the value alone, so that every member sends the same ETag.
func etagOf(value []byte) string {
	sum := sha256.Sum256(value)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:9]) + `"`
}
