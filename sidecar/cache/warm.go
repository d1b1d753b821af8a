package cache

import (
	"context"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/internal/entries"
	"github.com/ringside-cache/ringside/sidecar/internal/warm"
)

// Work returns what is to be loaded before it is read.
func (d *Dataset) Work() *warm.Work { return d.warm }

// WarmState implements warm.Dataset.
func (d *Dataset) WarmState(key string, age time.Duration) (state warm.State, owned bool) {
	if d.peers.Route(d.name, key).Owner != nil {
		return warm.Warm, false
	}
	now := d.now()
	switch e, ok := d.store.Peek(key); {
	case !ok || e.Local() || e.Negative():
		return warm.Missing, true
	case e.Expired() || now-e.Began >= int64(age): //guard:expired-entry-counts-as-warm
		return warm.Ageing, true
	}
	return warm.Warm, true
}

// LoadWarm implements warm.Dataset. Readers do not join these loads, which may wait for a turn that nobody else needs.
func (d *Dataset) LoadWarm(ctx context.Context, o origin.Origin, keys []string, pin bool) (loaded int, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.Policy().LoadTimeout)
	defer cancel()
	tickets := make([]entries.Ticket, len(keys))
	for i, key := range keys {
		tickets[i] = d.store.Begin(key, entries.Load)
	}
	err = origin.LoadEach(ctx, o, keys, func(i int, r origin.Result) {
		if !r.IsAnswer() {
			return // an error of this row alone
		}
		p := d.Policy()
		e := entries.FromLoad(p, r, tickets[i].Began, d.now(), entries.WarmUp, d.settled.InGap(p))
		e.Pinned = pin && !e.Negative()
		tickets[i].Put(e)
		loaded++
	})
	if err != nil {
		err = d.fetcher.classify(err)
	}
	return loaded, err
}
