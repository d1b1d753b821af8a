package cache

import (
	"sync/atomic"
	"time"
)

// Stats has the counters of one dataset since its start. The edges export them.
type Stats struct {
	// Reads of applications, by result. Each read is counted once.
	Hit, LocalHit, Negative     Counter
	PeerHit, Load, Stale, Error atomic.Int64

	Served          atomic.Int64 // requests answered to other members
	NotOwner        atomic.Int64 // of these, for keys that this member does not own
	LoadsBegun      atomic.Int64 // keys requested from the origin
	LoadErrors      atomic.Int64 // of these, failed
	PeerFetches     atomic.Int64 // keys requested from other members
	PeerFetchErrors atomic.Int64 // of these, without an answer
	Successor       atomic.Int64 // keys requested from the successor because the owner could not be reached
	FailoverLoads   atomic.Int64 // keys loaded here because neither owner nor successor could be reached
	Refused         atomic.Int64 // reads refused because a limit was reached
	LoadsDiscarded  atomic.Int64 // values not stored because the key was invalidated after their load began
	Peeks           atomic.Int64 // keys requested from the previous owner before a load
	PeekHits        atomic.Int64 // of these, answered
	Refreshes       atomic.Int64 // early and background refreshes that were started

	// Writes of applications, by result. Each write is counted once.
	Written, Conflicts, WritesRefused, WritesUnknown, WriteErrors atomic.Int64

	WritesServed  atomic.Int64 // made for other members
	Invalidations atomic.Int64 // applied: of writes through any member, of feeds and by request
	CopiesExpired atomic.Int64 // times that the copies of a member were expired because its invalidations may have been missed
	BoundsEvicted atomic.Int64 // read bounds evicted before their lifetime ended because there were too many
	FeedGaps      atomic.Int64 // times that the change feed broke

	// LastPeerFetchError is the error of the latest peer fetch without an answer; nil before the first.
	LastPeerFetchError atomic.Pointer[error]

	LoadTime      Histogram // seconds of Origin.Load, of one key or many
	PeerFetchTime Histogram // seconds of a request to another member, for one key or many
	// WriteTime is the seconds of Origin.Write.
	WriteTime Histogram

	// What the batching behind Origin made of the loads. The origin counts these.
	Queries     atomic.Int64 // to the origin; concurrent loads share one
	QueryErrors atomic.Int64 // of these, failed
	Keys        atomic.Int64 // requested in Queries
}

// Buckets are the upper bounds of every Histogram, in seconds.
var Buckets = [...]float64{.00001, .000025, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// Histogram counts durations without locks. Its zero value is ready.
type Histogram struct {
	counts [len(Buckets) + 1]atomic.Uint64 // not cumulative; the last one is +Inf
	sum    atomic.Int64                    // nanoseconds
}

// Observe counts one duration.
func (h *Histogram) Observe(d time.Duration) {
	s, i := d.Seconds(), 0
	for i < len(Buckets) && s > Buckets[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

// Snapshot returns the count, the sum in seconds, and the cumulative count under each bucket's upper bound, as
// Prometheus needs them.
func (h *Histogram) Snapshot() (count uint64, sum float64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, len(Buckets))
	for i, bound := range Buckets {
		count += h.counts[i].Load()
		buckets[bound] = count
	}
	count += h.counts[len(Buckets)].Load()
	return count, time.Duration(h.sum.Load()).Seconds(), buckets
}
