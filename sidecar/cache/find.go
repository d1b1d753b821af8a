package cache

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

const (
	// maxFallbacks bounds the loads made at once, per dataset, by members that own none of the keys: when owner and
	// successor are gone, the database must not meet every pod.
	maxFallbacks = 4
	// peekTimeout bounds the question to the previous owner. A load must not wait longer for a mere chance.
	peekTimeout = 20 * time.Millisecond
	// hopGrace is what an owner gets beyond its load timeout to say that its load has failed.
	hopGrace = 250 * time.Millisecond
	// maxRounds bounds the flights that a read joins to find one that is recent enough. The first may have begun too early;
	// those after it may be of readers that had missed before, and find in memory what the first one left.
	maxRounds = 16
)

// found is what a flight gives to those who wait for it.
type found struct {
	entry  *entry
	source Source
	// asOf is a time at which the origin is known to have held the value, at the earliest.
	asOf int64
	// stale and detail are the owner's word about its answer.
	stale  bool
	detail string
	digest uint64 // of the write that had this outcome
}

func (f found) answer(asked, now int64) Answer {
	a := f.entry.answer(now, f.source)
	a.Stale, a.Detail, a.Took = f.stale, f.detail, time.Duration(now-asked)
	return a
}

// need is what an answer must be good for. Its zero value is content with anything fresh.
type need struct{ floor }

// met reports whether e, which was loaded at asOf or later, will do. Whatever its version, what was loaded late enough is
// all there is. 0 is not a time but no bound: what the owner loaded before this member started was loaded before 0.
func (n need) met(e *entry, asOf int64) bool {
	return n == need{} || n.admits(e, asOf) || asOf >= max(n.asOf, n.anew, n.gone) //guard:entry-loaded-before-this-member-started
}

// find waits for the flight that brings what n needs.
func (d *Dataset) find(ctx context.Context, key string, r read, n need) (f found, err error) {
	for range maxRounds { //guard:nocache-read-takes-load-began-before
		f, err = d.join(ctx, key, r, n)
		if err != nil || n.met(f.entry, f.asOf) {
			break
		}
	}
	return f, err
}

func (d *Dataset) join(ctx context.Context, key string, r read, n need) (found, error) {
	route := d.peers.Route(d.name, key)
	if r.served || route.Owner == nil { //guard:request-peer-forwarded
		why := reasonFor(r, route)
		return d.loads.Do(ctx, key, d.Policy().LoadTimeout, d.loader(key, route.Previous, n, why, d.query))
	}
	return d.hops.Do(ctx, key, d.hopTimeout(), d.hopper(key, route, r))
}

func reasonFor(r read, route Route) reason {
	switch {
	case route.Owner != nil:
		return reasonGutter
	case r.need.anew != 0:
		return reasonNoCache
	case r.expired:
		return reasonExpired
	}
	return reasonMiss
}

// hopTimeout lets a hop try the owner and then the successor.
func (d *Dataset) hopTimeout() time.Duration { return 2 * (d.Policy().LoadTimeout + hopGrace) }

// refresh starts, behind, the load of a key that this member owns.
func (d *Dataset) refresh(key string, n need, why reason) {
	// Too many flights: the entry that is held serves on, and the next read tries again.
	if d.loads.Start(key, d.Policy().LoadTimeout, d.loader(key, nil, n, why, d.query)) {
		d.stats.Refreshes.Add(1)
	}
}

// refreshEarly starts the load of an entry that is about to expire, when this member owns its key. Where it was loaded in
// the owner's stead, or the key has moved since, it ends at its time: or each member that ever had a hot key would load it
// for ever.
func (d *Dataset) refreshEarly(key string, e *entry) {
	if d.peers.Route(d.name, key).Owner == nil { //guard:key-moved-loaded-ever-ever-owned
		d.refresh(key, need{floor{anew: e.began + 1}}, reasonEarly)
	}
}

