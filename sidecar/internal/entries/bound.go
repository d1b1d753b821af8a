package entries

import (
	"time"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Bound is the oldest result that a read may return. Its zero value allows everything. What another member, a feed or a
// client reports of a version is a hint: a load that began after the Bound was learned is allowed, whatever its version.
type Bound struct {
	// Version allows this version and later ones; 0: not known.
	Version int64
	// AsOf, where versions do not decide, allows what was loaded at this time or later.
	AsOf int64
	// Tag, where versions do not decide, allows the result with this tag (see Entry.tag); empty: not known. TagSince is
	// the earliest time at which that result was loaded.
	Tag      string
	TagSince int64
	// MinLoadTime forbids what was loaded before, whatever its version.
	MinLoadTime int64
	// DeletedAfter forbids values that were loaded before, whatever their version: the row was seen to be absent, or the rows
	// not to be a value.
	DeletedAfter int64
}

// TagNotFound is the tag of a row that does not exist, and tagDataError that of a data error. ETags are quoted, so none
// equals them.
const (
	TagNotFound  = "absent"
	tagDataError = "data-error"
)

// Tag identifies the result of e among all results of its key.
func (e *Entry) tag() string {
	switch {
	case e.NotFound:
		return TagNotFound
	case e.DataError != 0:
		return tagDataError
	}
	return e.ETag
}

// Bound is the bound of those who have read e.
func (e *Entry) Bound() Bound {
	switch {
	case e.Version != 0:
		return Bound{Version: e.Version, AsOf: e.Seen}
	case e.NotFound:
		return Bound{DeletedAfter: e.Seen, Tag: e.tag(), TagSince: e.Began}
	case e.DataError != 0:
		return Bound{AsOf: e.Seen, DeletedAfter: e.Seen, Tag: e.tag(), TagSince: e.Began}
	}
	return Bound{AsOf: e.Seen, Tag: e.tag(), TagSince: e.Began}
}

// LoadedAfter is the time from which on every load is allowed.
func (b Bound) LoadedAfter() int64 { return max(b.AsOf, b.MinLoadTime, b.DeletedAfter) }

// Allows reports whether a read with this bound may return e, which was loaded at loadedAt or later. A time of 0 is no
// bound: an entry that an owner loaded before this member started was loaded before 0.
func (b Bound) Allows(e *Entry, loadedAt int64) bool {
	switch {
	case b == Bound{}, loadedAt >= b.LoadedAfter(): //guard:bound-forbids-what-was-loaded-after-it
		return true
	case loadedAt < b.MinLoadTime, loadedAt < b.DeletedAfter && !e.NotFound && !(e.DataError != 0 && b.Tag == tagDataError): //guard:version-of-a-deleted-row-is-allowed
		return false
	case b.Version != 0 && e.Version != 0:
		return e.Version >= b.Version
	}
	return loadedAt >= b.AsOf || b.Tag != "" && b.Tag == e.tag() //guard:older-not-found-is-fetched-again
}

// Merge returns the bound that allows only what both allow.
func (b Bound) Merge(other Bound) Bound {
	merged := Bound{
		Version: max(b.Version, other.Version), AsOf: max(b.AsOf, other.AsOf),
		MinLoadTime: max(b.MinLoadTime, other.MinLoadTime), DeletedAfter: max(b.DeletedAfter, other.DeletedAfter),
	}
	switch at := max(b.timeOfAll(), other.timeOfAll()); {
	case at == 0:
	case at == merged.AsOf:
		merged.Version = 0 //guard:version-makes-up-for-a-time-that-is-required
	default:
		merged.MinLoadTime = max(merged.MinLoadTime, at) //guard:later-version-makes-up-for-a-time-that-is-required
	}
	switch {
	case b.tagWithin(other):
		merged.Tag, merged.TagSince = b.Tag, b.TagSince
	case other.tagWithin(b):
		merged.Tag, merged.TagSince = other.Tag, other.TagSince
	}
	return merged
}

// timeOfAll is the time at which b requires every version to be loaded: AsOf, if b has no version. Such is the bound in the query of
// a member that has seen a row come or go.
func (b Bound) timeOfAll() int64 {
	if b.Version != 0 {
		return 0
	}
	return b.AsOf
}

// tagWithin reports whether other allows the result with the tag of b. Of two results that were loaded at the same time,
// their order is unknown.
func (b Bound) tagWithin(other Bound) bool {
	same := b.Tag == other.Tag && other.TagSince <= b.TagSince
	return other == Bound{} ||
		other.Version <= b.Version && other.MinLoadTime <= b.MinLoadTime && (same || max(other.AsOf, other.DeletedAfter) <= b.TagSince) //guard:tag-of-one-of-two-concurrent-loads-is-allowed
}

// ForQuery returns the fields of a kv.Query for nothing that b does not allow.
func (b Bound) ForQuery(now int64) (minVersion int64, maxAge time.Duration, tag string) {
	switch {
	case b.MinLoadTime == 0 && b.DeletedAfter == 0:
		minVersion, tag = b.Version, b.Tag //guard:fetch-of-an-unchanged-value-is-a-load
	case b.DeletedAfter == b.LoadedAfter() && (b.Tag == TagNotFound || b.Tag == tagDataError):
		tag = b.Tag
	}
	if after := b.LoadedAfter(); after != 0 {
		maxAge = time.Duration(max(now-after, 1)) //guard:old-owner-answers-with-an-older-row
	}
	return minVersion, maxAge, tag
}

// BoundOf is the reverse of ForQuery, on the clock of the member that gets the query.
func BoundOf(q kv.Query, now int64) Bound {
	switch {
	case q.NoCache:
		return Bound{MinLoadTime: now}
	case q.Tag == TagNotFound:
		return Bound{DeletedAfter: now - int64(kv.BoundDuration(q.MaxAge))}
	case q.Tag == tagDataError:
		at := now - int64(kv.BoundDuration(q.MaxAge))
		return Bound{AsOf: at, DeletedAfter: at, Tag: tagDataError}
	case q.MaxAge > 0:
		return Bound{Version: q.MinVersion, Tag: q.Tag, AsOf: now - int64(kv.BoundDuration(q.MaxAge))}
	case q.MinVersion != 0:
		return Bound{Version: q.MinVersion, AsOf: now}
	}
	return Bound{}
}
