package watch

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/origin/keylist"
	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// Stream is a watch that has not begun: a Watch, or a SetWatch.
type Stream interface {
	// Reserve takes what the watch needs, so that it can be refused before its response begins. Release returns it; Run does both.
	Reserve() error
	Release()
	// Dataset returns the dataset of the keys.
	Dataset() api.Served
	// Run serves the watch until ctx ends, which is not an error, or until the sink fails.
	Run(ctx context.Context, to Sink) error
}

// SetWatch sends one client the states of all keys of a dataset that begin with a prefix, and then those that change, appear or are
// deleted. It holds a position in the changes of the set, however many there are while the client is slow.
type SetWatch struct {
	reader
	engine *Engine
	prefix string
	resume string

	memory budget.Loan
	set    *set // nil before Reserve and after Release
	at     position
}

// NewSet returns a watch of the keys that begin with prefix; the empty one is that of all keys. resume is the token of an earlier
// watch of the same prefix, or empty.
func (e *Engine) NewSet(d api.Served, prefix, resume string) *SetWatch {
	return &SetWatch{
		reader: reader{backend: e.backend, dataset: d}, engine: e, prefix: strings.Clone(prefix), resume: resume,
		memory: e.backend.Config().Budget.Loan(budget.Watches),
	}
}

// While ends the watch when permit returns an error: its client may no longer read the dataset. It returns w.
func (w *SetWatch) While(permit func() error) *SetWatch {
	w.permit = permit
	return w
}

// Reserve implements Stream. It waits until the keys are known, at most for the time of a request: where they cannot be listed, the
// client gets an error instead of a watch.
func (w *SetWatch) Reserve() error {
	if w.set != nil {
		return nil
	}
	if w.memory.Bytes() == 0 && !w.memory.Grow(watchBytes) {
		w.backend.Stats().WatchesRefused.Add(1)
		return kv.ErrNoMemory
	}
	if err := w.join(); err != nil {
		w.Release()
		return err
	}
	ctx, cancel := context.WithTimeout(w.backend.Stopping(), w.backend.Config().RequestTimeout)
	defer cancel()
	if err := w.set.await(ctx, func() bool { return w.set.listed }); err != nil {
		w.Release()
		return err
	}
	return nil
}

func (w *SetWatch) join() error {
	s, err := w.engine.join(w.dataset, w.prefix)
	if err != nil {
		return err
	}
	w.set = s
	return nil
}

// Release implements Stream. It may be called again.
func (w *SetWatch) Release() {
	if w.set != nil {
		w.set.leave()
		w.set = nil
	}
	w.memory.Close()
}

// Run implements Stream.
func (w *SetWatch) Run(ctx context.Context, to Sink) error {
	defer w.Release()
	if err := w.Reserve(); err != nil {
		return err
	}
	err := w.begin(ctx, to)
	if err == nil {
		err = w.follow(ctx, to)
	}
	for errors.Is(err, errReplaced) {
		if err = w.replace(to); err == nil {
			err = w.follow(ctx, to)
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// replace follows the dataset that has the same name now, from the beginning.
func (w *SetWatch) replace(to Sink) error {
	d, notFound := w.backend.Dataset(w.dataset.Name())
	if notFound != nil {
		return notFound
	}
	w.dataset = d
	w.set.leave()
	w.set = nil
	if err := w.join(); err != nil {
		return err
	}
	return w.reset(to)
}

// begin finds the position of the client.
func (w *SetWatch) begin(ctx context.Context, to Sink) error {
	if w.resume == "" {
		w.at = position{from: w.set.latest()}
		return nil
	}
	token, err := base64.RawURLEncoding.DecodeString(w.resume)
	if err != nil {
		token = nil // not one of a set
	}
	at, ok, err := w.set.resume(ctx, token)
	switch {
	case err != nil:
		return err
	case !ok:
		return w.reset(to)
	}
	w.at = at
	return nil
}

// reset makes the client forget what it knows.
func (w *SetWatch) reset(to Sink) error {
	w.backend.Stats().SetResets.Add(1)
	w.at = position{from: w.set.latest()}
	return w.send(to, Event{Kind: Reset}, 0)
}

// follow sends what changes.
func (w *SetWatch) follow(ctx context.Context, to Sink) error {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	current := false
	for {
		keys, after, complete, lost, news := w.set.next(w.at, MaxKeys)
		var err error
		switch {
		case lost:
			current, err = false, w.reset(to)
		case len(keys) > 0:
			err = w.sendStates(ctx, to, keys, after)
		case after != w.at.at:
			w.at.at = after
		case complete && !current:
			current, err = true, w.send(to, Event{Kind: Current}, w.at.at)
		default:
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-w.set.done:
				return w.set.err
			case <-news:
			case <-beat.C:
				if err = w.checkPermit(); err == nil {
					err = to.Heartbeat()
				}
			}
		}
		if err != nil {
			return err
		}
		if !backoff.Sleep(ctx, minInterval) {
			return ctx.Err()
		}
	}
}

func (w *SetWatch) checkPermit() error {
	if err := w.permitted(); err != nil {
		return w.backend.Error(err)
	}
	return nil
}

// sendStates reads and sends the states of keys. The last event has the token of the position after them, the others that before
// them: a client that resumes in between gets some of them again.
func (w *SetWatch) sendStates(ctx context.Context, to Sink, keys []string, after uint64) error {
	left := len(keys)
	err := w.read(ctx, keys, func(key string, r kv.Result) error {
		left--
		changed, err := w.set.settle(key, r)
		if err != nil || changed && !isState(r) { // the error comes with the change
			return err
		}
		if left == 0 {
			w.at.at = after
		}
		return w.send(to, Event{Kind: State, Key: key, Result: r}, w.at.at)
	})
	w.at.at = after
	return err
}

func (w *SetWatch) send(to Sink, e Event, at uint64) error {
	e.Token = base64.RawURLEncoding.EncodeToString(w.set.token(at))
	w.backend.Stats().WatchEvents.Add(1)
	return to.Send(e)
}

// CheckPrefix returns an error unless the keys that begin with prefix can be watched.
func CheckPrefix(prefix string) error {
	if err := kv.CheckKey(prefix); err != nil {
		return fmt.Errorf("prefix: %s; to watch every key use all", strings.Replace(err.Error(), "key", "prefix", 1))
	}
	if len(prefix) > keylist.MaxPrefixBytes {
		return fmt.Errorf("prefix: it has %d bytes; at most %d are allowed", len(prefix), keylist.MaxPrefixBytes)
	}
	return nil
}
