// Package flight merges concurrent calls for the same key into one. Unlike x/sync/singleflight, the call runs on a
// context of its own and each waiter keeps its own: one that gives up leaves alone.
package flight

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// ErrFull says that Max calls are under way. Nothing was started.
var ErrFull = errors.New("too many flights")

// ErrClosed says that the Group is closed. Nothing was started.
var ErrClosed = errors.New("no more flights: it is closed")

// Group merges calls by key. Use New.
type Group[V any] struct {
	max     int
	base    context.Context // parent of every call's context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu    sync.Mutex          // guards calls and count; never held while a call runs
	calls map[string]*call[V] // the calls that new callers join
	count int                 // goroutines under way, those that Forget detached included
}

type call[V any] struct {
	done  chan struct{} // closed when value and err are set
	value V
	err   error
}

// New returns a Group of at most max calls under way at once.
func New[V any](max int) *Group[V] {
	base, cancel := context.WithCancel(context.Background())
	return &Group[V]{max: max, base: base, cancel: cancel, calls: map[string]*call[V]{}}
}

// Do waits for the call for key, which it starts when there is none. fn's context ends after timeout or at Close, never
// because a waiter left; at its end the waiters get its error, even when fn does not return. ctx bounds only this wait.
func (g *Group[V]) Do(ctx context.Context, key string, timeout time.Duration,
	fn func(context.Context) (V, error)) (V, error) {
	c, _, err := g.join(key, timeout, fn)
	if err != nil {
		var none V
		return none, err
	}
	select {
	case <-c.done:
		return c.value, c.err
	case <-ctx.Done(): //guard:waiters-cancel-ends-load
		var none V
		return none, ctx.Err()
	}
}

// Start starts the call for key, unless one is under way or there is no room, and does not wait for it.
func (g *Group[V]) Start(key string, timeout time.Duration, fn func(context.Context) (V, error)) (started bool) {
	_, started, _ = g.join(key, timeout, fn)
	return started
}

// Forget detaches the call for key: those who wait for it still get its result, later callers start a new one.
func (g *Group[V]) Forget(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.calls, key)
}

// ForgetAll detaches every call.
func (g *Group[V]) ForgetAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.calls)
}

// Len returns how many calls are under way.
func (g *Group[V]) Len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.count
}

// Close cancels all calls and waits for them to return.
func (g *Group[V]) Close() {
	g.mu.Lock() // so that no call is added after the wait began
	g.cancel()
	g.mu.Unlock()
	g.running.Wait()
}

func (g *Group[V]) join(key string, timeout time.Duration, fn func(context.Context) (V, error)) (
	c *call[V], started bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c, ok := g.calls[key]; ok {
		return c, false, nil
	}
	if g.base.Err() != nil {
		return nil, false, ErrClosed
	}
	if g.count >= g.max { //guard:flights-without-bound
		return nil, false, ErrFull
	}
	c = &call[V]{done: make(chan struct{})}
	g.calls[key] = c
	g.count++
	g.running.Go(func() { g.run(key, c, timeout, fn) })
	return c, true, nil
}

func (g *Group[V]) run(key string, c *call[V], timeout time.Duration, fn func(context.Context) (V, error)) {
	ctx, cancel := context.WithTimeout(g.base, timeout)
	defer cancel()
	var once sync.Once
	finish := func(value V, err error) {
		once.Do(func() {
			c.value, c.err = value, err
			g.leave(key, c)
			close(c.done)
		})
	}
	// The lock on a key is a deadline, not a flag: an fn that hangs holds nobody back for longer.
	stop := context.AfterFunc(ctx, func() {
		var none V
		finish(none, ctx.Err()) //guard:call-hangs-holds-key-ever
	})
	value, err := recovered(ctx, fn)
	stop()
	g.mu.Lock()
	g.count-- // before anybody is told, who may then count
	g.mu.Unlock()
	finish(value, err)
}

func (g *Group[V]) leave(key string, c *call[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.calls[key] == c { //guard:calls-stay-map-second-cache-without
		delete(g.calls, key)
	}
}

// PanicError is what the waiters of a call get that panicked. It runs on nobody's stack, where the panic would end the
// process.
type PanicError struct {
	Value any
	Stack []byte // where it was raised
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

func recovered[V any](ctx context.Context, fn func(context.Context) (V, error)) (value V, err error) {
	defer func() {
		if p := recover(); p != nil { //guard:panic-origin-ends-process
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	return fn(ctx)
}
