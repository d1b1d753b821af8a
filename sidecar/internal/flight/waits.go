package flight

import (
	"context"
	"sync"
)

// Waits is a wait for many calls, which takes each result when it arrives: it does not hold the values of calls that have
// ended.
type Waits[V any] struct {
	mu    sync.Mutex // guards the fields below; held while take runs
	take  func(i int, value V, err error)
	taken []bool
	left  int
	done  chan struct{} // closed when no call is left
}

// Each calls take with the result of each call when it ends. The calls of take do not overlap, may be on the goroutines of
// runs, and must not block.
func Each[V any](calls []*Call[V], take func(i int, value V, err error)) *Waits[V] {
	w := &Waits[V]{take: take, taken: make([]bool, len(calls)), left: len(calls), done: make(chan struct{})}
	for i, call := range calls {
		call.then(func(value V, err error) { w.end(i, value, err) })
	}
	return w
}

// then calls fn with the result of the call: at once if it has ended, else when it ends.
func (c *Call[V]) then(fn func(V, error)) {
	c.group.mu.Lock()
	ended := c.ended
	if !ended {
		c.waits = append(c.waits, fn)
	}
	c.group.mu.Unlock()
	if ended {
		fn(c.value, c.err)
	}
}

// Wait waits until all calls have ended. When ctx ends first, take gets its error for those of the other calls that only
// selects; nil selects all.
func (w *Waits[V]) Wait(ctx context.Context, only func(i int) bool) {
	select {
	case <-w.done: // also when ctx has ended
		return
	default:
	}
	select {
	case <-w.done:
		return
	case <-ctx.Done():
	}
	var none V
	for i := range w.taken {
		if only == nil || only(i) {
			w.end(i, none, ctx.Err())
		}
	}
}

func (w *Waits[V]) end(i int, value V, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.taken[i] {
		return
	}
	w.taken[i] = true
	defer w.countLocked() // also if take panics
	w.take(i, value, err)
}

func (w *Waits[V]) countLocked() {
	if w.left--; w.left == 0 {
		w.take = nil //guard:call-holds-what-a-reader-that-left-holds
		close(w.done)
	}
}
