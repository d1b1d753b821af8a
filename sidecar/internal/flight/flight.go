// Package flight merges concurrent calls for the same key into one. Unlike x/sync/singleflight, a call runs on a context
// of its own and each waiter keeps its own, so that one that gives up leaves the others alone; and one function may make
// the calls of many keys at once.
package flight

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// ErrFull means that the limit of calls or that of their memory is reached. Nothing was started.
var ErrFull = errors.New("too many concurrent loads")

// What calls take from the memory of a Group, beside their keys. A caller who waits takes nothing: its request has.
const (
	callBytes = 1 << 10 // a call, the copy of its read, and their places in maps; measured: 0.9 KiB
	runBytes  = 8 << 10 // the goroutine of a run, its context and timer
)

// Memory is where calls take bytes from before they start. *budget.Account implements it.
type Memory interface {
	Take(n int64) bool
	Return(n int64)
}

// ErrClosed means that the Group is closed. Nothing was started.
var ErrClosed = errors.New("closed")

var errNoResult = errors.New("the call returned without a result")

type unlimited struct{}

func (unlimited) Take(int64) bool { return true }
func (unlimited) Return(int64)    {}

// Group merges calls by key. Use New.
type Group[V any] struct {
	max     int
	memory  Memory
	base    context.Context // parent of every call's context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu    sync.Mutex          // guards calls, count, and the flags of calls; never held while a call runs
	calls map[string]*Call[V] // the calls that new callers join
	count int                 // calls whose function has not given a result, including detached ones
}

// Call is one call that is running or has ended.
type Call[V any] struct {
	group *Group[V]
	key   string
	by    any              // of Start
	bytes int64            // taken from Group.memory
	ended bool             // guarded by Group.mu
	waits []func(V, error) // guarded by Group.mu
	done  chan struct{}    // closed when value and err are set
	value V
	err   error
}

// Func makes the calls of some of the keys that Start was given: started has their indices. It passes each result to
// finish, with the index of its key, and may go on with other keys after that.
type Func[V any] func(ctx context.Context, started []int, finish func(i int, value V, err error))

// New returns a Group of at most max calls at once, within memory; nil means no limit.
func New[V any](max int, memory Memory) *Group[V] {
	base, cancel := context.WithCancel(context.Background())
	if memory == nil {
		memory = unlimited{}
	}
	return &Group[V]{max: max, memory: memory, base: base, cancel: cancel, calls: map[string]*Call[V]{}}
}

// Do waits for the call of key, which it starts when there is none. The context of fn ends after timeout or at Close, and
// never because a waiter left; at its end the waiters get its error, even if fn does not return. ctx bounds only this wait.
// bytes is what fn holds.
func (g *Group[V]) Do(ctx context.Context, key string, bytes int64, timeout time.Duration,
	fn func(context.Context) (V, error)) (V, error) {
	calls := g.start(nil, []string{key}, bytes, timeout, func(ctx context.Context, _ []int, finish func(int, V, error)) {
		value, err := fn(ctx)
		finish(0, value, err)
	})
	return calls[0].Wait(ctx)
}

// Start returns the call of each key. It starts one run of fn for all keys that have no call yet. by is that of these calls.
func (g *Group[V]) Start(by any, keys []string, timeout time.Duration, fn Func[V]) []*Call[V] {
	return g.start(by, keys, 0, timeout, fn)
}

// StartSized is Start for functions that hold this many bytes for each of the keys.
func (g *Group[V]) StartSized(keys []string, bytes int64, timeout time.Duration, fn Func[V]) []*Call[V] {
	return g.start(nil, keys, bytes, timeout, fn)
}

// By returns what the caller who has started the call passed to Start.
func (c *Call[V]) By() any { return c.by }

// start takes bytes for each call that it starts, in addition to the call itself.
func (g *Group[V]) start(by any, keys []string, bytes int64, timeout time.Duration, fn Func[V]) []*Call[V] {
	calls := make([]*Call[V], len(keys))
	var mine []*Call[V] // those of calls that the run ends
	var started []int
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, key := range keys {
		call, ok := g.calls[key]
		if !ok {
			need := callBytes + bytes + int64(len(key))
			if len(started) == 0 {
				need += runBytes
			}
			call = g.addLocked(key, need)
			call.by = by
			if !call.ended {
				if mine == nil {
					mine = make([]*Call[V], len(keys))
				}
				mine[i], started = call, append(started, i)
			}
		}
		calls[i] = call
	}
	if len(started) > 0 {
		g.running.Go(func() { g.run(mine, started, timeout, fn) })
	}
	return calls
}