// refreshFor starts, behind, what brings key to a stale read.
func (d *Dataset) refreshFor(key string, r read) {
	route := d.peers.Route(d.name, key)
	if r.served || route.Owner == nil {
		d.refresh(key, r.need, reasonFor(r, route))
		return
	}
	if d.hops.Start(key, d.hopTimeout(), d.hopper(key, route, r)) {
		d.stats.Refreshes.Add(1)
	}
}

// inMemory is asked first by each flight: between a caller's miss and its flight another flight may have ended.
func (d *Dataset) inMemory(key string, n need) (found, bool) {
	e, ok := d.store.Peek(key)
	if !ok || !d.good(key, e, d.now()) || !n.met(e, e.began) { //guard:caller-missed-just-before-flight-ended
		return found{}, false
	}
	return found{entry: e, source: e.source(), asOf: e.began}, true
}

// loader returns the flight that loads key from the origin, by query, and keeps it.
func (d *Dataset) loader(
	key string, previous Peer, n need, why reason, query func(context.Context, string) (origin.Value, error),
) func(context.Context) (found, error) {
	return func(ctx context.Context) (found, error) {
		if f, ok := d.inMemory(key, n); ok {
			return f, nil
		}
		if previous != nil && n.anew == 0 {
			if f, ok := d.peek(ctx, key, previous); ok && n.met(f.entry, f.asOf) {
				return f, nil
			}
		}
		f, err := d.load(ctx, key, why, query)
		return f, d.classify(err)
	}
}

// load asks the origin for key and keeps what it says.
func (d *Dataset) load(
	ctx context.Context, key string, why reason, query func(context.Context, string) (origin.Value, error),
) (found, error) {
	fence := d.fences.of(key)
	raised, began := fence.Load(), d.now()
	value, err := query(ctx, key)
	absent := errors.Is(err, origin.ErrNotFound) //guard:outage-cached-absent
	if err != nil && !absent {
		return found{}, err
	}
	e := d.loaded(value, absent, began, why)
	kept := d.keep(key, e, func() bool { return fence.Load() == raised && d.floors.of(key, began).reached(e) }) //guard:load-begun-before-invalidation-stored-after
	return found{entry: kept, source: SourceLoad, asOf: began}, nil
}

func (d *Dataset) query(ctx context.Context, key string) (origin.Value, error) {
	result := d.loadAll(ctx, []string{key})[0]
	return result.Value, result.Err
}

// loadAll asks the origin for keys, and returns what came of each.
func (d *Dataset) loadAll(ctx context.Context, keys []string) []origin.Result {
	d.stats.LoadsBegun.Add(int64(len(keys)))
	began := time.Now()
	results, err := d.origin.Load(ctx, keys)
	d.stats.LoadTime.Observe(time.Since(began))
	if err == nil && len(results) != len(keys) {
		err = fmt.Errorf("the origin gave %d results for %d keys", len(results), len(keys))
	}
	if err != nil {
		d.stats.LoadErrors.Add(int64(len(keys)))
		return slices.Repeat([]origin.Result{{Err: err}}, len(keys))
	}
	return results
}

// loaded makes the entry of a load. Its times count from before the load began: the row may have changed since.
func (d *Dataset) loaded(value origin.Value, absent bool, began int64, why reason) *entry {
	p := d.Policy()
	ttl := time.Duration(float64(p.TTL) * (1 - p.TTLJitter*rand.Float64()))
	if absent {
		ttl = p.NegativeTTL
	}
	if why == reasonGutter { //guard:entry-loaded-owners-stead-stays-full
		ttl = min(ttl, p.FailoverTTL)
	}
	if d.inGap(p) {
		ttl = min(ttl, p.GapTTL)
	}
	e := &entry{began: began, seen: d.now(), absent: absent, reason: why, version: value.Version}
	e.took = e.seen - began
	e.freshUntil = began + int64(ttl) //guard:ttl-counts-from-end-load
	if !absent {
		e.value, e.etag = value.Data, etag(value.Data)
		e.swrUntil = e.freshUntil + int64(p.StaleWhileRevalidate)
		e.staleUntil = e.freshUntil + int64(max(p.StaleWhileRevalidate, p.StaleIfError))
	}
	return e
}

