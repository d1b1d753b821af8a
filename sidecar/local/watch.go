package local

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ringside-cache/ringside/sidecar/cache"
)

// MaxWatchKeys bounds the keys of one watch.
const MaxWatchKeys = 100

const (
	// watchBytes bounds the values that one watch holds at once, but for a single one that is larger.
	watchBytes = 256 << 10
	// soonestReread is how often a key is read at most without having been told that it may have changed.
	soonestReread = 100 * time.Millisecond
	// longestRetry bounds the time after which a key that could not be read is tried again.
	longestRetry = 5 * time.Second
	// breath is the time between two looks at what has changed: a key that is written all the time must not take a
	// processor for each of its watches.
	breath = 5 * time.Millisecond
	// heartbeat is how often a client is shown that its watch is alive.
	heartbeat = 15 * time.Second
)

// eventKind is what an event says.
type eventKind uint8

const (
	eventState   eventKind = iota // the state of one key
	eventCurrent                  // every state has been told
	eventReset                    // what was told before this watch may be outdated; every state follows
)

// event is one thing that a client is told.
type event struct {
	kind    eventKind
	key     string  // of eventState
	outcome outcome // of eventState
	token   string  // of all that the client knows with this event
}

// audience takes the events of a watch, in the form of its protocol. An error ends the watch.
type audience interface {
	tell(e event) error
	// beat shows the client that the watch is alive.
	beat() error
}

// fingerprint stands for the state of a key, or with those of others combined for theirs.
type fingerprint [16]byte

func (f *fingerprint) swap(old, now fingerprint) {
	for i := range f {
		f[i] ^= old[i] ^ now[i]
	}
}

// watch tells one client the states of some keys, and then each change. It is level-triggered: what it is told is that
// a key may have changed; it reads the key, and tells what is not what the client knows. However many changes come
// while the client is slow, it holds a few states.
type watch struct {
	server  *Server
	dataset Served
	keys    []string // distinct
	resume  string   // the token of an earlier watch; empty for none

	known map[string]*knowledge // by key
	sum   fingerprint           // of known; each key's counts once
}

// knowledge is what a client knows of one key.
type knowledge struct {
	state    fingerprint
	failing  bool      // it was told that the key can not be read, and nothing since
	failures int       // since the last good read
	due      time.Time // when to read the key again
}

func (s *Server) newWatch(d Served, keys []string, resume string) *watch {
	w := &watch{server: s, dataset: d, keys: keys, resume: resume}
	w.forget()
	return w
}

// forget makes w know that the client knows nothing.
func (w *watch) forget() {
	w.known, w.sum = make(map[string]*knowledge, len(w.keys)), fingerprint{}
	for _, key := range w.keys {
		k := &knowledge{state: w.print(key, "unknown")}
		w.sum.swap(fingerprint{}, k.state)
		w.known[key] = k
	}
}

// print is the fingerprint of a state: an ETag, or a word that can be none because it is not in quotes.
func (w *watch) print(key, state string) (f fingerprint) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %s", w.dataset.Name(), key, state))
	copy(f[:], sum[:])
	return f
}

// token names all that the client knows. It is the same on every sidecar, because ETags are.
func (w *watch) token() string { return base64.RawURLEncoding.EncodeToString(w.sum[:]) }

// run serves the watch until ctx is done, which is no error, or the client can not be told any more.
func (w *watch) run(ctx context.Context, to audience) error {
	changes := w.dataset.Watch(w.keys)
	defer changes.Close()
	if err := w.begin(ctx, to); err != nil {
		return ended(ctx, err)
	}
	return ended(ctx, w.follow(ctx, to, changes))
}

// ended returns nil for an error that came of the end of ctx.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// begin tells every state, unless the client knows them all.
func (w *watch) begin(ctx context.Context, to audience) error {
	if w.resume != "" {
		if err := w.read(ctx, w.keys, w.learn); err != nil {
			return err
		}
		if w.token() == w.resume {
			return w.tell(to, event{kind: eventCurrent})
		}
		w.forget()
		if err := w.tell(to, event{kind: eventReset}); err != nil {
			return err
		}
	}
	if err := w.refresh(ctx, to, w.keys); err != nil {
		return err
	}
	return w.tell(to, event{kind: eventCurrent})
}

// learn assumes that the client knows the state of a key.
func (w *watch) learn(key string, o outcome) error {
	if o.err == nil {
		w.update(key, o)
	}
	w.known[key].schedule(o)
	return nil
}

