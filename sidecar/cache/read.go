package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/batch"
	"github.com/ringside-cache/ringside/sidecar/internal/entries"
	"github.com/ringside-cache/ringside/sidecar/internal/flight"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

const (
	// staleWait is how long a read that has a stale answer waits for a fresh one when the origin is not known to fail.
	staleWait = 100 * time.Millisecond
	// staleRetry is how long stale answers are sent without a load after a refresh has failed.
	staleRetry = time.Second
	// maxRounds bounds the flights that a read waits for until one is recent enough. The first may have begun too early;
	// those after it may belong to readers that had missed before, and find in memory what the first one stored. If none is, another
	// member answers with less than it was asked for.
	maxRounds = 16
)

var errTooOld = fmt.Errorf("%d answers in a row are older than what this member has already seen, or than the read requires", maxRounds)

// Get answers a read of an application. The memory of key may be reused by the caller: it is copied where it is kept.
// Every error has a Kind.
func (d *Dataset) Get(ctx context.Context, key string, o kv.ReadOptions) (kv.Answer, error) {
	now := d.now()
	if e := d.hit(key, o, now); e != nil {
		if d.settled.Unsettled() { // asked here: one more copy of the answer is a fifth of a hit
			a := d.answer(key, e, now, e.Source())
			return a, a.Err(d.name)
		}
		return e.Answer(now, e.Source()), e.Err(d.name)
	}
	return d.miss(ctx, strings.Clone(key), o, now) //guard:key-in-memory-that-the-caller-reuses
}

// miss is a function of its own so that the stack frame of a hit stays small.
func (d *Dataset) miss(ctx context.Context, key string, o kv.ReadOptions, now int64) (kv.Answer, error) {
	r := d.newRead(key, o, now)
	d.resolve(ctx, []*read{r})
	a, err := d.finish(r, o)
	return a, traced(ctx, err)
}

// Cached returns the answer to Get if a fresh value in memory is it, and never waits. It does not count the read: a caller
// that uses the answer does (kv.Stats.CountHit).
func (d *Dataset) Cached(key string, o kv.ReadOptions) (kv.Answer, bool) {
	now := d.now()
	e := d.fresh(key, o, now)
	if e == nil || e.Negative() {
		return kv.Answer{}, false
	}
	if kv.Samples(now) {
		d.measureHit(e, now)
	}
	return d.answer(key, e, now, e.Source()), true
}

// hit returns the entry of key if it answers a read at once, and counts the read; otherwise nil.
func (d *Dataset) hit(key string, o kv.ReadOptions, now int64) *entries.Entry {
	e := d.fresh(key, o, now)
	switch {
	case e == nil:
	case e.DataError != 0:
		d.stats.DataError.Add(1)
	default:
		d.stats.CountHit(e.NotFound, e.Local())
		if kv.Samples(now) {
			d.measureHit(e, now)
		}
	}
	return e
}

// measureHit is a function of its own so that the stack frame of a hit stays small.
//
//go:noinline
func (d *Dataset) measureHit(e *entries.Entry, now int64) {
	d.stats.ObserveHit(e.NotFound, e.Local(), time.Duration(d.now()-now), time.Duration(now-e.Began))
}

// fresh returns the entry of key if it answers a read at once; otherwise nil.
func (d *Dataset) fresh(key string, o kv.ReadOptions, now int64) *entries.Entry {
	e, ok := d.store.Get(key, now)
	if !ok || !d.trusts(key, e, now) || o.NoCache || !o.Admits(e.Version) { //guard:hit-below-the-required-version
		return nil
	}
	if e.RefreshEarly(now) {
		d.fetcher.refreshEarly(strings.Clone(key), e)
	}
	return e
}

// Serve answers a read of another member: from memory or by a load. It asks a third member only if q asks for that (Relay, Zone).
func (d *Dataset) Serve(ctx context.Context, q kv.Query) (kv.Answer, error) {
	q = d.asOwner(q)
	r, a := d.serveHit(q, d.now())
	if r == nil {
		return a, nil
	}
	d.resolve(ctx, []*read{r})
	d.report(q, &r.answer)
	return r.answer, r.err
}

// asOwner clears q.Relay if this member owns the key.
func (d *Dataset) asOwner(q kv.Query) kv.Query {
	if q.Relay && d.peers.Route(d.name, q.Key).Owner == nil {
		q.Relay = false
	}
	return q
}