// keep stores e unless the key was invalidated since, and returns what later reads get. A fresh entry never gives way to
// one that it outranks, and no entry to what is older than its readers have seen.
func (d *Dataset) keep(key string, e *entry, unfenced func() bool) *entry {
	result, changed := e, false
	stored := d.store.Update(key, len(e.value), func(held *entry, ok bool) (*entry, bool) {
		if !unfenced() {
			d.stats.LoadsDiscarded.Add(1)
			return nil, false
		}
		if ok && held.outranks(e) && held.fresh(d.now()) { //guard:older-version-replaces-newer-one
			result = held
			return nil, false
		}
		//guard:load-replaces-read-while-under-way
		if ok && !(need{held.floor()}).met(e, e.began) { // e was on its way when held was read
			return nil, false
		}
		if e.absent && (ok && !held.absent || d.floors.seenBefore(key, d.now())) { //guard:row-gone-comes-back-after-sweep guard:asks-keys-never-makes-others-forgotten
			d.see(key, e.floor()) // its eviction will not say so: most keys that are absent have always been
		}
		changed = !ok || held.etag != e.etag || held.absent != e.absent || held.version != e.version
		return e, true
	})
	switch {
	case stored && changed:
		d.watches.note(key)
	case !stored && result == e:
		d.seeUnstored(key, e)
	}
	return result
}

// seeUnstored notes that some will have read e, although it is not held. Where others have read what e is below, or may
// be below, only what is loaded from now on is surely not below either: what is on its way may be older than e.
func (d *Dataset) seeUnstored(key string, e *entry) {
	now, f := d.now(), e.floor()
	if !(need{d.known(key, now)}).met(e, e.began) {
		f = floor{anew: now + 1} //guard:stale-answer-comes-late-brings-back
		d.fences.of(key).Add(1)  //guard:row-seen-gone-load-kept-stored
	}
	d.see(key, f) //guard:read-but-stored-known
	d.dropBelow(key, f)
}

// outranks compares versions where both have one; otherwise the later load wins.
func (e *entry) outranks(other *entry) bool {
	if e.version != 0 && other.version != 0 && e.version != other.version {
		return e.version > other.version
	}
	return e.began > other.began
}

// hopper returns the flight that fetches key from its owner, or from whoever stands in for it.
func (d *Dataset) hopper(key string, route Route, r read) func(context.Context) (found, error) {
	return func(ctx context.Context) (found, error) {
		n := d.needOf(key, r, d.now())
		if f, ok := d.inMemory(key, n); ok {
			return f, nil
		}
		q := d.question(key, n.floor)
		//guard:each-members-first-read-after-invalidation
		q.NoCache = r.need.anew != 0 // what was invalidated is a matter of age: the owner may have loaded it since
		f, err := d.fetch(ctx, route.Owner, q)
		if errors.Is(err, ErrUnreachable) { //guard:failure-origin-owner-sends-readers-elsewhere
			f, err = d.detour(ctx, key, route, r, q, err)
		}
		return f, d.classify(err)
	}
}

// needOf is what r needs, and nothing below what this member knows of the key.
func (d *Dataset) needOf(key string, r read, now int64) need {
	return need{r.need.above(d.known(key, now))}
}

// question asks another member for nothing below f.
func (d *Dataset) question(key string, f floor) Query {
	q, after := Query{Dataset: d.name, Key: key}, max(f.asOf, f.anew, f.gone)
	switch {
	case f.anew == 0 && f.gone == 0:
		q.MinVersion, q.Tag = f.version, f.tag //guard:each-hop-unchanged-value-load
	case f.gone == after && f.tag == tagAbsent:
		q.Tag = tagAbsent
	}
	if after != 0 {
		q.MaxAge = time.Duration(max(d.now()-after, 1)) //guard:old-owner-answers-older-row-without
	}
	return q
}

