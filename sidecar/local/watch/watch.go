// Package watch is the one engine of watches: it sends a client the states of some keys, and then each change. HTTP and
// gRPC write its events in their own formats (see Sink).
package watch

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/watches"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// MaxKeys is how many keys one watch may have.
const MaxKeys = 100

const (
	// watchBytes is what a watch takes from the budget: goroutines, buffers and the values of small events. keyBytes is what
	// each key takes in addition to itself: what the client knows of it, and its places in maps. Measured with 200 watches
	// of 100 keys, and rounded up.
	watchBytes, keyBytes = 24 << 10, 700
	// prepaidBytes is the size of the values that watchBytes includes.
	prepaidBytes = 4 << 10
	// maxBytes is the size of the values that one watch holds at once, except for a single larger one.
	maxBytes = 256 << 10
	// minReread is the least time between two reads of a key for which no change was announced.
	minReread = 100 * time.Millisecond
	// maxRetry is the longest time until a key that could not be read is read again.
	maxRetry = 5 * time.Second
	// minInterval is the time between two rounds of events: a key that is written all the time must not occupy a processor
	// for each of its watches.
	minInterval = 5 * time.Millisecond
	// heartbeat is how often a sink shows its client that the watch is alive.
	heartbeat = 15 * time.Second
)

// EventKind is the kind of an Event.
type EventKind uint8

// The kinds of events.
const (
	State   EventKind = iota // the state of one key
	Current                  // the states of all keys have been sent
	Reset                    // earlier events may be outdated; the states of all keys follow
)

// Event is one message to a client.
type Event struct {
	Kind   EventKind
	Key    string    // of State
	Result kv.Result // of State
	Token  string    // identifies everything that the client knows after this event
}

// Sink writes the events of one watch in the format of its protocol. An error ends the watch.
type Sink interface {
	Send(e Event) error
	// Heartbeat shows the client that the watch is alive.
	Heartbeat() error
}

// Engine bounds the open watches of a server.
type Engine struct {
	backend    *api.Backend
	maxDeleted int // maxDeleted, except in tests

	mu      sync.Mutex // guards stopped and sets
	stopped bool
	sets    map[setName]*set
	open    sync.WaitGroup // open watches; Add only under mu while !stopped
}

var errStopping = &kv.Error{Kind: kv.KindCanceled, Err: errors.New("the sidecar is stopping")}

// NewEngine returns an Engine for the datasets of backend.
func NewEngine(backend *api.Backend) *Engine {
	return &Engine{backend: backend, maxDeleted: maxDeleted, sets: map[setName]*set{}}
}

// Open counts a watch, or returns an error if no further one may be open. Close ends it.
func (e *Engine) Open() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped {
		return errStopping
	}
	stats := e.backend.Stats()
	if n := stats.Watches.Load(); n >= int64(e.backend.Config().MaxWatches) { //guard:watches-without-bound
		stats.WatchesRefused.Add(1)
		return &kv.Error{Kind: kv.KindOverloaded, RetryAfter: maxRetry, Err: fmt.Errorf(
			"%d watches are open, which is the limit; watch many keys with one", n)}
	}
	stats.Watches.Add(1)
	e.open.Add(1)
	return nil
}

// Close ends the count of a watch.
func (e *Engine) Close() {
	e.backend.Stats().Watches.Add(-1)
	e.open.Done()
}

// Stop refuses further watches.
func (e *Engine) Stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopped = true
}

// Wait waits for the end of all watches, after Stop.
func (e *Engine) Wait() { e.open.Wait() }

// fingerprint stands for the state of a key, or, combined with others, for the states of all.
type fingerprint [16]byte

func (f *fingerprint) replace(old, current fingerprint) {
	for i := range f {
		f[i] ^= old[i] ^ current[i]
	}
}

// Watch sends one client the states of some keys. It is level-triggered: a notification says that a key may have changed;
// the watch reads the key, and sends the state if it is not the one that the client knows. However many changes occur
// while the client is slow, the watch holds only a few states.
type Watch struct {
	reader
	keys   []string // distinct
	resume string   // the token of an earlier watch; empty if there was none

	memory budget.Loan             // of the watch, without the values that it reads
	known  map[string]*clientState // by key
	sum    fingerprint             // of known: each key counts once
}

