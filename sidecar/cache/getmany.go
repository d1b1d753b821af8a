package cache

import (
	"context"
	"strings"

	"github.com/ringside-cache/ringside/sidecar/internal/batch"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// GetMany answers a read of an application for many keys, in their order. It makes one load of all keys that this member
// owns, and one request to each other member for all keys that it owns. Readers of single keys share these flights.
func (d *Dataset) GetMany(ctx context.Context, keys []string, o kv.ReadOptions, limit kv.BatchLimit) []kv.Result {
	now := d.now()
	b := batch.New(len(keys), limit)
	d.readMissing(ctx, b, func(i int) (*read, kv.Answer) {
		if e := d.hit(keys[i], o, now); e != nil {
			return nil, d.answer(keys[i], e, now, e.Source())
		}
		return d.newRead(strings.Clone(keys[i]), o, now), kv.Answer{}
	}, func(r *read) { _, _ = d.finish(r, o) })
	// Most likely memory has the values that fit and were dropped.
	d.readMissing(ctx, b, func(i int) (*read, kv.Answer) { //guard:value-that-fits-stays-dropped
		return d.newRead(strings.Clone(keys[i]), o, now), kv.Answer{}
	}, func(r *read) { d.check(r, o) })
	results := d.close(b)
	for i, r := range results {
		if r.Err == nil {
			results[i].Err = r.Answer.Err(d.name) // of a hit
		}
		results[i].Err = traced(ctx, results[i].Err)
	}
	return results
}

// ServeMany answers reads of another member, in their order, as Serve does. It makes one load of all keys that need one.
func (d *Dataset) ServeMany(ctx context.Context, qs []kv.Query, limit kv.BatchLimit) []kv.Result {
	now := d.now()
	b := batch.New(len(qs), limit)
	limited, cancel := withGrace(ctx)
	defer cancel()
	d.readMissing(limited, b, func(i int) (r *read, a kv.Answer) {
		if r, a = d.serveHit(qs[i], now); r != nil {
			r.query = &qs[i]
		}
		return r, a
	}, func(r *read) { d.report(*r.query, &r.answer) })
	b.Missing()
	return d.close(b)
}

const (
	// readBytes is what a key of a batch takes while it is read: its read, its copies in lists, and its place among the results;
	// measured: 0.7 KiB. Its flight takes its own.
	readBytes = 768
	// readsTaken is for how many keys memory is taken at a time. Batches of applications have paid for the first ones.
	readsTaken = 10
)

// readMissing reads the keys of b that need an answer. Memory may have the answer at once: then begin returns no read. Where the
// memory does not suffice to read all keys at once, they are read in parts.
func (d *Dataset) readMissing(
	ctx context.Context, b *batch.Results, begin func(i int) (*read, kv.Answer), finish func(*read),
) {
	var reads []*read
	taken := 0 // reads for which there is memory
	resolve := func() {
		d.resolve(ctx, reads)
		b.Return(taken * readBytes)
		reads, taken = nil, 0
	}
	for _, i := range b.Missing() {
		r, a := begin(i)
		if r == nil {
			b.Put(i, a, nil)
			continue
		}
		if len(reads) == taken { //guard:reads-of-a-batch-take-no-memory
			more := b.Take(readsTaken * readBytes)
			if !more && taken > 0 {
				resolve()
				more = b.Take(readsTaken * readBytes)
			}
			if !more {
				b.Refuse(i)
				continue
			}
			taken += readsTaken
		}
		r.done = func() {
			finish(r)
			b.Put(i, r.answer, r.err)
			r.answer = kv.Answer{} // the batch decides whether to hold the value
		}
		reads = append(reads, r)
	}
	resolve()
}

func (d *Dataset) close(b *batch.Results) []kv.Result {
	results, dropped := b.Close()
	d.stats.BatchDropped.Add(dropped)
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