// serveHit answers q from memory, or else returns the read to resolve.
func (d *Dataset) serveHit(q kv.Query, now int64) (*read, kv.Answer) {
	d.stats.Served.Add(1)
	need := entries.BoundOf(q, now)
	if e := d.served(q, need, now); e != nil {
		a := d.answerTo(q, e, now)
		d.report(q, &a)
		return nil, a
	}
	return &read{key: q.Key, began: now, need: need, memoryOnly: q.MemoryOnly, served: true, relay: q.Relay, zone: q.Zone, done: func() {}}, kv.Answer{}
}

// ServeHit is Serve where an entry in memory with a value of at most the given size answers at once. Otherwise it reports false,
// and has counted nothing. The memory of q may be reused by the caller.
func (d *Dataset) ServeHit(q kv.Query, most int) (kv.Answer, bool) {
	now := d.now()
	q = d.asOwner(q)
	e := d.served(q, entries.BoundOf(q, now), now)
	if e == nil || e.DataError != 0 || len(e.Value) > most {
		return kv.Answer{}, false
	}
	d.stats.Served.Add(1)
	a := d.answerTo(q, e, now)
	d.report(q, &a)
	return a, true
}

// report counts the fetch that a answers, and sets what the caller is to know of it.
func (d *Dataset) report(q kv.Query, a *kv.Answer) {
	switch {
	case q.Relay:
		a.Relayed, a.HotRate = true, d.reported.Relay(q.Key, d.now())
	case d.hot != nil && !q.MemoryOnly:
		a.HotRate = d.hot.Count(d.name, q.Key, 1+q.Relayed) //guard:relayed-fetches-do-not-count
	}
}

// served returns the entry that answers q at once, or nil.
func (d *Dataset) served(q kv.Query, need entries.Bound, now int64) *entries.Entry {
	e, ok := d.store.Get(q.Key, now)
	if !ok || q.Relay && !d.relays(q.Key, e) || !d.serves(q, e, now) || !need.Allows(e, e.Began) { //guard:served-hit-below-the-bound
		return nil
	}
	return e
}

// relays reports whether e is a copy of the entry of the owner of its key: this member receives its invalidations, as the caller
// does. It may also be the answer of a successor.
func (d *Dataset) relays(key string, e *entries.Entry) bool {
	owner := d.peers.Route(d.name, key).Owner
	return owner != nil && e.Owner == owner.ID() //guard:copy-of-another-member-is-relayed
}

// answerTo answers q with an entry.
func (d *Dataset) answerTo(q kv.Query, e *entries.Entry, now int64) kv.Answer {
	if e.RefreshEarly(now) {
		d.fetcher.refreshEarly(strings.Clone(q.Key), e)
	}
	if q.MemoryOnly {
		return e.Answer(now, kv.SourceHit)
	}
	return d.answer(q.Key, e, now, kv.SourceHit)
}

// serves reports whether a fresh entry may answer another member. MemoryOnly comes from a new owner, because the key has
// moved: it may be used although this member no longer owns it.
func (d *Dataset) serves(q kv.Query, e *entries.Entry, now int64) bool {
	if q.MemoryOnly {
		return e.Fresh(now)
	}
	return d.trusts(q.Key, e, now)
}

// read is one read that memory does not answer at once.
type read struct {
	key        string
	began      int64
	need       entries.Bound // what the caller requires
	span       *tracing.Span // of the caller's request; nil if it is not traced
	memoryOnly bool
	served     bool      // for another member: do not ask a third one
	relay      bool      // … except the owner of a hot key, for which this one answers
	zone       bool      // … except one, for the caller's zone
	query      *kv.Query // of another member, in a batch
	limitStale bool      // the caller limits how stale an answer may be:
	maxStale   int64     // at most so far past its ttl

	bound      entries.Bound  // need, and what this member knows of the key
	stale      *entries.Entry // the answer if the origin fails; nil: none
	early      bool           // a refresh before the ttl has passed
	background bool           // answered already; the load goes on
	route      kv.Route
	call       *call // the flight

	answer kv.Answer
	err    error
	done   func() // takes answer and err of a read that is one of a batch
}

// owner is the member that has the answer; nil: this one.
func (r *read) owner() kv.Peer {
	if r.served && !r.relay && !r.zone { //guard:request-of-a-peer-is-forwarded
		return nil
	}
	return r.route.Owner
}

// first is the member to ask first; nil: this one.
func (r *read) first() kv.Peer {
	if r.route.Zone != nil {
		return r.route.Zone
	}
	return r.owner()
}