// known is the floor of key: what readers here have seen, or what was invalidated since.
func (d *Dataset) known(key string, now int64) floor {
	f := d.floors.of(key, now)
	held, ok := d.store.Peek(key)
	if !ok {
		return f
	}
	if !f.admits(held, held.began) {
		return f.above(held.floor())
	}
	top := held.floor() // what is not below it is not below f, but for a row that came after held and went again
	if held.absent {
		top.gone = max(top.gone, f.gone) //guard:row-comes-back-deleted-where-nothing
	}
	return top
}

// needs is what a question of another member asks for.
func (d *Dataset) needs(q Query, now int64) need {
	switch {
	case q.NoCache:
		return need{floor{anew: now}}
	case q.Tag == tagAbsent:
		return need{floor{gone: now - int64(bounded(q.MaxAge))}}
	case q.MaxAge > 0:
		return need{floor{version: q.MinVersion, tag: q.Tag, asOf: now - int64(bounded(q.MaxAge))}}
	case q.MinVersion != 0:
		return need{floor{version: q.MinVersion, asOf: now}}
	}
	return need{}
}

// detour goes around an owner that could not be reached: to the successor, which is everybody's, so that the herd stays
// merged; then to the stale copy (the caller has it); and only then to the origin, out of a small budget.
func (d *Dataset) detour(ctx context.Context, key string, route Route, r read, q Query, why error) (found, error) {
	q.Failover = true
	if route.Successor == nil { //guard:dead-owner-sends-every-pod-database
		return d.standIn(ctx, key, q)
	}
	d.stats.Successor.Add(1)
	f, err := d.fetch(ctx, route.Successor, q)
	if !errors.Is(err, ErrUnreachable) {
		f.detail = "owner-unreachable"
		return f, err
	}
	if held, ok := d.store.Peek(key); ok && r.takes(held, d.needOf(key, r, d.now()), d.now()) { //guard:reader-takes-nothing-stale-refused-stale
		return found{}, d.unavailable(fmt.Errorf("owner and successor are away: %w", why))
	}
	return d.fallback(ctx, key, q, why)
}

// fallback loads a key that another member owns, as one of few, for which it waits its turn.
func (d *Dataset) fallback(ctx context.Context, key string, q Query, why error) (found, error) {
	turn, cancel := context.WithTimeout(ctx, d.Policy().LoadTimeout)
	defer cancel()
	select {
	case d.fallbacks <- struct{}{}:
		defer func() { <-d.fallbacks }()
		d.stats.FailoverLoads.Add(1)
		return d.standIn(ctx, key, q)
	case <-turn.Done():
		return found{}, &Error{Kind: KindOverloaded, RetryAfter: retryAfter, Err: fmt.Errorf(
			"dataset %s: owner and successor are away, and %d loads are made here already: %w", d.name, maxFallbacks, why)}
	}
}

// standIn loads a key that another member owns.
func (d *Dataset) standIn(ctx context.Context, key string, q Query) (found, error) {
	n := d.needs(q, d.now())
	f, err := d.loads.Do(ctx, key, d.Policy().LoadTimeout, d.loader(key, nil, n, reasonGutter, d.query))
	f.detail = "owner-unreachable"
	return f, err
}

// fetch asks another member and keeps a local copy of its answer.
func (d *Dataset) fetch(ctx context.Context, peer Peer, q Query) (found, error) {
	p := d.Policy()
	fence := d.fences.of(q.Key)
	raised, ended, sent := fence.Load(), d.copiesEnded.Load(), d.now()
	a, err := d.ask(ctx, peer, q, p.LoadTimeout+hopGrace)
	if err != nil {
		return found{}, err
	}
	e := d.copied(a, peer.ID(), sent)
	f := found{entry: e, source: SourcePeerHit, asOf: e.began, stale: a.Stale, detail: a.Detail}
	if a.Source == SourceLoad {
		f.source = SourceLoad
	}
	if q.NoCache {
		f.asOf = sent // the member's promise: its load began after it was asked
	}
	f.entry = d.keep(q.Key, e, func() bool {
		return fence.Load() == raised && d.copiesEnded.Load() == ended && d.floors.of(q.Key, sent).admits(e, e.began) //guard:copy-asked-before-invalidation-stored-after
	})
	if f.entry.fresh(d.now()) { // what is held here may be better than what the member has
		f.stale, f.detail = false, ""
	}
	return f, nil
}

