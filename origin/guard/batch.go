package guard

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// DefaultMaxKeys is the default of BatchConfig.MaxKeys.
const DefaultMaxKeys = 100

// BatchConfig limits a batch.
type BatchConfig struct {
	// MaxKeys is the maximum number of keys of one Load; 0 means DefaultMaxKeys.
	MaxKeys int
	// Limiter, if set, is where a batch waits for its turn. It accepts more keys until then: the busier the origin, the larger
	// the batches. While there is a free turn, a batch has only the keys that arrive at the same time.
	Limiter *Limiter
	// Tracer may be nil.
	Tracer Tracer
}

// Tracer traces the Loads of a Batch, which belong to the requests of all their callers.
type Tracer interface {
	// Traced reports whether the context of a caller is that of a traced request.
	Traced(ctx context.Context) bool
	// Begin returns the context of a Load of n keys for the traced callers, at least one, and what to call with its error at the
	// end.
	Begin(ctx context.Context, callers []context.Context, n int) (context.Context, func(error))
}

func (c BatchConfig) maxKeys() int {
	if c.MaxKeys <= 0 {
		return DefaultMaxKeys
	}
	return c.MaxKeys
}

// errNoResult is the result of a key of which the origin said nothing.
var errNoResult = errors.New("the origin returned no result for the key")

// Batch turns an origin into one that combines concurrent Loads into one. Each caller waits on its own context; the shared
// Load ends early only when all callers have left.
type Batch struct {
	next    origin.Origin
	maxKeys int
	limiter *Limiter       // nil: no batch waits for a turn
	tracer  Tracer         // nil: no Load is traced
	running sync.WaitGroup // groups that have not ended

	mu   sync.Mutex // guards open, and the fields of groups that are marked
	open *group     // accepts more keys; nil if there is none
}

// group is one Load of next.
type group struct {
	// Guarded by Batch.mu until the group accepts no more keys; immutable after that.
	keys     []string
	at       map[string]int    // :: key → index in keys
	takers   [][]taker         // :: index in keys → who gets its result
	deadline time.Time         // the latest deadline of its callers; zero if one has none
	traced   []context.Context // of callers

	waiting int                     // guarded by Batch.mu
	cancel  context.CancelCauseFunc // of ctx
	ctx     context.Context
	begun   atomic.Bool // it has got its turn

	done     chan struct{} // closed when the fields below are set
	err      error         // the result of the keys that had none
	panicked any           // value of the panic of next
}

// taker is a caller who gets a result as that of its key i.
type taker struct {
	caller *caller
	i      int
}

// NewBatch combines the Loads of next.
func NewBatch(next origin.Origin, c BatchConfig) *Batch {
	return &Batch{next: next, maxKeys: c.maxKeys(), limiter: c.Limiter, tracer: c.Tracer}
}

// Wait returns when no shared Load is running any more, not even for callers that have left. No Load may begin meanwhile.
func (b *Batch) Wait() { b.running.Wait() }

// Load implements origin.Origin. Where only some of its groups fail, their keys have the error.
func (b *Batch) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	return origin.Collect(ctx, b, keys)
}

// LoadEach implements origin.Streamer.
func (b *Batch) LoadEach(ctx context.Context, keys []string, yield func(int, origin.Result)) error {
	if err := ctx.Err(); err != nil { //guard:canceled-load-begins
		return fmt.Errorf("wait for a batch: %w", err)
	}
	c := &caller{yield: yield, given: make([]bool, len(keys))}
	groups := b.join(ctx, keys, c)
	defer func() { b.leave(groups, ctx.Err()) }()
	defer c.leave()
	errs := make([]error, len(keys))
	for i, g := range groups {
		errs[i] = g.wait(ctx)
	}
	return c.end(errs)
}

// caller is one Load that waits for groups.
type caller struct {
	mu    sync.Mutex // guards all fields; held while yield runs
	yield func(int, origin.Result)
	given []bool // :: index in keys → it has a result
	left  bool
}

// give passes the result of key i on, unless the caller has left.
func (c *caller) give(i int, r origin.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.left {
		c.given[i] = true
		c.yield(i, r)
	}
}

func (c *caller) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = true
}

// end gives the keys without a result the error of their group. It returns the error if no key has a result.
func (c *caller) end(errs []error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = true
	loaded := slices.Contains(c.given, true)
	for i, given := range c.given {
		switch {
		case given:
		case !loaded: //guard:failed-group-fails-the-others
			return errs[i]
		default:
			c.yield(i, origin.Result{Err: errs[i]})
		}
	}
	return nil
}

func (g *group) wait(ctx context.Context) error {
	select {
	case <-g.done: // also when ctx has ended
		return g.outcome()
	default:
	}
	select {
	case <-g.done:
		return g.outcome()
	case <-ctx.Done():
		if !g.begun.Load() && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("%w: no turn in time: %w", origin.ErrOverloaded, ctx.Err())
		}
		return fmt.Errorf("wait for a batch: %w", ctx.Err())
	}
}