// party is the member to ask, or the origin: the empty one.
func (r *read) party() string {
	if owner := r.owner(); owner != nil {
		return owner.ID()
	}
	return ""
}

func (d *Dataset) newRead(key string, o kv.ReadOptions, now int64) *read {
	r := &read{
		key: key, began: now, memoryOnly: o.OnlyIfCached, done: func() {},
		limitStale: o.LimitStale, maxStale: int64(kv.BoundDuration(o.MaxStale)),
	}
	switch {
	case o.NoCache:
		r.need.MinLoadTime = now
	case o.MinVersion != 0:
		r.need.Version, r.need.AsOf = o.MinVersion, now
	}
	return r
}

// accepts reports whether a stale entry may answer r at all.
func (r *read) accepts(held *entries.Entry, bound entries.Bound, now int64) bool {
	return !r.relay && held.Usable(now) && r.need.MinLoadTime == 0 && bound.Allows(held, held.Began) && //guard:stale-answer-below-the-required-version
		(!r.limitStale || held.WithinStale(now, r.maxStale)) //guard:answer-staler-than-allowed
}

// resolve answers reads. It starts the flights of all that need one at once, and waits for those of each owner separately:
// a slow member must not delay the keys of others that need another flight.
func (d *Dataset) resolve(ctx context.Context, reads []*read) {
	if len(reads) > 0 && !d.peers.Awake() {
		d.peers.Prove(ctx) // then memory may have the answers after all
	}
	started, short, span := reads[:0:0], ctx, tracing.From(ctx)
	for _, r := range reads {
		r.span = span
		needsFlight := d.look(r)
		if needsFlight {
			started = append(started, r)
		}
		if !needsFlight || r.background {
			r.done()
		}
		if r.stale != nil && short == ctx {
			var cancel context.CancelFunc
			short, cancel = context.WithTimeout(ctx, staleWait)
			defer cancel()
		}
	}
	d.fetcher.start(started)
	started = slices.DeleteFunc(started, func(r *read) bool { return r.background })
	parts := batch.ByPeer(started, (*read).first)
	//guard:slow-member-delays-the-keys-of-others
	flight.Concurrently(len(parts), len(parts), func(i int) { d.await(ctx, short, parts[i]) })
}

// await waits for the flight of each read, and for more where that began too early. A read that has a stale answer waits
// only for the shorter context.
func (d *Dataset) await(ctx, short context.Context, reads []*read) {
	for round := 1; len(reads) > 0; round++ {
		var again []*read
		waits := flight.Each(callsOf(reads), func(i int, res result, err error) {
			r := reads[i]
			switch {
			case d.answers(ctx, res, err, r):
			case round < maxRounds: //guard:no-cache-read-accepts-a-load-that-began-before
				r.answer, again = kv.Answer{}, append(again, r)
				return
			case !r.bound.Allows(res.entry, res.asOf+1): // the bound of an invalidation is a nanosecond later; clocks may be coarse
				d.answers(ctx, result{}, d.unavailable(errTooOld), r) //guard:answer-below-the-bound-after-all-rounds
			}
			r.done()
		})
		waits.Wait(short, func(i int) bool { return reads[i].stale != nil })
		waits.Wait(ctx, nil)
		d.fetcher.start(again)
		reads = again
	}
}

// callsOf takes the flights from reads, which would hold the values of those that have ended.
func callsOf(reads []*read) []*call {
	calls := make([]*call, len(reads))
	for i, r := range reads {
		calls[i], r.call = r.call, nil //guard:batch-holds-the-flights-of-its-reads
	}
	return calls
}

// look answers r from memory where it can, and reports whether r needs a flight all the same.
func (d *Dataset) look(r *read) (needsFlight bool) {
	if r.err = kv.CheckEntryKey(r.key); r.err != nil {
		return false
	}
	r.bound = r.need
	if !r.served { // a flight that is joined may have begun before this was known
		r.bound = r.need.Merge(d.store.BoundOf(r.key)) //guard:reader-joins-a-flight-from-before-what-was-seen
	}
	now := d.now()
	held, ok := d.store.Peek(r.key)
	stale := ok && r.accepts(held, r.bound, now)
	switch {
	case r.memoryOnly && stale && (r.limitStale || d.trusts(r.key, held, now)): //guard:proven-entry-is-not-in-memory
		r.answer = d.inMemory(r.key, held, now)
		return false
	case r.memoryOnly:
		r.err = &kv.Error{Kind: kv.KindNotCached, Err: fmt.Errorf("dataset %s: no fresh entry in memory", d.name)}
		return false
	case !stale:
		return true
	}
	r.stale = held
	return d.lookAtStale(r, held, now)
}

