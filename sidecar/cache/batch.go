package cache

import (
	"context"
	"strings"

	"github.com/ringside-cache/ringside/origin"
)

const (
	// MaxBatchKeys bounds the keys of one Peer.FetchBatch.
	MaxBatchKeys = 512
	// maxAlone bounds the fetches that are made at once of what did not fit into one answer: those values are large.
	maxAlone = 16
)

// Outcome is what came of one Query of a batch.
type Outcome struct {
	Answer Answer
	Err    error // as that of Peer.Fetch
	// Alone: the member has not looked for this one, which is to be fetched by itself.
	Alone bool
}

// Prefetch begins what reads of many keys with these options would begin one after the other: one load of the keys that
// this member owns, and one hop to each other member for all keys that it owns. It does not wait. Each key is then read
// as ever, with the options that are returned: the read joins what was begun for it, and begins what was not.
func (d *Dataset) Prefetch(keys []string, o ReadOptions) ReadOptions {
	if o.NoCache || o.OnlyIfCached || o.MinVersion != 0 {
		return o // it would not be content with what began before it
	}
	p := d.newPrefetch()
	o.prefetched = d.now()
	r := d.readFor(o, o.prefetched)
	for _, key := range keys {
		if d.wanting(key, r) {
			p.begin(strings.Clone(key), r)
		}
	}
	p.end()
	return o
}

// PrefetchServed is Prefetch for reads of another member: it begins loads alone. It notes in qs that it has.
func (d *Dataset) PrefetchServed(qs []Query) {
	p := d.newPrefetch()
	now := d.now()
	for i, q := range qs {
		qs[i].prefetched = now
		r := read{began: now, need: d.needs(q, now), served: true}
		if !q.NoCache && !q.MemoryOnly && d.wanting(q.Key, r) { //guard:loads-members-batch-one-one
			p.begin(q.Key, r)
		}
	}
	p.end()
}

// wanting reports whether r would wait for a flight. Where a refresh has failed, reads decide which of them tries again.
func (d *Dataset) wanting(key string, r read) bool {
	if CheckKey(key) != nil {
		return false
	}
	held, ok := d.store.Peek(key)
	switch {
	case !ok:
		return true
	case d.good(key, held, r.began) && r.need.met(held, held.began):
		return false
	}
	return !held.usable(r.began) || held.retryAt.Load() == 0 //guard:batch-asks-origin-just-seen-fail
}

// prefetch is one batch of flights. It is not safe for concurrent use.
type prefetch struct {
	dataset *Dataset
	loads   *gathering[string, origin.Result]
	trips   map[string]*trip // :: node id → the one that has room
}

// trip gathers what one member is asked.
type trip struct {
	*gathering[Query, Outcome]
	alone chan struct{} // holds a token for each fetch that is made alone after all
}

func (d *Dataset) newPrefetch() *prefetch {
	return &prefetch{dataset: d, loads: gather(d.loadAll), trips: map[string]*trip{}}
}

// end lets go what was gathered.
func (p *prefetch) end() {
	p.loads.leave()
	for _, t := range p.trips {
		t.leave()
	}
}

func (p *prefetch) begin(key string, r read) {
	d := p.dataset
	route := d.peers.Route(d.name, key)
	_, r.expired = d.store.Peek(key)
	if r.served || route.Owner == nil {
		p.beginLoad(key, r, route)
		return
	}
	p.beginHop(key, r, route)
}

func (p *prefetch) beginLoad(key string, r read, route Route) {
	d, place := p.dataset, p.loads.place()
	query := func(ctx context.Context, key string) (origin.Value, error) {
		if result, ok := place.ask(ctx, key); ok { //guard:many-keys-this-member-many-queries
			return result.Value, result.Err
		}
		return d.query(ctx, key)
	}
	load := d.loader(key, route.Previous, d.needOf(key, r, r.began), reasonFor(r, route), query)
	started := d.loads.Start(key, d.Policy().LoadTimeout, func(ctx context.Context) (found, error) {
		defer place.leave() // memory may have had the answer
		return load(ctx)
	})
	if !started {
		place.leave()
	}
}

func (p *prefetch) beginHop(key string, r read, route Route) {
	d, t := p.dataset, p.tripTo(route.Owner)
	place := t.place()
	route.Owner = companion{route.Owner, place, t.alone}
	hop := d.hopper(key, route, r)
	started := d.hops.Start(key, d.hopTimeout(), func(ctx context.Context) (found, error) {
		defer place.leave()
		return hop(ctx)
	})
	if !started {
		place.leave()
	}
}

// tripTo returns a trip with room for one more.
func (p *prefetch) tripTo(owner Peer) *trip {
	t := p.trips[owner.ID()]
	if t != nil && t.places < MaxBatchKeys { //guard:many-keys-one-owner-many-hops
		return t
	}
	if t != nil {
		t.leave()
	}
	t = &trip{gather(owner.FetchBatch), make(chan struct{}, maxAlone)} //guard:large-values-batch-fetched-once
	p.trips[owner.ID()] = t
	return t
}

// companion is a member as a flight asks it that goes there with others. What it asks after its first question it asks
// alone.
type companion struct {
	Peer
	place *place[Query, Outcome]
	alone chan struct{}
}

// Fetch implements Peer.
func (c companion) Fetch(ctx context.Context, q Query) (Answer, error) {
	o, ok := c.place.ask(ctx, q)
	switch {
	case !ok:
		return c.Peer.Fetch(ctx, q)
	case !o.Alone:
		return o.Answer, o.Err
	}
	select {
	case c.alone <- struct{}{}:
		defer func() { <-c.alone }()
		return c.Peer.Fetch(ctx, q)
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	}
}
