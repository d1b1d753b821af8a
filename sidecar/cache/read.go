package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// staleWait is how long a read that has a stale answer waits for a better one when the origin is not known to fail.
const staleWait = 100 * time.Millisecond

// staleRetry is how long a stale answer is given without asking anybody, after a refresh has failed.
const staleRetry = time.Second

// Get answers a read of an application. key may lie in memory that the caller reuses: it is copied where it is kept.
// Every error has a Kind.
func (d *Dataset) Get(ctx context.Context, key string, o ReadOptions) (Answer, error) {
	now := d.now()
	if e, ok := d.store.Get(key); ok && d.good(key, e, now) && !o.NoCache && o.admits(e.version) { //guard:hit-older-than-version-asked
		if o.prefetched != 0 {
			a := e.answer(now, e.sourceSince(o.prefetched))
			d.countMiss(a, nil)
			return a, nil
		}
		d.countHit(e)
		if e.dueEarly(now) {
			d.refreshEarly(strings.Clone(key), e)
		}
		return e.answer(now, e.source()), nil
	}
	a, err := d.miss(ctx, strings.Clone(key), d.readFor(o, now)) //guard:key-memory-caller-reuses
	if err == nil && !a.NotFound && !o.admits(a.Version) {
		err = d.tooOld(a, o)
	}
	if o.prefetched != 0 && err == nil && !a.Stale && (a.Source == SourceHit || a.Source == SourceLocalHit) {
		a.Source = SourcePeerHit // it came into memory since this read has looked there
		if d.now()-int64(a.Age) >= o.prefetched {
			a.Source = SourceLoad
		}
	}
	d.countMiss(a, err)
	return a, err
}

func (d *Dataset) readFor(o ReadOptions, now int64) read {
	r := read{began: now, memoryOnly: o.OnlyIfCached, limitStale: o.LimitStale, maxStale: int64(bounded(o.MaxStale))}
	switch {
	case o.NoCache:
		r.need = need{floor{anew: now}}
	case o.MinVersion != 0:
		r.need = need{floor{version: o.MinVersion, asOf: now}}
	}
	return r
}

// tooOld is no error that passes where rows have no version: it can not be reached by waiting.
func (d *Dataset) tooOld(a Answer, o ReadOptions) error {
	if a.Version == 0 {
		return &Error{Kind: KindVersion, Err: fmt.Errorf(
			"dataset %s has no version column; ask for a new value with no-cache instead of for a version", d.name)}
	}
	return &Error{Kind: KindVersion, RetryAfter: retryAfter, Err: fmt.Errorf(
		"dataset %s: the origin has version %d of the row, and %d or later was asked for", d.name, a.Version, o.MinVersion)}
}

// Serve answers a read of another member: from memory or by a load, never by asking a third one.
func (d *Dataset) Serve(ctx context.Context, q Query) (Answer, error) {
	d.stats.Served.Add(1)
	now := d.now()
	n := d.needs(q, now)
	if e, ok := d.store.Get(q.Key); ok && d.serves(q, e, now) && n.met(e, e.began) {
		if e.dueEarly(now) {
			d.refreshEarly(q.Key, e)
		}
		source := SourceHit
		if e.sourceSince(q.prefetched) == SourceLoad {
			source = SourceLoad
		}
		return e.answer(now, source), nil
	}
	return d.miss(ctx, q.Key, read{began: now, need: n, memoryOnly: q.MemoryOnly, served: true})
}

// serves reports whether a fresh entry may answer another member. A new owner peeks at what this one had as the owner
// before: that its keys have moved is the reason of the question.
func (d *Dataset) serves(q Query, e *entry, now int64) bool {
	if q.MemoryOnly {
		return e.fresh(now)
	}
	return d.good(q.Key, e, now)
}

// read is what Get and Serve ask of miss.
type read struct {
	began      int64
	need       need
	memoryOnly bool
	served     bool  // for another member: never hop
	expired    bool  // something is held that is no longer fresh
	limitStale bool  // the caller has said how stale an answer may be:
	maxStale   int64 // at most so far past its freshness
}

// takes reports whether a stale entry may answer r at all.
func (r read) takes(held *entry, n need, now int64) bool {
	return held.usable(now) && r.need.anew == 0 && n.met(held, held.began) && //guard:stale-answer-older-than-version-asked
		(!r.limitStale || !held.ended.Load() && now-held.freshUntil <= r.maxStale) //guard:answer-staler-than-asked guard:copy-ended-taken-one-hardly-stale
}

