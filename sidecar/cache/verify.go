package cache

import (
	"context"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/keylist"
	"github.com/ringside-cache/ringside/sidecar/internal/entries"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Cached is the entry of a key that this member owns, at one moment, as a comparison with the database needs it.
type Cached struct {
	entry *entries.Entry
	gaps  int64

	Version   int64
	ETag      string
	NotFound  bool
	DataError origin.DataCause
	// Age is an upper bound: it counts from before the load.
	Age time.Duration
	// Fresh: reads get the entry, not marked as stale. Otherwise they get it marked as stale at most.
	Fresh bool
	// Promised is the greatest age at which reads may get the entry in this way, by the policy alone: the times that the entry
	// itself has may be what is wrong.
	Promised time.Duration
	// Reported: the change feed is live, so that every change is promised to invalidate the entry.
	Reported bool
}

// Wake proves that invalidations arrive, if nobody has read for a while: otherwise entries that depend on them are not fresh.
func (d *Dataset) Wake(ctx context.Context) {
	if !d.peers.Awake() {
		d.peers.Prove(ctx)
	}
}

// Promise returns the entry of key, if this member owns the key and reads may get the entry. It does not count as a read. Lists
// of keys have no Promise: no feed reports their changes.
func (d *Dataset) Promise(key string) (c Cached, ok bool) {
	if keylist.IsPart(key) {
		return Cached{}, false
	}
	now := d.now()
	e, ok := d.store.Peek(key)
	if !ok || e.Local() || d.peers.Route(d.name, key).Owner != nil { //guard:entry-of-another-owner-is-compared
		return Cached{}, false
	}
	gaps := d.stats.FeedGaps.Load() // first: a gap that begins now must show
	live, has := d.FeedLive()
	c = Cached{
		entry: e, gaps: gaps, Version: e.Version, ETag: e.ETag, NotFound: e.NotFound, DataError: e.DataError,
		Age: time.Duration(now - e.Began), Fresh: d.trusts(key, e, now), Reported: has && live,
	}
	c.Promised = d.promised(c, has && !live, now)
	return c, c.Fresh || e.Usable(now) || d.revalidates(key, e, now)
}

// promised is how old an answer with c may be: its lifetime, and the time that its load took.
func (d *Dataset) promised(c Cached, gap bool, now int64) time.Duration {
	p, life := d.lenientPolicy(now), time.Duration(0)
	switch negative := c.NotFound || c.DataError != 0; {
	case c.Fresh && gap:
		life = min(p.TTLOf(negative), p.GapTTL)
	case c.Fresh:
		life = p.TTLOf(negative)
	case c.NotFound:
		life = p.NegativeTTL + p.NegativeStaleIfError
	default:
		life = p.TTL + max(p.StaleIfError, p.StaleWhileRevalidate)
	}
	return life + p.LoadTimeout
}

// StillHolds reports whether what c says was true all the time since: the entry is the same, reads get it in the same way, and
// the change feed has had no gap.
func (d *Dataset) StillHolds(key string, c Cached) bool {
	now, ok := d.Promise(key)
	return ok && now.entry == c.entry && now.Fresh == c.Fresh && now.Reported == c.Reported && now.gaps == c.gaps //guard:change-during-the-comparison-is-a-fault
}

// formerPolicy is the policy of entries that were loaded before the policy changed: they keep their times.
type formerPolicy struct {
	kv.Policy
	until int64 // when the last of these entries ends
}

// rememberPolicy keeps what old allows for as long as entries of it live.
func (c *core) rememberPolicy(old kv.Policy, now int64) {
	lenient := c.lenientFrom(old, now)
	life := max(lenient.TTL, lenient.NegativeTTL) + max(lenient.StaleIfError, lenient.StaleWhileRevalidate, lenient.NegativeStaleIfError)
	c.former.Store(&formerPolicy{lenient, now + int64(life+lenient.LoadTimeout)})
}

// lenientPolicy has the longest times that an entry in memory may have.
func (c *core) lenientPolicy(now int64) kv.Policy { return c.lenientFrom(c.Policy(), now) }

func (c *core) lenientFrom(p kv.Policy, now int64) kv.Policy {
	if f := c.former.Load(); f != nil && now < f.until { //guard:shorter-ttl-breaks-the-promises-of-before
		return p.Longest(f.Policy)
	}
	return p
}
