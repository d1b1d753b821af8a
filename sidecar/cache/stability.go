package cache

import (
	"sync/atomic"

	"github.com/ringside-cache/ringside/sidecar/internal/entries"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// stability tracks whether the ring and the change feed are settled. While they are not, entries that are fresh by their
// times are checked a second time: invalidations of them may not arrive.
type stability struct {
	unsettled   atomic.Bool
	ringChanged atomic.Int64 // time of the last change of the ring
	feedLive    atomic.Bool  // all changes are reported; meaningless without a feed
}

// RingChanged records that keys may have other owners now. From then on, what this member loaded as the owner of a key is
// no better than a local copy whose invalidations are not received.
func (d *Dataset) RingChanged() {
	d.ringChanged.Store(d.now())
	d.unsettled.Store(true)
}

// SetFeedLive records whether a feed reports all changes. While it does not, entries live for Policy.GapTTL at most.
func (d *Dataset) SetFeedLive(live bool) {
	if was := d.feedLive.Swap(live); was && !live {
		d.stats.FeedGaps.Add(1)
	}
	d.unsettled.Store(true) // until the next entry is checked
}

// FeedLive reports whether the dataset's feed is live, and whether it has one.
func (d *Dataset) FeedLive() (live, has bool) { return d.feedLive.Load(), d.Policy().GapTTL > 0 }

// trusts reports whether an entry may be sent as a fresh answer.
func (c *core) trusts(key string, e *entries.Entry, now int64) bool {
	return e.Fresh(now) && (!c.unsettled.Load() || !c.isUntrusted(key, e, now))
}

// isUntrusted reports whether an entry must not be used although it is fresh: because of a gap in the feed, or because its key
// has another owner now.
func (c *core) isUntrusted(key string, e *entries.Entry, now int64) bool {
	p := c.Policy()
	gap, changed := c.inGap(p), c.ringChanged.Load()
	if gap && now >= e.Began+int64(p.GapTTL) { //guard:entries-outlive-a-feed-gap
		return true
	}
	if !gap && now >= changed+int64(p.TTL) && c.unsettled.CompareAndSwap(true, false) {
		if c.inGap(p) || c.ringChanged.Load() != changed { // changed since they were read above
			c.unsettled.Store(true)
		}
		return false
	}
	if e.Local() || e.Began >= changed || now < changed+int64(p.LocalTTL) {
		return false
	}
	return c.peers.Route(c.name, key).Owner != nil //guard:former-owner-answers-from-its-entry
}

// inGap reports whether changes are not reported although there is a feed.
func (c *core) inGap(p kv.Policy) bool { return p.GapTTL > 0 && !c.feedLive.Load() }