// miss answers a read for which memory holds nothing fresh.
func (d *Dataset) miss(ctx context.Context, key string, r read) (Answer, error) {
	if err := CheckKey(key); err != nil {
		return Answer{}, err
	}
	n := r.need
	if !r.served { // a flight that is joined may have begun before this was known
		n = d.needOf(key, r, r.began) //guard:reader-joins-flight-began-before-seen
	}
	held, ok := d.store.Peek(key)
	stale := ok && r.takes(held, n, d.now())
	switch {
	case r.memoryOnly && stale && r.limitStale:
		return held.staleAnswer(d.now(), "max-stale"), nil
	case r.memoryOnly:
		return Answer{}, &Error{Kind: KindNotCached, Err: fmt.Errorf("dataset %s: nothing fresh in memory", d.name)}
	case stale:
		r.expired = true
		return d.missWithStale(ctx, key, r, n, held)
	}
	f, err := d.find(ctx, key, r, n)
	if err != nil {
		return Answer{}, d.ofCaller(ctx, err)
	}
	return d.answerOf(f, r)
}

// answerOf is the answer of a flight, unless it is staler than its reader takes.
func (d *Dataset) answerOf(f found, r read) (Answer, error) {
	a := f.answer(r.began, d.now())
	if f.stale && r.limitStale && int64(a.Age)-int64(d.Policy().TTL) > r.maxStale {
		return Answer{}, d.unavailable(errTooStale)
	}
	return a, nil
}

var errTooStale = errors.New("the origin gives no answer, and what is held is staler than was asked for")

// missWithStale answers a read for which memory holds a stale entry.
func (d *Dataset) missWithStale(ctx context.Context, key string, r read, n need, held *entry) (Answer, error) {
	now := d.now()
	retryAt := held.retryAt.Load() //guard:readers-stale-entry-wait-silent-origin
	// Where the origin is known to fail, one caller tries again. The others are not even asked to wait.
	if retryAt != 0 && (now < retryAt || !held.retryAt.CompareAndSwap(retryAt, now+int64(staleRetry))) { //guard:first-read-after-outage-stale
		return held.staleAnswer(now, "origin-error"), nil
	}
	if !held.fresh(now) && (!held.ended.Load() && now < held.swrUntil || r.limitStale) { //guard:may-changed-untold-given-once-more
		d.refreshFor(key, r)
		return held.staleAnswer(now, "revalidating"), nil
	}
	wait, cancel := context.WithTimeout(ctx, staleWait)
	defer cancel()
	f, err := d.find(wait, key, r, n)
	if err == nil {
		return d.answerOf(f, r)
	}
	if ctx.Err() != nil || !excusable(KindOf(err)) {
		return Answer{}, d.ofCaller(ctx, err)
	}
	held.retryAt.CompareAndSwap(0, d.now()+int64(staleRetry))
	return held.staleAnswer(d.now(), detailOf(err)), nil
}

// excusable reports whether a stale answer is better than an error of this kind.
func excusable(k Kind) bool { return k == KindUnavailable || k == KindOverloaded || k == KindDeadline }

func detailOf(err error) string {
	switch {
	case errors.Is(err, ErrUnreachable):
		return "owner-unreachable"
	case KindOf(err) == KindOverloaded:
		return "overloaded"
	case KindOf(err) == KindDeadline:
		return "origin-slow"
	}
	return "origin-error"
}

// ofCaller tells an end of the caller's own context from a failure of the flight that it waited for.
func (d *Dataset) ofCaller(ctx context.Context, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return &Error{Kind: KindDeadline, Err: fmt.Errorf("dataset %s: the caller's deadline passed first", d.name)}
	case ctx.Err() != nil:
		return &Error{Kind: KindCanceled, Err: fmt.Errorf("dataset %s: the caller went away", d.name)}
	}
	return d.classify(err)
}

func (d *Dataset) countHit(e *entry) {
	switch {
	case e.absent:
		d.stats.Negative.Add(1)
	case e.local():
		d.stats.LocalHit.Add(1)
	default:
		d.stats.Hit.Add(1)
	}
}

// countMiss counts a read that was not answered by a fresh entry at once; each read is counted once.
func (d *Dataset) countMiss(a Answer, err error) {
	switch {
	case err != nil:
		d.stats.Error.Add(1)
		if KindOf(err) == KindOverloaded {
			d.stats.Refused.Add(1)
		}
	case a.Stale:
		d.stats.Stale.Add(1)
	case a.NotFound:
		d.stats.Negative.Add(1)
	case a.Source == SourceHit:
		d.stats.Hit.Add(1)
	case a.Source == SourceLocalHit:
		d.stats.LocalHit.Add(1)
	case a.Source == SourcePeerHit:
		d.stats.PeerHit.Add(1)
	default:
		d.stats.Load.Add(1)
	}
}