func (d *Dataset) ask(ctx context.Context, peer Peer, q Query, timeout time.Duration) (Answer, error) {
	d.stats.PeerFetches.Add(1)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	began := time.Now()
	a, err := peer.Fetch(ctx, q)
	d.stats.PeerFetchTime.Observe(time.Since(began))
	if errors.Is(err, ErrUnreachable) {
		d.stats.PeerFetchErrors.Add(1)
		d.stats.LastPeerFetchError.Store(&err)
	}
	return a, err
}

// copied makes the local copy of another member's answer: never thought younger than it is, and never outlives the
// original.
func (d *Dataset) copied(a Answer, owner string, sent int64) *entry {
	p, now := d.Policy(), d.now()
	said, began, ends := times(a, sent, now)
	e := &entry{
		value: a.Value, absent: a.NotFound, version: a.Version, owner: owner, reason: reasonHop,
		began: began, took: now - sent, seen: now, freshUntil: min(ends, said+int64(p.LocalTTL)), //guard:local-copy-outlives-owners-entry
	}
	if a.Stale {
		// While the origin is away its owner has nothing better: ask it again as seldom as for a fresh value.
		e.retryAt.Store(said + int64(p.LocalTTL)) //guard:each-stale-read-hop
	}
	if !a.NotFound {
		e.etag = etag(a.Value)
		e.staleUntil = e.began + int64(p.TTL+max(p.StaleIfError, p.StaleWhileRevalidate))
	}
	return e
}

// times brings the durations in another member's answer onto this one's clock: when it was said, at the earliest (when
// the request was sent and the member had taken its time), when its load began, and when it ends. They come from
// outside: none of them may overflow, or say that the answer was given before it was asked for, or is yet to be loaded.
func times(a Answer, sent, now int64) (said, began, ends int64) {
	said = sent + min(max(int64(a.Took), 0), now-sent)
	return said, said - int64(bounded(a.Age)), said + int64(bounded(a.Fresh)) //guard:local-copy-thought-younger-than
}

// peek asks the previous owner's memory for a key that has just become this member's.
func (d *Dataset) peek(ctx context.Context, key string, previous Peer) (found, bool) {
	d.stats.Peeks.Add(1)
	fence := d.fences.of(key)
	raised, ended, sent := fence.Load(), d.copiesEnded.Load(), d.now()
	ctx, cancel := context.WithTimeout(ctx, peekTimeout)
	defer cancel()
	a, err := previous.Fetch(ctx, Query{Dataset: d.name, Key: key, MemoryOnly: true})
	if err != nil || a.Stale {
		return found{}, false
	}
	e := d.inherited(a, sent)
	//guard:peek-brings-back-older-than-readers
	if now := d.now(); !e.fresh(now) || !d.known(key, now).admits(e, e.began) { // readers here have seen better
		return found{}, false
	}
	d.stats.PeekHits.Add(1)
	kept := d.keep(key, e, func() bool {
		return fence.Load() == raised && d.copiesEnded.Load() == ended && d.floors.of(key, sent).admits(e, e.began)
	})
	return found{entry: kept, source: SourcePeerHit, asOf: e.began}, true
}

// inherited makes the entry that a new owner takes over from the previous one, with the time that it had left, at most
// what the ttl leaves of it here.
func (d *Dataset) inherited(a Answer, sent int64) *entry {
	p := d.Policy()
	e := d.copied(a, "", sent)
	e.reason = reasonPeek
	ttl := p.TTL
	if a.NotFound {
		ttl = p.NegativeTTL
	}
	_, _, ends := times(a, sent, d.now())
	e.freshUntil = min(ends, e.began+int64(ttl)) // the policy there may be another
	if !a.NotFound {
		e.swrUntil = e.freshUntil + int64(p.StaleWhileRevalidate)
		e.staleUntil = e.freshUntil + int64(max(p.StaleIfError, p.StaleWhileRevalidate))
	}
	return e
}
