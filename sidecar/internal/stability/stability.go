// Package stability tracks whether the ring and the change feed of a dataset are settled. While they are not, entries that are
// fresh by their times are checked a second time: invalidations of them may not arrive.
package stability

import (
	"sync/atomic"

	"github.com/ringside-cache/ringside/sidecar/internal/entries"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// State is what a dataset knows of its ring and its feed. Its zero value is settled. Times are nanoseconds on the dataset's
// monotonic clock.
type State struct {
	// Awake reports whether invalidations are known to arrive (see kv.Peers); nil: always. Set it before the first use.
	Awake func() bool

	unsettled   atomic.Bool
	ringChanged atomic.Int64 // time of the last change of the ring
	feedLive    atomic.Bool  // all changes are reported; meaningless without a feed
}

// RingChanged records that keys may have other owners now. From then on, what this member loaded as the owner of a key is
// no better than a local copy whose invalidations are not received.
func (s *State) RingChanged(now int64) {
	s.ringChanged.Store(now)
	s.unsettled.Store(true)
}

// SetFeedLive records whether a feed reports all changes, and reports whether a gap begins. In a gap, entries live for
// Policy.GapTTL at most.
func (s *State) SetFeedLive(live bool) (gap bool) {
	was := s.feedLive.Swap(live)
	s.unsettled.Store(true) // until the next entry is checked
	return was && !live
}

// FeedLive reports whether the feed reports all changes.
func (s *State) FeedLive() bool { return s.feedLive.Load() }

// InGap reports whether changes are not reported although there is a feed.
func (s *State) InGap(p kv.Policy) bool { return p.GapTTL > 0 && !s.feedLive.Load() }

// Start makes the state unsettled if there is a feed: it is not live yet.
func (s *State) Start(p kv.Policy) { s.unsettled.Store(s.InGap(p)) }

// Sleep makes the state unsettled: Awake is false from now on, until somebody proves that invalidations arrive.
func (s *State) Sleep() { s.unsettled.Store(true) } //guard:hits-on-a-silent-stream

// asleep reports whether invalidations may be missing without anybody knowing.
func (s *State) asleep() bool { return s.Awake != nil && !s.Awake() }

// Unsettled reports whether the times of entries do not decide alone.
func (s *State) Unsettled() bool { return s.unsettled.Load() }

// FreshUntil returns the end of the time in which e may be sent as fresh. It is for an unsettled state, and settles it once the
// reason has passed. owned reports whether this member owns the key of e.
func (s *State) FreshUntil(e *entries.Entry, now int64, p kv.Policy, owned func() bool) int64 {
	gap, changed, asleep := s.InGap(p), s.ringChanged.Load(), s.asleep()
	if asleep && (e.Local() || p.GapTTL > 0) { //guard:unproven-entry-is-fresh
		return min(e.FreshUntil, now)
	}
	if !gap && !asleep && now >= changed+int64(p.TTL) && s.unsettled.CompareAndSwap(true, false) {
		if s.InGap(p) || s.ringChanged.Load() != changed || s.asleep() { // changed since they were read above
			s.unsettled.Store(true)
		}
		return e.FreshUntil
	}
	until := e.FreshUntil
	if gap {
		until = min(until, e.Began+int64(p.GapTTL)) //guard:entries-outlive-a-feed-gap
	}
	arrived := e.Began
	if e.Local() {
		arrived = e.Seen - e.Took // when it was requested from the owner of that time //guard:copy-of-a-former-owner-stays-fresh
	}
	if end := changed + int64(p.LocalTTL); arrived < changed && end < until && !owned() { //guard:former-owner-answers-from-its-entry
		until = end
	}
	return until
}
