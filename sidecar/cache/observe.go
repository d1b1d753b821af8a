package cache

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/entries"
	"github.com/ringside-cache/ringside/sidecar/internal/newest"
	"github.com/ringside-cache/ringside/sidecar/internal/ttlmap"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

const (
	// observedLife is how long the time of the newest observation of a key is remembered: longer than exporters retry (five minutes
	// by default), and than clocks differ.
	observedLife = 10 * time.Minute
	// maxObservedBytes and observedShare bound the memory of these times, of each of two generations.
	maxObservedBytes, observedShare = 4 << 20, 32
	observedOverhead                = 64 // beside a key
)

// observations are the newest observations that were written here. They are safe for concurrent use.
type observations struct {
	mu   sync.Mutex // guards last
	last *ttlmap.Map[observation]
}

// observation is one that was written.
type observation struct{ at, version int64 }

func newObservations(datasetBytes int64) *observations {
	bytes := min(datasetBytes/observedShare, maxObservedBytes)
	return &observations{last: ttlmap.New[observation](int(bytes/observedOverhead), int(bytes))}
}

func (o *observations) get(key string, now int64) (observation, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last.Get(key, now)
}

func (o *observations) put(key string, written observation, now int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last.Put(key, written, len(key)+observedOverhead, now, int64(observedLife))
}

// observe makes observations here: of each key the newest one, and none that is older than what was written in the last minutes.
func (w *writer) observe(ctx context.Context, cs []kv.Change) []attempted {
	all, err := w.observed.Do(ctx, cs)
	switch {
	case err == nil:
		return all
	case errors.Is(err, newest.ErrFull):
		err = &kv.Error{Kind: kv.KindOverloaded, RetryAfter: retryAfter, Err: err}
	default:
		err = w.unknown(err)
	}
	return slices.Repeat([]attempted{{err: err}}, len(cs))
}

// writeObserved writes the observations that are newer than what was written.
func (w *writer) writeObserved(ctx context.Context, cs []kv.Change) []attempted {
	all := make([]attempted, len(cs))
	var at []int // those of cs that are newer
	var some []kv.Change
	for i, c := range cs {
		if last, ok := w.observations.get(c.Key, w.now()); ok && last.at >= c.Observed { //guard:old-observation-replaces-a-newer-row
			w.stats.Superseded.Add(1)
			all[i].result = result{entry: &entries.Entry{Version: last.version, Began: w.now(), Seen: w.now()}, source: kv.SourceLoad}
			continue
		}
		at, some = append(at, i), append(some, c)
	}
	if len(some) == 0 {
		return all
	}
	for n, a := range w.flyMany(ctx, w.commits, "", some, w.commitTimeout(), w.applyMany) {
		all[at[n]] = a
		if a.err == nil {
			w.observations.put(some[n].Key, observation{some[n].Observed, a.result.entry.Version}, w.now())
		}
	}
	return all
}

func isObservation(c kv.Change) bool { return c.Observed != 0 }

// splitObserved makes the observations among changes, and the others.
func (w *writer) splitObserved(ctx context.Context, cs []kv.Change, others func([]kv.Change) []attempted) []attempted {
	if !slices.ContainsFunc(cs, isObservation) {
		return others(cs)
	}
	all := make([]attempted, len(cs))
	var at [2][]int // of the others, and of the observations
	var of [2][]kv.Change
	for i, c := range cs {
		n := 0
		if isObservation(c) {
			n = 1
		}
		at[n], of[n] = append(at[n], i), append(of[n], c)
	}
	put := func(n int, results []attempted) {
		for i, a := range results {
			all[at[n][i]] = a
		}
	}
	if len(of[0]) > 0 {
		put(0, others(of[0]))
	}
	put(1, w.observe(ctx, of[1]))
	return all
}