// addLocked returns a new call, which has failed already when it cannot be started.
func (g *Group[V]) addLocked(key string, bytes int64) *Call[V] {
	call := &Call[V]{group: g, key: key, bytes: bytes, done: make(chan struct{})}
	switch {
	case g.base.Err() != nil:
		call.err = ErrClosed
	case g.count >= g.max: //guard:calls-without-bound
		call.err = ErrFull
	case !g.memory.Take(bytes): //guard:calls-without-memory
		call.err = ErrFull
	default:
		g.calls[key] = call
		g.count++
		return call
	}
	call.ended = true
	close(call.done)
	return call
}

// Wait returns the result of the call, or the error of ctx when that ends first.
func (c *Call[V]) Wait(ctx context.Context) (V, error) {
	select {
	case <-c.done: // also when ctx has ended
		return c.value, c.err
	default:
	}
	select {
	case <-c.done:
		return c.value, c.err
	case <-ctx.Done(): //guard:cancel-of-one-waiter-ends-the-call
		var none V
		return none, ctx.Err()
	}
}

// Forget detaches the call of key: those who wait for it still get its result, later callers start a new one.
func (g *Group[V]) Forget(key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.calls, key)
}

// ForgetPrefix detaches the calls of keys that begin with prefix.
func (g *Group[V]) ForgetPrefix(prefix string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.calls, func(key string, _ *Call[V]) bool { return strings.HasPrefix(key, prefix) })
}

// ForgetAll detaches every call.
func (g *Group[V]) ForgetAll() {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.calls)
}

// Has reports whether there is a call of key that a caller would join.
func (g *Group[V]) Has(key string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.calls[key]
	return ok
}

// Len returns how many calls are running.
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

func (g *Group[V]) run(calls []*Call[V], started []int, timeout time.Duration, fn Func[V]) {
	ctx, cancel := context.WithTimeout(g.base, timeout)
	defer cancel()
	var none V
	// A call holds its key for the timeout, even if fn hangs.
	stop := context.AfterFunc(ctx, func() {
		for _, i := range started { //guard:call-that-hangs-holds-its-key
			g.endSafely(&calls[i], none, ctx.Err(), false)
		}
	})
	defer stop()
	err := errNoResult
	defer func() {
		for _, i := range started {
			g.endSafely(&calls[i], none, err, true)
		}
	}()
	finish := func(i int, value V, err error) { g.end(&calls[i], value, err, true) }
	if p := recovered(func() { fn(ctx, started, finish) }); p != nil {
		err = p
	}
}

// end gives the waiters of the call at p its result, unless they have one. Returned means that fn is done with it: until
// then the call counts, even when its time has passed; after that p is nil, so that the run does not hold the value.
func (g *Group[V]) end(p **Call[V], value V, err error, returned bool) {
	for _, wait := range g.setResult(p, value, err, returned) {
		defer wait(value, err) //guard:panic-of-one-wait-leaves-the-others-waiting
	}
}

// endSafely is end where no caller would recover a panic of one who takes the result: it would end the process.
func (g *Group[V]) endSafely(p **Call[V], value V, err error, returned bool) {
	_ = recovered(func() { g.end(p, value, err, returned) }) //guard:panic-of-a-wait-ends-the-process
}

// setResult returns the waits to which end must pass the result.
func (g *Group[V]) setResult(p **Call[V], value V, err error, returned bool) (waits []func(V, error)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	call := *p
	if call == nil {
		return nil
	}
	if returned {
		*p = nil  //guard:run-holds-the-values-of-ended-calls
		g.count-- // before a waiter gets the result, which may then count
		g.memory.Return(call.bytes)
	}
	if call.ended {
		return nil
	}
	call.ended = true
	if g.calls[call.key] == call { //guard:ended-calls-stay-in-the-map
		delete(g.calls, call.key)
	}
	call.value, call.err = value, err
	close(call.done)
	waits, call.waits = call.waits, nil
	return waits
}

// PanicError is what the waiters of a call get that panicked: no caller's stack is below it, so that the panic would end
// the process.
type PanicError struct {
	Value any
	Stack []byte // where it was raised
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// PanicStack returns where the panic was raised, for a log.
func (e *PanicError) PanicStack() []byte { return e.Stack }

// recovered runs fn and returns a *PanicError if it panicked.
func recovered(fn func()) (err error) {
	defer func() {
		if p := recover(); p != nil { //guard:panic-of-an-origin-ends-the-process
			err = &PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	fn()
	return nil
}
