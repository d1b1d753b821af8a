package cache

import (
	"context"
	"strings"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

// GetMany answers a read of an application for many keys, in their order. It makes one load of all keys that this member
// owns, and one request to each other member for all keys that it owns. Readers of single keys share these flights.
func (d *Dataset) GetMany(ctx context.Context, keys []string, o kv.ReadOptions) []kv.Result {
	results := make([]kv.Result, len(keys))
	now := d.now()
	var reads []*read
	var at []int // :: index in reads → index in keys
	for i, key := range keys {
		if e := d.hit(key, o, now); e != nil {
			results[i].Answer = e.Answer(now, e.Source())
			continue
		}
		reads, at = append(reads, d.newRead(strings.Clone(key), o, now)), append(at, i)
	}
	d.resolve(ctx, reads)
	for i, r := range reads {
		results[at[i]].Answer, results[at[i]].Err = d.finish(r, o)
	}
	return results
}

// ServeMany answers reads of another member, in their order, as Serve does. It makes one load of all keys that need one.
func (d *Dataset) ServeMany(ctx context.Context, qs []kv.Query) []kv.Result {
	results := make([]kv.Result, len(qs))
	now := d.now()
	var reads []*read
	var at []int // :: index in reads → index in qs
	for i, q := range qs {
		r, a, ok := d.serveHit(q, now)
		if ok {
			results[i].Answer = a
			continue
		}
		reads, at = append(reads, r), append(at, i)
	}
	limited, cancel := withGrace(ctx)
	defer cancel()
	d.resolve(limited, reads)
	for i, r := range reads {
		results[at[i]] = kv.Result{Answer: r.answer, Err: r.err}
	}
	return results
}

// withGrace ends before the deadline of ctx, so that one slow key does not make the answers to all others late.
func withGrace(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, deadline.Add(-peerGrace/2)) //guard:slow-key-makes-a-served-batch-late
}
