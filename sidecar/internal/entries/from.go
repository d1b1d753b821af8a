package entries

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// FromLoad returns the entry of r, which is an answer (see origin.Result.IsAnswer), of a load or a write of this member. Its
// times count from before the load began: the row may have changed since. gap tells that changes are not reported.
func FromLoad(p kv.Policy, r origin.Result, began, seen int64, why Reason, gap bool) *Entry {
	e := &Entry{
		NotFound: errors.Is(r.Err, origin.ErrNotFound), DataError: origin.CauseOf(r.Err), Version: r.Value.Version,
		Reason: why, Began: began, Took: seen - began, Seen: seen,
	}
	ttl := time.Duration(float64(p.TTL) * (1 - p.TTLJitter*rand.Float64()))
	if e.Negative() {
		ttl = p.NegativeTTL
	}
	if why == Failover { //guard:failover-entry-lives-for-its-full-ttl
		ttl = min(ttl, p.FailoverTTL)
	}
	if gap {
		ttl = min(ttl, p.GapTTL)
	}
	e.FreshUntil = began + int64(ttl) //guard:ttl-counts-from-the-end-of-the-load
	if !e.Negative() {
		e.Value, e.Content, e.ETag = r.Value.Data, r.Value.Content, kv.ETagOf(r.Value.Data)
	}
	if expires := r.Value.Expires; !expires.IsZero() && !e.Negative() {
		e.endWith(p, seen+int64(kv.BoundDuration(time.Until(expires))))
	} else {
		e.setStaleWindows(p)
	}
	if most := r.Value.MaxStale; most != nil {
		e.limitStale(int64(kv.BoundDuration(*most)))
	}
	return e
}

// FromPeer returns the local copy, for the given time at most, of another member's answer to a request that was sent at the given
// time. A copy is never taken to be younger than it is, and never outlives the original.
func FromPeer(p kv.Policy, a kv.Answer, owner string, life time.Duration, sent, now int64) *Entry {
	said, began, ends := times(a, sent, now)
	e := &Entry{
		Value: a.Value, NotFound: a.NotFound, DataError: a.DataError, Content: a.Content, Version: a.Version, Owner: owner, Reason: PeerFetch,
		Began: began, Took: now - sent, Seen: now, FreshUntil: min(ends, said+int64(life)), //guard:local-copy-outlives-the-owners-entry
	}
	if a.Stale {
		// The owner has nothing better yet: ask it as seldom as for a fresh value.
		e.BackOff(said+int64(p.LocalTTL), staleDetail(a))                  //guard:each-stale-read-is-a-peer-fetch
		e.FreshUntil = min(e.FreshUntil, began+int64(p.TTLOf(a.NotFound))) //guard:copy-of-a-stale-answer-counts-as-hardly-stale
	}
	if !e.Negative() {
		e.ETag = kv.ETagOf(a.Value)
	}
	e.setStaleWindows(p)
	return e
}

// staleDetail returns why the member sent a stale answer.
func staleDetail(a kv.Answer) string {
	if a.Detail == "" { // not a token that this release accepts
		return kv.DetailOriginError
	}
	return a.Detail //guard:copy-of-a-revalidating-answer-reports-an-error
}

// FromHandover returns the entry that a new owner takes over from the previous one, for the time that it had left there, at
// most for what the ttl leaves of it here.
func FromHandover(p kv.Policy, a kv.Answer, sent, now int64) *Entry {
	e := FromPeer(p, a, "", p.LocalTTL, sent, now)
	_, _, ends := times(a, sent, now)
	e.Reason, e.FreshUntil = Handover, min(ends, e.Began+int64(p.TTLOf(e.Negative()))) // the previous owner may have another policy
	e.setStaleWindows(p)
	return e
}

// times converts the durations in another member's answer to this member's clock: when the answer was made, at the earliest
// (when the request was sent, plus the time that the member took), when its load began, and when it ends. The durations
// come from outside: none may overflow, nor put the answer before its request or the load after the answer.
func times(a kv.Answer, sent, now int64) (said, began, ends int64) {
	said = sent + min(max(int64(a.Took), 0), now-sent)
	return said, said - int64(kv.BoundDuration(a.Age)), said + int64(kv.BoundDuration(a.Fresh)) //guard:local-copy-is-taken-to-be-younger
}
