// Package entries owns the cached values of a dataset and the rules for replacing them: what may be stored, what an
// invalidation removes, and what a later read must not go below. Nothing outside this package can store a value that was
// loaded before an invalidation of its key.
package entries

import (
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Reason is why an entry was loaded.
type Reason uint8

// The reasons.
const (
	Miss         Reason = iota // nothing was cached
	Expired                    // the cached entry had passed its ttl
	EarlyRefresh               // refreshed at random before the ttl (XFetch)
	NoCache                    // the caller required a new load
	Failover                   // loaded for an owner that could not be reached
	PeerFetch                  // a local copy of the owner's entry
	Handover                   // taken over from the previous owner
	Write                      // the result of a write
	WarmUp                     // loaded before anybody has read it
)

func (r Reason) String() string {
	return [...]string{"miss", "expired", "early-refresh", "no-cache", "failover", "peer-fetch", "handover", "write", "warm-up"}[r]
}

// Entry is one cached result, a value, "not found" or a data error, with its times. The exported fields do not change once the entry is
// stored. Times are nanoseconds on the dataset's monotonic clock.
type Entry struct {
	Value    []byte
	ETag     string
	Owner    string // node id of the member that sent it; empty when this one loaded it
	Version  int64  // 0: not known
	NotFound bool
	Content  origin.Content
	// DataError is why the rows cannot be a value; 0: they can.
	DataError origin.DataCause
	Reason    Reason
	Pinned    bool // evicted after all entries that are not

	Began      int64 // when the load began; for a local copy the earliest time at which it can have begun
	Took       int64 // duration of the load, the peer fetch or the write
	Seen       int64 // a time at which the origin was known to have had the value: the end of the load
	FreshUntil int64
	// RevalidateUntil is the end of stale_while_revalidate: until then a stale answer is sent at once, while one load runs
	// in the background.
	RevalidateUntil int64
	// StaleUntil is the end of all stale windows: until then a stale answer is sent when the origin fails.
	StaleUntil int64

	// backOff, when set, is how long readers get the stale answer without a load, and why.
	backOff atomic.Pointer[backOff]
	// usedAt is when the entry was last marked as used in the order of eviction; 0: never.
	usedAt atomic.Int64
	// uses has a bit for each of the latest useWindows windows of useInterval in which the entry was marked as used; bit 0 is
	// that of usedAt. It is written with usedAt, at most once per window, so that a hit pays nothing for it.
	uses atomic.Uint64
	// expired means that the entry is not fresh, whatever its times: invalidations of it may have been missed.
	expired atomic.Bool
}

const overhead = int(unsafe.Sizeof(Entry{})) + 16 // the bytes of the ETag

// setStaleWindows sets how long e may be used after it has ceased to be fresh. The windows begin at the end of its ttl; a
// local copy has no window to revalidate in, because its owner has a fresher value.
func (e *Entry) setStaleWindows(p kv.Policy) {
	switch {
	case e.DataError != 0:
		return
	case e.NotFound:
		if p.NegativeStaleIfError > 0 { //guard:not-found-is-forgotten-in-an-outage
			e.StaleUntil = e.Began + int64(p.NegativeTTL+p.NegativeStaleIfError)
		}
		return
	}
	if !e.Local() && p.StaleWhileRevalidate > 0 {
		e.RevalidateUntil = e.FreshUntil + int64(p.StaleWhileRevalidate)
	}
	e.StaleUntil = e.Began + int64(p.TTL+max(p.StaleIfError, p.StaleWhileRevalidate))
}

// endWith shortens the lifetime of e to that of its row, which ends at a time. A row that has ended is never fresh, and the stale
// windows begin at its end.
func (e *Entry) endWith(p kv.Policy, end int64) {
	lifetime := e.Began + int64(p.TTL)
	e.FreshUntil = max(e.Began, min(e.FreshUntil, end)) //guard:entry-outlives-its-row
	e.setStaleWindows(p)
	e.StaleUntil -= max(0, lifetime-max(e.Began, end)) //guard:stale-answer-outlives-its-row
}

// limitStale shortens the stale windows of e, which the origin permits for this long after the end of its freshness.
func (e *Entry) limitStale(most int64) {
	end := e.FreshUntil + most
	e.StaleUntil = min(e.StaleUntil, end) //guard:stale-answer-that-the-origin-forbids
	e.RevalidateUntil = min(e.RevalidateUntil, end)
}

// Negative reports whether e has no value: it lives for negative_ttl. It has no window to revalidate in, and a data error is
// never stale.
func (e *Entry) Negative() bool {
	return e.NotFound || e.DataError != 0 //guard:data-error-is-served-stale
}

// staysPinned reports whether e is pinned because what it replaces was. A warm-up decides that for itself.
func (e *Entry) staysPinned() bool { return e.Reason != WarmUp && !e.Negative() && !e.Local() }

// Err is that of the answer of e; see kv.Answer.Err.
func (e *Entry) Err(dataset string) error { return kv.DataError(dataset, e.DataError) }

// Local reports whether e is a copy of another member's entry.
func (e *Entry) Local() bool { return e.Owner != "" }

// Fresh reports whether e is within its ttl and has not been expired.
func (e *Entry) Fresh(now int64) bool { return now < e.FreshUntil && !e.expired.Load() } //guard:copies-of-a-lost-member-stay-fresh

// Expired reports whether e was expired before the end of its ttl, because invalidations of it may have been missed.
func (e *Entry) Expired() bool { return e.expired.Load() }

// Usable reports whether e may be sent as a stale answer.
func (e *Entry) Usable(now int64) bool { return now < e.StaleUntil }

// WithinStale reports whether e ceased to be fresh at most maxStale ago. It is unknown how stale an expired entry is.
func (e *Entry) WithinStale(now, maxStale int64) bool {
	return !e.expired.Load() && now-e.FreshUntil <= maxStale //guard:expired-copy-counts-as-hardly-stale
}

// Revalidates reports whether e may be sent at once although it is stale, while one load runs in the background. freshUntil is
// the end of its freshness: in a gap of the feed it is earlier than that of the ttl, and so is the end of the window.
func (e *Entry) Revalidates(now, freshUntil int64) bool {
	window := e.RevalidateUntil - e.FreshUntil                             // negative if there is none
	return !e.expired.Load() && now < min(freshUntil, e.FreshUntil)+window //guard:expired-entry-sent-before-revalidation
}

func (e *Entry) dead(now int64) bool {
	return !e.Fresh(now) && now >= e.StaleUntil && now >= e.RevalidateUntil
}

// RefreshEarly decides at random whether to refresh e before it expires: the more likely, the nearer the end and the
// longer its load takes, so that one caller of many does so (XFetch: Vattani, Chierichetti, Lowenstein: Optimal
// Probabilistic Cache Stampede Prevention, VLDB 2015; beta is 1).
func (e *Entry) RefreshEarly(now int64) bool {
	// -ln(rand) exceeds 16 once in nine million draws: not worth a draw on each hit.
	return e.FreshUntil-now <= 16*e.Took && e.drawRefresh(now)
}

func (e *Entry) drawRefresh(now int64) bool {
	return !e.Local() && !e.Negative() && -math.Log(1-rand.Float64())*float64(e.Took) >= float64(e.FreshUntil-now)
}

// backOff is a time until which readers get a stale answer without a load, and the kv.Answer.Detail of that answer.
type backOff struct {
	until  int64
	detail string
}

// BackOff makes readers use the stale entry until the given time, unless a time is set. The latest detail counts.
func (e *Entry) BackOff(until int64, detail string) {
	held := e.backOff.Load()
	if held != nil {
		until = held.until
	}
	if held == nil || held.detail != detail {
		e.backOff.CompareAndSwap(held, &backOff{until, detail})
	}
}

// Failing reports whether the last refresh failed.
func (e *Entry) Failing() bool {
	held := e.backOff.Load()
	return held != nil && held.detail != kv.DetailRevalidating //guard:copy-of-a-revalidating-answer-is-explained-as-failing
}

// BackedOff is BacksOff without an effect.
func (e *Entry) BackedOff(now int64) (detail string, ok bool) {
	held := e.backOff.Load()
	if held == nil {
		return "", false
	}
	return held.detail, now < held.until
}

// BacksOff reports whether a reader must use the stale entry without a load, and why. After each such time it returns false to
// one reader, which tries again, and sets the end of the next one.
func (e *Entry) BacksOff(now int64, next time.Duration) (detail string, ok bool) {
	held := e.backOff.Load() //guard:every-reader-of-a-stale-entry-waits
	if held == nil {
		return "", false
	}
	ok = now < held.until || !e.backOff.CompareAndSwap(held, &backOff{now + int64(next), held.detail}) //guard:first-read-after-an-outage-is-stale
	return held.detail, ok
}

// same reports whether e has the same result as other.
func (e *Entry) same(other *Entry) bool {
	return e.ETag == other.ETag && e.NotFound == other.NotFound && e.DataError == other.DataError && e.Version == other.Version
}

// outranks reports whether e is later than other: by version where both have one, else by the time of the load.
func (e *Entry) outranks(other *Entry) bool {
	if e.Version != 0 && other.Version != 0 && e.Version != other.Version {
		return e.Version > other.Version
	}
	return e.Began > other.Began
}