// clientState is what a client knows of one key.
type clientState struct {
	state    fingerprint
	failing  bool      // the last event was an error
	failures int       // since the last successful read
	due      time.Time // when to read the key again
}

// New returns a watch of distinct keys. resume is the token of an earlier watch, or empty.
func (e *Engine) New(d api.Served, keys []string, resume string) *Watch {
	w := &Watch{
		reader: reader{backend: e.backend, dataset: d}, keys: keys, resume: resume, memory: e.backend.Config().Budget.Loan(budget.Watches),
	}
	w.reset()
	return w
}

// While ends the watch when permit returns an error: its client may no longer read the dataset. It returns w.
func (w *Watch) While(permit func() error) *Watch {
	w.permit = permit
	return w
}

// reset assumes that the client knows nothing.
func (w *Watch) reset() {
	w.known, w.sum = make(map[string]*clientState, len(w.keys)), fingerprint{}
	for _, key := range w.keys {
		k := &clientState{state: newFingerprint(w.dataset.Name(), key, "unknown")}
		w.sum.replace(fingerprint{}, k.state)
		w.known[key] = k
	}
}

// newFingerprint returns that of a state: an ETag, or a word, which without quotes is never an ETag.
func newFingerprint(dataset, key, state string) (f fingerprint) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %s", dataset, key, state))
	copy(f[:], sum[:])
	return f
}

// fingerprintOf returns that of a state that was read.
func fingerprintOf(dataset, key string, r kv.Result) fingerprint {
	state := r.Answer.ETag
	switch {
	case r.Answer.NotFound:
		state = "absent"
	case r.Answer.DataError != 0:
		state = "data-error"
	}
	return newFingerprint(dataset, key, state)
}

// token identifies everything that the client knows. It is the same on every sidecar, because ETags are.
func (w *Watch) token() string { return base64.RawURLEncoding.EncodeToString(w.sum[:]) }

// Reserve takes the memory of the watch, so that it can be refused before its response begins. Release returns it; Run does
// both.
func (w *Watch) Reserve() error {
	need := int64(watchBytes)
	for _, key := range w.keys {
		need += keyBytes + int64(len(key))
	}
	if more := need - w.memory.Bytes(); more > 0 && !w.memory.Grow(more) { //guard:watches-take-no-memory
		w.backend.Stats().WatchesRefused.Add(1)
		return kv.ErrNoMemory
	}
	return nil
}

// Release returns the memory of the watch. It may be called again.
func (w *Watch) Release() { w.memory.Close() }

// Run serves the watch until ctx ends, which is not an error, or until the sink fails.
func (w *Watch) Run(ctx context.Context, to Sink) error {
	defer w.Release()
	if err := w.Reserve(); err != nil {
		return err
	}
	err := w.follow(ctx, to, w.sendAll)
	for err == errReplaced {
		err = w.replace(ctx, to)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// follow sends the states of all keys with first, and then each change.
func (w *Watch) follow(ctx context.Context, to Sink, first func(context.Context, Sink) error) error {
	changes := w.dataset.Watch(w.keys)
	defer changes.Close()
	if err := first(ctx, to); err != nil {
		return err
	}
	return w.sendChanges(ctx, to, changes)
}

// errReplaced means that the configuration has changed the rows of the dataset, or removed it.
var errReplaced = errors.New("the dataset was replaced")

// replace follows the dataset that has the same name now.
func (w *Watch) replace(ctx context.Context, to Sink) error {
	d, err := w.backend.Dataset(w.dataset.Name())
	if err != nil {
		return err
	}
	w.dataset = d
	return w.follow(ctx, to, w.sendAgain)
}

// sendAgain sends the states of all keys to a client that knows those of other rows.
func (w *Watch) sendAgain(ctx context.Context, to Sink) error {
	w.reset()
	err := w.send(to, Event{Kind: Reset})
	if err == nil {
		err = w.refresh(ctx, to, w.keys)
	}
	if err == nil {
		err = w.send(to, Event{Kind: Current})
	}
	return err
}

// sendAll sends the states of all keys, unless the client knows them all.
func (w *Watch) sendAll(ctx context.Context, to Sink) error {
	if w.resume != "" {
		if err := w.read(ctx, w.keys, w.learn); err != nil {
			return err
		}
		if w.token() == w.resume {
			return w.send(to, Event{Kind: Current})
		}
		return w.sendAgain(ctx, to)
	}
	if err := w.refresh(ctx, to, w.keys); err != nil {
		return err
	}
	return w.send(to, Event{Kind: Current})
}

// learn assumes that the client knows the state of a key.
func (w *Watch) learn(key string, r kv.Result) error {
	if isState(r) {
		w.update(key, r)
	}
	w.known[key].schedule(r)
	return nil
}

// sendChanges sends changes as they occur.
func (w *Watch) sendChanges(ctx context.Context, to Sink, changes *watches.Watch) error {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		due.Reset(time.Until(w.nextDue()))
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changes.Ready():
			if changes.Ended() { //guard:watch-of-a-removed-dataset-stays-open
				return errReplaced
			}
			err = w.refresh(ctx, to, changes.Take())
		case <-due.C:
			err = w.refresh(ctx, to, w.dueKeys()) //guard:watch-misses-unannounced-change
		case <-beat.C:
			err = to.Heartbeat()
		}
		if err != nil {
			return err
		}
		if !backoff.Sleep(ctx, minInterval) { //guard:watch-of-hot-key-occupies-processor
			return ctx.Err()
		}
	}
}

