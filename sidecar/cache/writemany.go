package cache

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/internal/entries"
	"github.com/ringside-cache/ringside/sidecar/internal/flight"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// WriteMany makes at most kv.MaxBatchWrites changes of distinct keys for an application, and returns the result of each, in their
// order: that of Write, without the value. It sends one request to each other member for all keys that it owns, and each owner makes its
// changes in one transaction, of which one that fails does not keep the others from being made.
func (d *Dataset) WriteMany(ctx context.Context, cs []kv.Change) []kv.Result {
	began := d.now()
	mine := make([]kv.Change, len(cs))
	for i, c := range cs {
		c.Dataset, c.Key, c.Value, c.ID = d.name, strings.Clone(c.Key), bytes.Clone(c.Value), strings.Clone(c.ID) // it may outlive the call
		c.If.ETag = strings.Clone(c.If.ETag)
		mine[i] = c
	}
	results := d.writer.results(d.writer.routeMany(ctx, mine), began)
	for i := range results {
		d.stats.CountWrite(results[i].Err)
		results[i].Err = traced(ctx, results[i].Err)
	}
	return results
}

// ServeWriteMany makes changes for another member, in this one, and publishes the invalidations. The results are those of WriteMany.
func (d *Dataset) ServeWriteMany(ctx context.Context, cs []kv.Change) []kv.Result {
	d.stats.WritesServed.Add(int64(len(cs)))
	if err := ctx.Err(); err != nil {
		return slices.Repeat([]kv.Result{{Err: d.lateWrite(err)}}, len(cs))
	}
	return d.writer.results(d.writer.commitMany(ctx, cs), d.now())
}

// attempted is the result of one change of many.
type attempted struct {
	result
	err error
}

func (w *writer) results(all []attempted, began int64) []kv.Result {
	results, now := make([]kv.Result, len(all)), w.now()
	for i, a := range all {
		if results[i].Err = a.err; a.err == nil {
			results[i].Answer = a.answer(began, now)
			results[i].Answer.Value, results[i].Answer.ETag = nil, ""
		}
	}
	return results
}

// routeMany is route for many changes.
func (w *writer) routeMany(ctx context.Context, cs []kv.Change) []attempted {
	return w.flyMany(ctx, w.writes, "batch\x00", cs, 2*(w.commitTimeout()+peerGrace), w.sendMany)
}

// commitMany is commit for many changes.
func (w *writer) commitMany(ctx context.Context, cs []kv.Change) []attempted {
	return w.splitObserved(ctx, cs, func(cs []kv.Change) []attempted {
		return w.flyMany(ctx, w.commits, "", cs, w.commitTimeout(), w.applyMany)
	})
}

// finishOne takes the result of a change of a list.
type finishOne func(i int, res result, err error)

// flyMany is fly for many changes: each has a flight of its own, which concurrent changes with its ID join, and one run makes those of
// all that have none. The results of routed batches have no values, so that their flights have another prefix than those of single
// changes.
func (w *writer) flyMany(ctx context.Context, flights *flight.Group[result], prefix string, cs []kv.Change, timeout time.Duration,
	do func(context.Context, []kv.Change, finishOne)) []attempted {
	all := make([]attempted, len(cs))
	var at []int // those of cs that fly
	var keys []string
	bytes := 0
	for i, c := range cs {
		if all[i].err = w.check(c); all[i].err == nil {
			at, keys, bytes = append(at, i), append(keys, prefix+w.flightKey(c)), bytes+len(c.Value)
		}
	}
	if len(at) == 0 {
		return all
	}
	span := tracing.From(ctx)
	calls := flights.StartSized(keys, int64(bytes/len(at)), timeout, func(ctx context.Context, started []int, finish func(int, result, error)) {
		some := make([]kv.Change, len(started))
		for n, i := range started {
			some[n] = cs[at[i]]
		}
		do(span.Into(ctx), some, func(n int, res result, err error) {
			if err != nil {
				res.digest = some[n].Digest()
			}
			finish(started[n], res, w.classifyWrite(err))
		})
	})
	for n, i := range at {
		res, err := calls[n].Wait(ctx)
		all[i].result, all[i].err = w.outcome(ctx, cs[i], res, err)
	}
	return all
}

// sendMany makes changes through the first of the attempts for each key that can be reached, as route does, with one request to each
// member.
func (w *writer) sendMany(ctx context.Context, cs []kv.Change, finish finishOne) {
	attempts, pending := make([][]kv.Attempt, len(cs)), make([]int, len(cs))
	for i, c := range cs {
		attempts[i], pending[i] = w.peers.Route(w.name, c.Key).Attempts(), i
	}
	for round := 0; len(pending) > 0; round++ {
		var mu sync.Mutex // guards unreached
		var unreached []int
		groups := groupByPeer(pending, func(i int) kv.Peer { return attempts[i][round].Peer })
		flight.Concurrently(len(groups), len(groups), func(g int) {
			group := groups[g]
			some := make([]kv.Change, len(group.at))
			for n, i := range group.at {
				some[n] = cs[i]
				some[n].Failover = attempts[i][round].Failover
			}
			w.through(ctx, group.peer, some, func(n int, res result, err error) {
				i := group.at[n]
				if errors.Is(err, kv.ErrUnreachable) && round+1 < len(attempts[i]) {
					mu.Lock()
					defer mu.Unlock()
					unreached = append(unreached, i)
					return
				}
				finish(i, res, err)
			})
		})
		pending = unreached
	}
}

