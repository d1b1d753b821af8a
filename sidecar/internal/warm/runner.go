package warm

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/internal/lru"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

const (
	// settle is how long changes are collected: a new ring and a feed that becomes live come in bursts.
	settle = 200 * time.Millisecond
	// listTimeout bounds one list of keys.
	listTimeout = time.Minute
	// keyBytes is less than an entry takes: more keys than MaxBytes/keyBytes never fit.
	keyBytes = 256
	// fullPercent is the part of a dataset's memory that the warm-up fills: the rest is for what is read.
	fullPercent = 90
)

// State says what a key needs.
type State uint8

// The states.
const (
	Warm    State = iota // it has a recent entry, or another member owns it
	Ageing               // its entry is to be loaded again
	Missing              // it has no entry
)

// Dataset is a dataset to keep warm. *cache.Dataset is one.
type Dataset interface {
	// WarmState returns what key needs if entries older than age are to be loaded again. Owned is false for the keys of others.
	WarmState(key string, age time.Duration) (state State, owned bool)
	// LoadWarm loads keys from o into memory, and returns how many have a value or were found to have none.
	LoadWarm(ctx context.Context, o origin.Origin, keys []string, pin bool) (loaded int, err error)
	Memory() lru.Stats
	Stats() *kv.Stats
}

// Config is what a Runner is made of.
type Config struct {
	Dataset Dataset
	Work    *Work
	Origin  origin.Origin    // loads keys, without a budget
	Keys    origin.KeyLister // lists them, without a budget
	// Turn waits until the origin has nothing better to do. One statement may follow.
	Turn func(ctx context.Context) (leave func(), err error)
	// Batch is the number of keys of one load.
	Batch int
	// Interval is the time between two lists. An entry that is older than half of it is loaded again.
	Interval time.Duration
	// Pin keeps the entries from being evicted by others.
	Pin bool
	// Done is called at the end of each list.
	Done func(Pass)
}

// Pass is one list of all keys and its loads.
type Pass struct {
	Keys    int // that this member owns
	Loaded  int
	Omitted int // not loaded because there was no memory
	Took    time.Duration
	Err     error
}

// Runner keeps one dataset warm.
type Runner struct{ Config }

// New returns a Runner that does nothing until Run.
func New(c Config) *Runner { return &Runner{c} }

// Run loads what is to be loaded until ctx is done.
func (r *Runner) Run(ctx context.Context) error {
	retry := backoff.Backoff{First: time.Second, Longest: 30 * time.Second}
	r.Work.enabled.Store(true)
	defer func() {
		r.Work.enabled.Store(false)
		r.Dataset.Stats().WarmKeys.Store(0)
		r.Dataset.Stats().WarmOmitted.Store(0)
	}()
	r.Work.Everything()
	timer := time.NewTimer(r.Interval)
	defer timer.Stop()
	for {
		due := false
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
			due = true
		case <-r.Work.wake:
		}
		if !backoff.Sleep(ctx, settle) {
			return nil
		}
		keys, all := r.Work.take()
		err := r.do(ctx, keys, all || due)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			if !retry.Wait(ctx) {
				return nil
			}
			r.Work.Everything() //guard:failed-warm-up-is-not-repeated
		case all || due:
			retry.Reset()
			timer.Reset(r.Interval - rand.N(r.Interval/10+1)) // members do not list at the same time
		}
	}
}

func (r *Runner) do(ctx context.Context, keys []string, all bool) error {
	if !all {
		pass := Pass{}
		return r.load(ctx, keys, &pass)
	}
	began := time.Now()
	pass := r.pass(ctx)
	pass.Took = time.Since(began)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	stats := r.Dataset.Stats()
	if pass.Err != nil {
		stats.WarmFailures.Add(1)
	} else {
		stats.WarmKeys.Store(int64(pass.Keys))
		stats.WarmOmitted.Store(int64(pass.Omitted))
		stats.WarmPasses.Add(1)
	}
	r.Done(pass)
	return pass.Err
}

// pass lists all keys, and loads those that need it.
func (r *Runner) pass(ctx context.Context) (pass Pass) {
	keys, err := r.list(ctx, &pass)
	if err == nil {
		err = r.load(ctx, keys, &pass)
	}
	pass.Err = err
	return pass
}

// list returns the keys of this member that need a load. It holds no more of them than fit into the dataset's memory.
func (r *Runner) list(ctx context.Context, pass *Pass) (keys []string, err error) {
	leave, err := r.Turn(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	seen, most := map[string]bool{}, int(r.Dataset.Memory().MaxBytes/keyBytes)
	err = r.Keys.ListKeys(ctx, "", func(key string) bool {
		if _, owned := r.Dataset.WarmState(key, r.Interval/2); !owned || seen[key] {
			return true
		}
		if len(seen) == most { //guard:list-fills-the-memory
			pass.Omitted++ // at least one
			return false
		}
		seen[key] = true
		return true
	})
	pass.Keys = len(seen)
	for key := range seen {
		keys = append(keys, key)
	}
	return keys, err
}

// load loads those of keys that need it. Where the memory is full, it loads only those that have an entry.
func (r *Runner) load(ctx context.Context, keys []string, pass *Pass) error {
	var errs []error
	for len(keys) > 0 {
		n := min(len(keys), r.Batch, r.room())
		err := r.loadPart(ctx, keys[:n], pass)
		keys = keys[n:]
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			errs = append(errs, err)
		}
		if len(errs) == maxFailedLoads {
			break
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("%d keys were loaded, and %d loads failed: %w", pass.Loaded, len(errs), errs[0])
	}
	return nil
}

// maxFailedLoads is how many loads of a list may fail before the rest is left to the next list.
const maxFailedLoads = 3

func (r *Runner) loadPart(ctx context.Context, keys []string, pass *Pass) error {
	leave, err := r.Turn(ctx)
	if err != nil {
		return err
	}
	defer leave()
	var due []string
	full := r.full()
	for _, key := range keys {
		state, owned := r.Dataset.WarmState(key, r.Interval/2) // it may have been read since the list
		switch {
		case !owned || state == Warm:
		case state == Missing && full: //guard:warm-up-evicts-what-is-read
			pass.Omitted++
		default:
			due = append(due, key)
		}
	}
	if len(due) == 0 {
		return nil
	}
	loaded, err := r.Dataset.LoadWarm(ctx, r.Origin, due, r.Pin)
	pass.Loaded += loaded
	r.Dataset.Stats().WarmLoaded.Add(int64(loaded))
	return err
}

// full reports whether new entries would evict others. Pinned ones may evict those that are not.
func (r *Runner) full() bool { return r.free() <= 0 }

func (r *Runner) free() int64 {
	m := r.Dataset.Memory()
	used := m.Bytes
	if r.Pin {
		used = m.Pinned
	}
	return m.MaxBytes/100*fullPercent - used
}

// room is how many keys may be loaded at once: as many as entries of average size fit, and one to learn the size.
func (r *Runner) room() int {
	m := r.Dataset.Memory()
	switch {
	case m.Entries == 0:
		return 1
	case r.full(): // nothing new is loaded
		return r.Batch
	}
	return int(max(1, r.free()/max(1, m.Bytes/int64(m.Entries))))
}