func (w *Watch) nextDue() (next time.Time) {
	for _, k := range w.known {
		if next.IsZero() || k.due.Before(next) {
			next = k.due
		}
	}
	return next
}

func (w *Watch) dueKeys() (keys []string) {
	now := time.Now()
	for key, k := range w.known {
		if !k.due.After(now) {
			keys = append(keys, key)
		}
	}
	return keys
}

// refresh reads keys and sends what the client does not know.
func (w *Watch) refresh(ctx context.Context, to Sink, keys []string) error {
	return w.read(ctx, keys, func(key string, r kv.Result) error {
		k := w.known[key]
		k.schedule(r)
		changed := !k.failing //guard:error-sent-at-each-retry
		if isState(r) {
			changed = w.update(key, r) || k.failing //guard:recovery-not-sent
		}
		k.failing = !isState(r)
		if !changed {
			return nil
		}
		return w.send(to, Event{Kind: State, Key: key, Result: r})
	})
}

// update records r as the state of key that the client knows, and reports whether that is new to it.
func (w *Watch) update(key string, r kv.Result) (changed bool) {
	k, current := w.known[key], fingerprintOf(w.dataset.Name(), key, r)
	if current == k.state {
		return false
	}
	w.sum.replace(k.state, current) //guard:token-does-not-change
	k.state = current
	return true
}

func (w *Watch) send(to Sink, e Event) error {
	e.Token = w.token()
	w.backend.Stats().WatchEvents.Add(1)
	return to.Send(e)
}

// isState reports whether r is a state of the key, which lasts until it changes: a value, absence or a data error.
func isState(r kv.Result) bool {
	return r.Err == nil || r.Answer.DataError != 0 //guard:data-error-hidden-by-an-outage
}

// schedule sets when to read the key again: at the end of its freshness, so that the watch sees a change even if nothing
// announces it, and at growing intervals while the read fails.
func (k *clientState) schedule(r kv.Result) {
	wait := max(r.Answer.Fresh, minReread) //guard:rereads-without-bound
	k.failures++
	switch {
	case !isState(r) || r.Answer.Stale: //guard:stale-answers-reread-without-backoff
		wait = max(kv.RetryAfter(r.Err), min(minReread<<min(k.failures, 10), maxRetry))
	default:
		k.failures = 0
	}
	k.due = time.Now().Add(wait + rand.N(minReread))
}

// CheckKeys returns the distinct keys of a watch, or an error unless they can be watched.
func CheckKeys(keys []string) (distinct []string, err error) {
	seen := make(map[string]bool, len(keys))
	for i, key := range keys {
		if err := kv.CheckKey(key); err != nil {
			return nil, fmt.Errorf("key %d: %w", i, err)
		}
		if !seen[key] {
			distinct = append(distinct, key)
		}
		seen[key] = true
	}
	if len(distinct) == 0 || len(distinct) > MaxKeys {
		return nil, fmt.Errorf("a watch has 1 to %d keys, not %d", MaxKeys, len(distinct))
	}
	return distinct, nil
}