// failure is the error of the Load, if it has failed.
func (g *group) failure() error {
	if errors.Is(g.err, errNoResult) {
		return nil
	}
	return g.err
}

func (g *group) outcome() error {
	if g.panicked != nil {
		panic(g.panicked) // on a goroutine of the caller, who can recover
	}
	return g.err
}

// join adds keys to as few groups as possible, and returns the group of each. Keys of the same group are adjacent.
func (b *Batch) join(ctx context.Context, keys []string, c *caller) []*group {
	b.mu.Lock()
	defer b.mu.Unlock()
	groups := make([]*group, len(keys))
	for i, key := range keys {
		g := b.openLocked()
		if i == 0 || groups[i-1] != g {
			g.admitLocked(ctx)
			if b.tracer != nil && b.tracer.Traced(ctx) {
				g.traced = append(g.traced, ctx)
			}
		}
		g.addLocked(key, taker{c, i})
		groups[i] = g
		if len(g.keys) == b.maxKeys {
			b.open = nil
		}
	}
	return groups
}

func (b *Batch) openLocked() *group {
	if b.open == nil {
		g := &group{at: map[string]int{}, done: make(chan struct{})}
		g.ctx, g.cancel = context.WithCancelCause(context.Background())
		b.running.Add(1)
		b.open = g
		go b.run(g)
	}
	return b.open
}

func (g *group) admitLocked(ctx context.Context) {
	deadline, bounded := ctx.Deadline()
	switch {
	case !bounded:
		deadline = time.Time{}
	case g.waiting > 0 && (g.deadline.IsZero() || g.deadline.After(deadline)):
		deadline = g.deadline
	}
	g.deadline = deadline
	g.waiting++
}

func (g *group) addLocked(key string, t taker) {
	n, ok := g.at[key]
	if !ok {
		n = len(g.keys)
		g.at[key] = n
		g.keys, g.takers = append(g.keys, key), append(g.takers, nil)
	}
	g.takers[n] = append(g.takers[n], t)
}

// run waits for the turn of a group, which accepts more keys until then, and loads it. Even with a free turn it lets the
// goroutines run that are ready: a herd is one batch, and a single caller waits for nobody.
func (b *Batch) run(g *group) {
	defer b.running.Done()
	defer close(g.done)
	defer g.cancel(nil)
	growStack(0)
	runtime.Gosched() //guard:herd-is-one-query-per-free-turn guard:load-waits-although-a-turn-is-free
	if g.err = b.limiter.enter(g.ctx); g.err != nil {
		b.seal(g)
		return
	}
	defer runtime.Gosched() // readers have their results: they run before the goroutines that only end
	defer b.limiter.leave()
	g.begun.Store(true)
	ctx, cancel := b.seal(g)
	defer cancel()
	if g.err = ctx.Err(); g.err != nil {
		return // all callers have left
	}
	if len(g.traced) > 0 {
		var end func(error)
		ctx, end = b.tracer.Begin(ctx, g.traced, len(g.keys))
		defer func() { end(g.failure()) }()
	}
	g.load(ctx, b.next)
}

// stackBytes is about what a statement needs below run.
const stackBytes = 12 << 10

// growStack makes the stack of a new goroutine large enough at once. Otherwise it would be doubled, and its frames be copied, several
// times while a statement runs: a fifth of the CPU time of a load (profile).
//
//go:noinline
func growStack(i int) byte {
	var room [stackBytes]byte
	return room[i]
}

// load passes a panic to the callers. On this goroutine it would end the process.
func (g *group) load(ctx context.Context, next origin.Origin) {
	defer func() {
		if p := recover(); p != nil { //guard:driver-panic-ends-process
			g.panicked = fmt.Sprintf("%v\n\n%s", p, debug.Stack())
		}
	}()
	g.err = origin.LoadEach(ctx, next, g.keys, func(n int, r origin.Result) {
		for _, t := range g.takers[n] {
			t.caller.give(t.i, r)
		}
	})
	if g.err == nil {
		g.err = errNoResult
	}
}

// seal makes a group accept no more keys, and returns the context of its load.
func (b *Batch) seal(g *group) (context.Context, context.CancelFunc) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open == g {
		b.open = nil
	}
	if g.deadline.IsZero() {
		return g.ctx, func() { g.cancel(nil) }
	}
	return context.WithDeadline(g.ctx, g.deadline)
}

// leave cancels the groups that have no callers any more. The reason of the last one is that of the group: its time may pass
// here before it does in the context of the group.
func (b *Batch) leave(groups []*group, why error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, g := range slices.Compact(groups) {
		g.waiting--
		if g.waiting > 0 {
			continue
		}
		g.cancel(why) //guard:timed-out-load-looks-canceled
		if b.open == g {
			//guard:cancelled-batch-joined
			b.open = nil // the next caller must not share its cancelled context
		}
	}
}
