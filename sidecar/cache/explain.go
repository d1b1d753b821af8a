package cache

import (
	"cmp"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/ttlmap"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Explain describes the entry of key, and what a read of it would do. It does not count as a read, and changes nothing.
func (d *Dataset) Explain(key string) (x kv.Explanation) {
	now := d.now()
	if e, ok := d.store.Peek(key); ok {
		x = e.Explain(now)
	}
	if d.hot != nil {
		x.Reads.Fetches = d.hot.Rate(d.name, key)
	}
	x.Bound = d.store.BoundOf(key).Explain(now)
	x.Next = d.nextRead(key, now)
	return x
}

// nextRead follows the steps of Get and look for a read without options, without their effects.
func (d *Dataset) nextRead(key string, now int64) kv.NextRead {
	held, ok := d.store.Peek(key)
	if ok && d.trusts(key, held, now) {
		return kv.NextRead{Action: kv.ActHit}
	}
	r := d.newRead(key, kv.ReadOptions{}, now)
	r.route = d.fetcher.route(r)
	next := d.flightOf(r)
	if !ok || !r.accepts(held, d.store.BoundOf(key), now) {
		return next
	}
	detail, backsOff := held.BackedOff(now)
	switch {
	case backsOff:
		return kv.NextRead{Action: kv.ActStale, Detail: detail}
	case d.revalidates(key, held, now):
		return kv.NextRead{Action: kv.ActRevalidate, Detail: cmp.Or(detail, kv.DetailRevalidating)}
	case d.fetcher.silent.Has(r.party(), now):
		return kv.NextRead{Action: kv.ActRevalidate, Detail: kv.DetailOriginSlow}
	}
	next.Stale = true
	return next
}

// flightOf is what a read does that memory does not answer.
func (d *Dataset) flightOf(r *read) (next kv.NextRead) {
	flights := d.fetcher.loads
	next.Action = kv.ActLoad
	if r.route.Previous != nil {
		next.Previous = r.route.Previous.ID()
	}
	if r.route.Owner != nil {
		flights = d.fetcher.fetches
		next.Action, next.From = kv.ActFetch, r.route.Owner.ID()
	}
	if r.route.Zone != nil {
		flights = d.fetcher.through
		next.Zone = r.route.Zone.ID()
	}
	if r.route.Successor != nil {
		next.Successor = r.route.Successor.ID()
	}
	if flights.Has(r.key) {
		next.Action = kv.ActJoin
	}
	return next
}

// LastFailure returns the error of the latest load or peer fetch of key by this member that failed, and the time since then;
// nil if there was none of late, or if it has got the key since.
func (d *Dataset) LastFailure(key string) (ago time.Duration, err error) {
	now := d.now()
	last, ok := d.fetcher.failures.of(key, now)
	if e, held := d.store.Peek(key); !ok || held && e.Began > last.at {
		return 0, nil
	}
	return time.Duration(now - last.at), last.err
}

const (
	// maxFailures and maxFailureKeyBytes limit one of the two generations of remembered failures: an operator explains one
	// key of those that fail now.
	maxFailures, maxFailureKeyBytes = 256, 16 << 10
	// failureLife is how long a failure is worth explaining.
	failureLife = int64(10 * time.Minute)
)

// failures remembers the latest failure of each key. Only failures take its lock.
type failures struct {
	mu   sync.Mutex // guards keys
	keys *ttlmap.Map[failure]
}

type failure struct {
	err error
	at  int64
}

func newFailures() *failures {
	return &failures{keys: ttlmap.New[failure](maxFailures, maxFailureKeyBytes)}
}

func (f *failures) note(key string, err error, now int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys.Put(key, failure{err, now}, len(key), now, failureLife)
}

func (f *failures) of(key string, now int64) (failure, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.keys.Get(key, now)
}