// peerGroup is the changes, by their indices, that go to one member; nil: this one.
type peerGroup struct {
	peer kv.Peer
	at   []int
}

func groupByPeer(list []int, peerOf func(i int) kv.Peer) (groups []peerGroup) {
	index := map[string]int{} // :: node id → index in groups
	for _, i := range list {
		peer, id := peerOf(i), ""
		if peer != nil {
			id = peer.ID()
		}
		g, ok := index[id]
		if !ok {
			g = len(groups)
			index[id], groups = g, append(groups, peerGroup{peer: peer})
		}
		groups[g].at = append(groups[g].at, i)
	}
	return groups
}

// through makes changes in this member, if peer is nil, or has the member make them.
func (w *writer) through(ctx context.Context, peer kv.Peer, cs []kv.Change, finish finishOne) {
	switch {
	case peer == nil:
		for i, a := range w.commitMany(ctx, cs) {
			finish(i, a.result, a.err)
		}
		return
	case len(cs) == 1 && !isObservation(cs[0]): // members of every release make it, and answer with the value
		res, err := w.send(ctx, peer, cs[0])
		finish(0, res, err)
		return
	}
	span := w.requestSpan(ctx, "write to", peer)
	sent := w.now()
	outcomes := peer.WriteMany(span.Into(ctx), cs)
	span.End()
	var alone []int
	for i, o := range outcomes {
		switch {
		case o.Alone:
			alone = append(alone, i)
		case errors.Is(o.Err, kv.ErrUnreachable):
			finish(i, result{}, o.Err)
		case o.Err != nil:
			w.failed(cs[i].Key, kv.KindOf(o.Err), w.commitTimeout()) //guard:uncertain-row-of-a-batch-is-not-invalidated
			finish(i, result{}, o.Err)
		default:
			w.invalidator.apply(kv.Invalidation{Dataset: w.name, Key: cs[i].Key, Version: o.Answer.Version}) //guard:row-of-a-batch-is-read-as-before
			e := entries.FromPeer(w.Policy(), o.Answer, peer.ID(), w.Policy().LocalTTL, sent, w.now())
			finish(i, result{entry: e, source: kv.SourceLoad, asOf: e.Began, digest: cs[i].Digest()}, nil)
		}
	}
	flight.Concurrently(len(alone), maxAlone, func(n int) {
		res, err := w.send(ctx, peer, cs[alone[n]])
		finish(alone[n], res, err)
	})
}

// applyMany makes changes in the origin, in one transaction if it can, and makes their results what is cached.
func (w *writer) applyMany(ctx context.Context, cs []kv.Change, finish finishOne) {
	changes, ended := make([]origin.Change, len(cs)), make([]bool, len(cs))
	resolve := func(i int) {
		var err error
		if changes[i], err = w.resolve(ctx, cs[i]); err != nil {
			ended[i] = true
			finish(i, result{}, err)
		}
	}
	var loads []int // those whose conditions need a load
	for i, c := range cs {
		if res, ok := w.outcomes.Get(c.ID, w.now()); ok { //guard:retried-row-of-a-batch-is-written-again
			ended[i] = true
			finish(i, res, nil)
		} else if c.If.ETag != "" {
			loads = append(loads, i)
		} else {
			resolve(i)
		}
	}
	flight.Concurrently(len(loads), maxAlone, func(n int) { resolve(loads[n]) })
	var at []int // those of cs that are made
	var some []origin.Change
	var tickets []entries.Ticket
	for i := range cs {
		if !ended[i] {
			at, some, tickets = append(at, i), append(some, changes[i]), append(tickets, w.store.Begin(cs[i].Key, entries.Commit))
		}
	}
	if len(at) == 0 {
		return
	}
	for n, r := range w.changeMany(ctx, some) {
		res, err := w.applied(cs[at[n]], tickets[n], r.Value, r.Err)
		finish(at[n], res, err)
	}
}

func (w *writer) changeMany(ctx context.Context, cs []origin.Change) []origin.Result {
	ctx, cancel := context.WithTimeout(ctx, w.Policy().WriteTimeout)
	defer cancel()
	ctx, end := w.measure(ctx)
	results := w.origin.WriteMany(ctx, cs)
	end(nil)
	return results
}