// follow tells changes as they come.
func (w *watch) follow(ctx context.Context, to audience, changes *cache.Watch) error {
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
			err = w.refresh(ctx, to, changes.Take())
		case <-due.C:
			err = w.refresh(ctx, to, w.dueKeys()) //guard:watch-never-sees-untold-change
		case <-beat.C:
			err = to.beat()
		}
		if err == nil {
			err = pause(ctx, breath) //guard:hot-keys-watch-takes-processor
		}
		if err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func (w *watch) nextDue() (next time.Time) {
	for _, k := range w.known {
		if next.IsZero() || k.due.Before(next) {
			next = k.due
		}
	}
	return next
}

func (w *watch) dueKeys() (keys []string) {
	now := time.Now()
	for key, k := range w.known {
		if !k.due.After(now) {
			keys = append(keys, key)
		}
	}
	return keys
}

// refresh reads keys and tells what the client does not know of them.
func (w *watch) refresh(ctx context.Context, to audience, keys []string) error {
	return w.read(ctx, keys, func(key string, o outcome) error {
		k := w.known[key]
		k.schedule(o)
		news := !k.failing //guard:error-told-each-retry-watch
		if o.err == nil {
			news = w.update(key, o) || k.failing //guard:watch-does-tell-key-back
		}
		k.failing = o.err != nil
		if !news {
			return nil
		}
		return w.tell(to, event{kind: eventState, key: key, outcome: o})
	})
}

// update makes o what the client knows of key, and reports whether it was not.
func (w *watch) update(key string, o outcome) (news bool) {
	state := "absent"
	if !o.answer.NotFound {
		state = o.answer.ETag
	}
	k, now := w.known[key], w.print(key, state)
	if now == k.state {
		return false
	}
	w.sum.swap(k.state, now) //guard:token-watch-stays
	k.state = now
	return true
}

func (w *watch) tell(to audience, e event) error {
	e.token = w.token()
	w.server.stats.WatchEvents.Add(1)
	return to.tell(e)
}

// schedule says when to read the key again: when what was read is no longer fresh, so that a change is seen then even
// if nobody tells of it; later and later while it can not be read.
func (k *knowledge) schedule(o outcome) {
	wait := max(o.answer.Fresh, soonestReread) //guard:watch-rereads-without-bound
	k.failures++
	switch {
	case o.err != nil || o.answer.Stale: //guard:watch-stale-answers-spins
		wait = max(cache.RetryAfter(o.err), min(soonestReread<<min(k.failures, 10), longestRetry))
	default:
		k.failures = 0
	}
	k.due = time.Now().Add(wait + rand.N(soonestReread))
}

// read visits what keys are now, a few values at a time. It returns visit's error, or that of ctx.
func (w *watch) read(ctx context.Context, keys []string, visit func(key string, o outcome) error) error {
	for len(keys) > 0 {
		outcomes := w.readSome(ctx, keys)
		if err := ctx.Err(); err != nil {
			return err // what was read says nothing about the keys
		}
		var rest []string
		for i, o := range outcomes {
			if errors.Is(o.err, errBatchBytes) {
				rest = append(rest, keys[i])
			} else if err := visit(keys[i], o); err != nil {
				return err
			}
		}
		keys = rest
	}
	return nil
}

func (w *watch) readSome(ctx context.Context, keys []string) []outcome {
	limit, cancel := context.WithTimeout(ctx, w.server.config.RequestTimeout)
	defer cancel()
	return w.server.readUpTo(limit, w.dataset, keys, cache.ReadOptions{}, watchBytes)
}

// beginWatch counts a watch, or says why there can not be another one. endWatch ends it.
func (s *Server) beginWatch() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return &cache.Error{Kind: cache.KindCanceled, Err: errors.New("the sidecar is stopping")}
	}
	if n := s.stats.Watches.Load(); n >= int64(s.config.MaxWatches) { //guard:watches-without-bound
		s.stats.WatchesRefused.Add(1)
		return &cache.Error{Kind: cache.KindOverloaded, RetryAfter: longestRetry, Err: fmt.Errorf(
			"%d watches are open, and no more are allowed; watch many keys with one", n)}
	}
	s.stats.Watches.Add(1)
	s.watches.Add(1)
	return nil
}

func (s *Server) endWatch() {
	s.stats.Watches.Add(-1)
	s.watches.Done()
}

// checkWatchKeys returns the distinct ones of the keys of a watch, or what is wrong with them.
func checkWatchKeys(keys []string) (distinct []string, err error) {
	seen := make(map[string]bool, len(keys))
	for i, key := range keys {
		if err := checkKey(key); err != nil {
			return nil, fmt.Errorf("key %d: %w", i, err)
		}
		if !seen[key] {
			distinct = append(distinct, key)
		}
		seen[key] = true
	}
	if len(distinct) == 0 || len(distinct) > MaxWatchKeys {
		return nil, fmt.Errorf("a watch has 1 to %d keys, not %d", MaxWatchKeys, len(distinct))
	}
	return distinct, nil
}
