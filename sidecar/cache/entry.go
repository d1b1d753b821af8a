package cache

import (
	"crypto/sha256"
	"encoding/base64"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"
	"unsafe"
)

// reason is why an entry was loaded; explain shows it.
type reason uint8

const (
	reasonMiss    reason = iota // nothing was held
	reasonExpired               // what was held had passed its ttl
	reasonEarly                 // refreshed before the ttl, by chance (XFetch)
	reasonNoCache               // the caller asked for it
	reasonGutter                // in the stead of an owner that could not be reached
	reasonHop                   // a local copy of the owner's entry
	reasonPeek                  // taken over from the previous owner
	reasonWrite                 // what a write left behind
)

var reasonNames = [...]string{"miss", "expired", "early-refresh", "no-cache", "gutter", "hop", "peek", "write"}

// entry is one value, present or absent, with its times. All but retryAt and ended is immutable. Times are nanoseconds on the
// dataset's monotonic clock (Dataset.now).
type entry struct {
	value   []byte
	etag    string
	owner   string // node id of the member that gave it; empty when this one loaded it
	version int64

	began      int64 // when the load began; for a local copy the earliest time at which it can have begun
	took       int64 // how long the load, the hop or the write took
	seen       int64 // a time by which the origin had the value
	freshUntil int64
	swrUntil   int64 // until then a stale answer is given at once, with a load behind it
	staleUntil int64 // until then a stale answer is given when the origin fails

	// retryAt, when set, says that a refresh has failed and when to try the next; until then the stale answer is given
	// without asking anybody.
	retryAt atomic.Int64
	// ended says that it is fresh no longer, whatever its times: nobody would have told if it were outdated.
	ended atomic.Bool

	absent bool
	reason reason
}

const entryOverhead = int(unsafe.Sizeof(entry{})) + 16 // the ETag's bytes

// local reports whether e is a copy of another member's entry.
func (e *entry) local() bool { return e.owner != "" }

// floor is what those who have read e must not go below.
func (e *entry) floor() floor {
	switch {
	case e.version != 0:
		return floor{version: e.version, asOf: e.seen}
	case e.absent:
		return floor{gone: e.seen, tag: e.tag(), since: e.began}
	}
	return floor{asOf: e.seen, tag: e.tag(), since: e.began}
}

// tagAbsent is the tag of a row that is absent. No ETag is without quotes.
const tagAbsent = "absent"

// tag tells what e says of the row from anything else that was ever said of it.
func (e *entry) tag() string {
	if e.absent {
		return tagAbsent
	}
	return e.etag
}

func (e *entry) fresh(now int64) bool { return now < e.freshUntil && !e.ended.Load() } //guard:copies-member-heard-fresh

// usable reports whether e may still be given as a stale answer.
func (e *entry) usable(now int64) bool { return !e.absent && now < e.staleUntil }

func (e *entry) dead(now int64) bool {
	return !e.fresh(now) && now >= e.staleUntil && now >= e.swrUntil
}

// dueEarly decides by chance whether to refresh e before it expires, the likelier the nearer the end and the longer its
// load takes, so that one caller of many does so (XFetch: Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache
// Stampede Prevention, VLDB 2015; beta is 1).
func (e *entry) dueEarly(now int64) bool {
	left := e.freshUntil - now
	// -ln(rand) exceeds 16 once in nine million draws: not worth a draw on each hit.
	if e.local() || e.absent || left > 16*e.took {
		return false
	}
	return -math.Log(1-rand.Float64())*float64(e.took) >= float64(left)
}

func (e *entry) source() Source {
	if e.local() {
		return SourceLocalHit
	}
	return SourceHit
}

// sourceSince is the source for a reader on whose behalf memory was filled since then.
func (e *entry) sourceSince(prefetched int64) Source {
	switch {
	case prefetched == 0 || e.seen < prefetched:
		return e.source()
	case e.began < prefetched:
		return SourcePeerHit
	}
	return SourceLoad
}

func (e *entry) answer(now int64, source Source) Answer {
	return Answer{
		Value:    e.value,
		NotFound: e.absent,
		Version:  e.version,
		ETag:     e.etag,
		Age:      time.Duration(now - e.began),
		Fresh:    time.Duration(e.freshUntil - now),
		Source:   source,
		Owner:    e.owner,
	}
}

func (e *entry) staleAnswer(now int64, detail string) Answer {
	a := e.answer(now, e.source())
	a.Stale, a.Fresh, a.Detail = true, 0, detail
	return a
}

// etag depends on the value alone, so that every member gives the same one.
func etag(value []byte) string {
	sum := sha256.Sum256(value)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:9]) + `"`
}