// inMemory is the answer of a read that takes a stale entry and only memory. The entry may be fresh: it may have arrived
// since the hit was looked for, or be a hit that a batch has dropped.
func (d *Dataset) inMemory(key string, held *entries.Entry, now int64) kv.Answer {
	if d.trusts(key, held, now) { //guard:fresh-entry-is-answered-as-stale
		return d.answer(key, held, now, held.Source())
	}
	return held.StaleAnswer(now, kv.DetailMaxStale)
}

// lookAtStale decides whether the stale entry answers r at once: not where a fresh one is likely to arrive soon. Where the
// origin is known to fail, one reader tries again and the others do nothing; where it is known to be silent, not even that one
// waits.
func (d *Dataset) lookAtStale(r *read, held *entries.Entry, now int64) (needsFlight bool) {
	detail, backsOff := held.BacksOff(now, staleRetry)
	switch {
	case backsOff:
		r.answer = held.StaleAnswer(now, detail)
		return false
	case d.trusts(r.key, held, now): // it has just arrived
	case d.revalidates(r.key, held, now) || r.limitStale:
		r.answer, r.background = held.StaleAnswer(now, cmp.Or(detail, kv.DetailRevalidating)), true
	case d.fetcher.isSilent(r, now): //guard:readers-of-each-key-wait-for-a-frozen-origin
		held.BackOff(now+int64(staleRetry), kv.DetailOriginSlow)
		r.answer, r.background = held.StaleAnswer(now, kv.DetailOriginSlow), true
	}
	return true
}

// answers answers r with the result of its flight, and reports false if the flight began too early for r.
func (d *Dataset) answers(ctx context.Context, res result, err error, r *read) bool {
	switch {
	case err == nil:
		r.answer, r.err = d.answerOf(res, r)
		return r.bound.Allows(res.entry, res.asOf)
	case r.stale == nil || ctx.Err() != nil || !kv.KindOf(err).Excusable():
		r.answer, r.err = kv.Answer{}, d.callersError(ctx, err)
	default:
		now, detail := d.now(), kv.StaleDetail(err)
		if kv.KindOf(err) == kv.KindDeadline { // that of the wait: the flight goes on
			d.fetcher.silent.Mark(r.party(), now) //guard:each-first-reader-waits
		}
		r.stale.BackOff(now+int64(staleRetry), detail)
		r.answer, r.err = r.stale.StaleAnswer(now, detail), nil
	}
	return true
}

// answerOf returns the answer of a flight, unless it is staler than its reader allows.
func (d *Dataset) answerOf(res result, r *read) (kv.Answer, error) {
	now := d.now()
	a := res.answer(r.began, now)
	if d.settled.Unsettled() && !a.Stale {
		a.Fresh = min(a.Fresh, time.Duration(d.freshUntil(r.key, res.entry, now)-now))
	}
	if res.stale && r.limitStale && int64(a.Age-d.Policy().TTLOf(a.NotFound)) > r.maxStale {
		return kv.Answer{}, d.unavailable(errors.New("origin unavailable and cached value exceeds max-stale"))
	}
	return a, nil
}

// finish checks and counts the answer of an application's read.
func (d *Dataset) finish(r *read, o kv.ReadOptions) (kv.Answer, error) {
	d.check(r, o)
	took := time.Duration(d.now() - r.began)
	r.span.Exemplify(&d.stats.ReadTime[d.stats.CountMiss(r.answer, r.err, took)], took)
	return r.answer, r.err
}

func (d *Dataset) check(r *read, o kv.ReadOptions) {
	switch {
	case r.err != nil || r.answer.NotFound:
	case r.answer.DataError != 0:
		r.err = r.answer.Err(d.name)
	case !o.Admits(r.answer.Version):
		r.err = d.tooOld(r.answer, o)
	}
}

// tooOld has no RetryAfter where rows have no version: waiting does not help.
func (d *Dataset) tooOld(a kv.Answer, o kv.ReadOptions) error {
	if a.Version == 0 {
		return &kv.Error{Kind: kv.KindVersion, Err: fmt.Errorf(
			"dataset %s has no version column; read with no-cache instead of a minimum version", d.name)}
	}
	return &kv.Error{Kind: kv.KindVersion, RetryAfter: retryAfter, Err: fmt.Errorf(
		"dataset %s: the origin has version %d of the row, older than the required %d", d.name, a.Version, o.MinVersion)}
}
