package guard_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/guard"
	"github.com/ringside-cache/ringside/origin/origintest"
)

var errDown = errors.New("connection refused")

func TestEachGuardConforms(t *testing.T) {
	for name, around := range map[string]func(origin.Origin) origin.Origin{
		"batch": func(o origin.Origin) origin.Origin { return guard.NewBatch(o, guard.BatchConfig{}) },
		"limit": func(o origin.Origin) origin.Origin {
			return guard.NewBatch(o, guard.BatchConfig{Limiter: guard.NewLimiter(guard.LimitConfig{})})
		},
		"breaker": func(o origin.Origin) origin.Origin { return guard.NewBreaker(o, guard.BreakerConfig{}) },
		"all": func(o origin.Origin) origin.Origin {
			o = guard.NewBreaker(o, guard.BreakerConfig{})
			return guard.NewBatch(o, guard.BatchConfig{Limiter: guard.NewLimiter(guard.LimitConfig{})})
		},
	} {
		t.Run(name, func(t *testing.T) {
			origintest.Conformance(t, origintest.Subject{
				New: func(_ *testing.T, rows map[string]string) origin.Origin { return around(origintest.New(rows)) },
				Stuck: func(*testing.T) origin.Origin {
					f := origintest.New(nil)
					f.Block()
					return around(f)
				},
			})
		})
	}
}

// call is one Load on its way.
type call struct {
	results []origin.Result
	err     error
	took    time.Duration
	done    chan struct{}
}

func start(ctx context.Context, o origin.Origin, keys ...string) *call {
	c := &call{done: make(chan struct{})}
	began := time.Now()
	go func() {
		defer close(c.done)
		c.results, c.err = o.Load(ctx, keys)
		c.took = time.Since(began)
	}()
	return c
}

func (c *call) wait() *call {
	<-c.done
	return c
}

func minute(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

func TestBatchMakesOneLoadOfConcurrentOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(map[string]string{"a": "1", "b": "2"})
		b := guard.NewBatch(f, guard.BatchConfig{MaxWait: 500 * time.Microsecond})
		first := start(minute(t), b, "a")
		time.Sleep(400 * time.Microsecond)
		second := start(minute(t), b, "b", "a", "absent")
		equal(t, "the first waits", first.wait().took, 500*time.Microsecond)
		equal(t, "the second waits what is left", second.wait().took, 100*time.Microsecond)
		equal(t, "queries", f.Queries(), 1)
		equal(t, "keys", f.Keys(), 3)
		equal(t, "a", string(first.results[0].Value.Data), "1")
		equal(t, "b", string(second.results[0].Value.Data), "2")
		equal(t, "a again", string(second.results[1].Value.Data), "1")
		wantErr(t, second.results[2].Err, origin.ErrNotFound)
		equal(t, "stats", b.Stats(), guard.BatchStats{Loads: 1, Keys: 3})
	})
}

func TestBatchThatIsFullDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(nil)
		b := guard.NewBatch(f, guard.BatchConfig{MaxKeys: 2, MaxWait: time.Hour})
		equal(t, "took", start(minute(t), b, "a", "b", "c", "d").wait().took, 0)
		equal(t, "queries", f.Queries(), 2)
	})
}

func TestBatchWhoseCallerLeavesFailsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(map[string]string{"a": "1", "b": "2"})
		f.Slow(time.Second)
		b := guard.NewBatch(f, guard.BatchConfig{})
		impatient, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		first, second := start(impatient, b, "a"), start(minute(t), b, "b")
		wantErr(t, first.wait().err, context.DeadlineExceeded)
		equal(t, "the impatient one leaves on time", first.took, 10*time.Millisecond)
		wantErr(t, second.wait().err, nil)
		equal(t, "b", string(second.results[0].Value.Data), "2")
		equal(t, "queries", f.Queries(), 1)
	})
}

func TestBatchEndsWhenAllItsCallersHaveLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		f := origintest.New(nil)
		f.Block()
		b := guard.NewBatch(f, guard.BatchConfig{})
		one, cancelOne := context.WithCancel(minute(t))
		two, cancelTwo := context.WithCancel(minute(t))
		first, second := start(one, b, "a"), start(two, b, "b")
		time.Sleep(time.Second)
		cancelOne()
		wantErr(t, first.wait().err, context.Canceled)
		synctest.Wait()
		equal(t, "loads while one waits", f.Flying(), 1)
		cancelTwo()
		wantErr(t, second.wait().err, context.Canceled)
		b.Wait()
		equal(t, "loads when nobody does", f.Flying(), 0)
		equal(t, "the load ends with them, not at its deadline: after", time.Since(began), time.Second)
	})
}

func TestBatchThatAllLeftBeforeItBeganIsNotJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(map[string]string{"a": "1"})
		b := guard.NewBatch(f, guard.BatchConfig{MaxWait: time.Millisecond})
		gone, cancel := context.WithCancel(minute(t))
		first := start(gone, b, "a")
		synctest.Wait()
		cancel()
		wantErr(t, first.wait().err, context.Canceled)
		second := start(minute(t), b, "a").wait()
		wantErr(t, second.err, nil)
		b.Wait()
		equal(t, "queries", f.Queries(), 1)
	})
}

func TestBatchLastsAsLongAsItsMostPatientCaller(t *testing.T) {
	for _, patient := range []int{0, 1, 2} {
		synctest.Test(t, func(t *testing.T) {
			f := origintest.New(nil)
			f.Slow(3 * time.Second)
			b := guard.NewBatch(f, guard.BatchConfig{})
			var calls []*call
			for i := range 3 {
				after := time.Second
				if i == patient {
					after = 5 * time.Second
				}
				ctx, cancel := context.WithTimeout(t.Context(), after)
				defer cancel()
				calls = append(calls, start(ctx, b, fmt.Sprint(i)))
				synctest.Wait()
			}
			for i, c := range calls {
				equal(t, fmt.Sprintf("call %d has an answer", i), c.wait().err == nil, i == patient)
			}
		})
	}
}

func TestBatchFailsAllItsCallersWithTheOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(nil)
		f.Fail(errDown)
		b := guard.NewBatch(f, guard.BatchConfig{})
		first, second := start(minute(t), b, "a"), start(minute(t), b, "b")
		wantErr(t, first.wait().err, errDown)
		wantErr(t, second.wait().err, errDown)
		equal(t, "queries", f.Queries(), 1)
	})
}

type panicking struct{}

func (panicking) Load(context.Context, []string) ([]origin.Result, error) { panic("boom") }

// recovered is what Load of o panics with, on the goroutine of its caller.
func recovered(t *testing.T, o origin.Origin) (p any) {
	defer func() { p = recover() }()
	_, err := o.Load(minute(t), []string{"a"})
	return err
}

// A goroutine of the batch has nobody who could recover.
func TestPanicOfAnOriginIsItsCallers(t *testing.T) {
	b := guard.NewBreaker(panicking{}, guard.BreakerConfig{Failures: 2})
	batch := guard.NewBatch(b, guard.BatchConfig{})
	for range 2 {
		if p := fmt.Sprint(recovered(t, batch)); !strings.Contains(p, "boom") || !strings.Contains(p, "guard_test.go") {
			t.Errorf("the caller got %q; want the panic and where it was raised", p)
		}
	}
	_, err := b.Load(minute(t), []string{"a"})
	wantErr(t, err, guard.ErrOpen)
}

// short answers fewer keys than it was asked for.
type short struct{}

func (short) Load(context.Context, []string) ([]origin.Result, error) { return nil, nil }

func TestBatchRefusesResultsThatDoNotMatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if c := start(minute(t), guard.NewBatch(short{}, guard.BatchConfig{}), "a").wait(); c.err == nil {
			t.Error("a Load without results for its keys succeeded")
		}
	})
}

// writing makes a Write of each Load.
type writing struct{ writer origin.Writer }

func (w writing) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	v, err := w.writer.Write(ctx, origin.Change{Key: keys[0]})
	return []origin.Result{{Value: v}}, err
}

// listing makes a List of each Load.
type listing struct{ lister origin.Lister }

func (l listing) Load(ctx context.Context, _ []string) ([]origin.Result, error) {
	_, err := l.lister.List(ctx, origin.ListQuery{Limit: 1})
	return nil, err
}

func TestLimitGivesTurnsAndRefusesAtOnceWhenTheQueueIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, other := origintest.New(nil), origintest.New(nil)
		f.Slow(time.Second)
		other.Slow(time.Second)
		l := guard.NewLimiter(guard.LimitConfig{MaxInFlight: 2, MaxQueue: 3})
		a, b := writing{l.Writer(f)}, listing{l.Lister(other)}
		var calls []*call
		for i := range 6 {
			calls = append(calls, start(minute(t), []origin.Origin{a, b}[i%2], "k"))
			synctest.Wait()
		}
		equal(t, "stats", l.Stats(), guard.LimitStats{MaxInFlight: 2, MaxQueue: 3, InFlight: 2, Queued: 3, Refused: 1})
		wantErr(t, calls[5].wait().err, origin.ErrOverloaded)
		equal(t, "the refused one waits", calls[5].took, 0)
		for i, took := range []time.Duration{1, 1, 2, 2, 3} {
			equal(t, fmt.Sprintf("call %d", i), calls[i].wait().took, took*time.Second)
		}
		equal(t, "stats at rest", l.Stats(), guard.LimitStats{MaxInFlight: 2, MaxQueue: 3, Refused: 1})
		equal(t, "writes and lists begun", f.Writes()+other.Queries(), 5)
	})
}

func TestLimitLetsACallerLeaveTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(nil)
		release := f.BlockWrites()
		l := guard.NewLimiter(guard.LimitConfig{MaxInFlight: 1, MaxQueue: 2})
		o := writing{l.Writer(f)}
		first := start(minute(t), o, "a")
		synctest.Wait()
		short, cancelShort := context.WithTimeout(t.Context(), time.Second)
		defer cancelShort()
		cancelled, cancel := context.WithCancel(minute(t))
		late, gone := start(short, o, "b"), start(cancelled, o, "c")
		synctest.Wait()
		cancel()
		wantErr(t, gone.wait().err, context.Canceled)
		equal(t, "a caller that left was refused", errors.Is(gone.err, origin.ErrOverloaded), false)
		wantErr(t, late.wait().err, origin.ErrOverloaded)
		wantErr(t, late.err, context.DeadlineExceeded)
		equal(t, "took", late.took, time.Second)
		release()
		wantErr(t, first.wait().err, nil)
		equal(t, "stats", l.Stats(), guard.LimitStats{MaxInFlight: 1, MaxQueue: 2, GaveUp: 2})
		equal(t, "writes", f.Writes(), 1)
	})
}

func TestLimitWithoutAQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(nil)
		f.Slow(time.Second)
		o := writing{guard.NewLimiter(guard.LimitConfig{MaxInFlight: 1, MaxQueue: -1}).Writer(f)}
		first := start(minute(t), o, "a")
		synctest.Wait()
		wantErr(t, start(minute(t), o, "b").wait().err, origin.ErrOverloaded)
		wantErr(t, first.wait().err, nil)
	})
}

func TestBreakerOpensOnFailuresInARowAndProbesAfterItsRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(map[string]string{"a": "1"})
		b := guard.NewBreaker(f, guard.BreakerConfig{Failures: 3, Cooldown: time.Second})
		load := func() error { return start(minute(t), b, "a").wait().err }
		f.Fail(errDown)
		for range 3 {
			wantErr(t, load(), errDown)
		}
		wantErr(t, load(), guard.ErrOpen)
		equal(t, "overload, which it is not", errors.Is(load(), origin.ErrOverloaded), false)
		equal(t, "queries", f.Queries(), 3)
		equal(t, "stats", b.Stats(), guard.BreakerStats{Open: true, Opened: 1, Refused: 2})
		time.Sleep(time.Second + 1)
		wantErr(t, load(), errDown) // the probe
		wantErr(t, load(), guard.ErrOpen)
		equal(t, "queries after a failed probe", f.Queries(), 4)
		f.Fail(nil)
		time.Sleep(time.Second + 1)
		wantErr(t, load(), nil)
		wantErr(t, load(), nil)
		equal(t, "open at the end", b.Stats().Open, false)
	})
}

func TestBreakerLetsOneProbeThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(nil)
		b := guard.NewBreaker(f, guard.BreakerConfig{Failures: 1, Cooldown: time.Second})
		f.Fail(errDown)
		wantErr(t, start(minute(t), b, "a").wait().err, errDown)
		f.Fail(nil)
		time.Sleep(time.Second + 1)
		release := f.Block()
		probe := start(minute(t), b, "a")
		synctest.Wait()
		wantErr(t, start(minute(t), b, "a").wait().err, guard.ErrOpen)
		release()
		wantErr(t, probe.wait().err, nil)
		wantErr(t, start(minute(t), b, "a").wait().err, nil)
	})
}

// A probe that says nothing must leave room for the next one, or the breaker never closes.
func TestBreakerForgetsAProbeWhoseCallerLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(nil)
		b := guard.NewBreaker(f, guard.BreakerConfig{Failures: 1, Cooldown: time.Second})
		f.Fail(errDown)
		wantErr(t, start(minute(t), b, "a").wait().err, errDown)
		f.Fail(nil)
		time.Sleep(time.Second + 1)
		f.Block()
		ctx, cancel := context.WithCancel(minute(t))
		probe := start(ctx, b, "a")
		synctest.Wait()
		cancel()
		wantErr(t, probe.wait().err, context.Canceled)
		f.Block()()
		wantErr(t, start(minute(t), b, "a").wait().err, nil)
	})
}

func TestBreakerStaysClosedThroughWhatIsNoFailure(t *testing.T) {
	for name, step := range map[string]struct {
		fail error
		keys []string
		left bool
	}{
		"absent":      {keys: []string{"absent"}},
		"invalid":     {keys: []string{"\x00"}},
		"overloaded":  {keys: []string{"a"}, fail: fmt.Errorf("%w: full", origin.ErrOverloaded)},
		"caller left": {keys: []string{"a"}, left: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := origintest.New(nil)
			f.Fail(step.fail)
			b := guard.NewBreaker(f, guard.BreakerConfig{Failures: 1})
			for range 5 {
				ctx, cancel := context.WithCancel(minute(t))
				if step.left {
					cancel()
				}
				_, _ = b.Load(ctx, step.keys)
				cancel()
			}
			equal(t, "queries", f.Queries(), 5)
			equal(t, "stats", b.Stats(), guard.BreakerStats{})
		})
	}
}

// Without this, callers that come one after the other to a busy origin queue as loads of one key each.
func TestBatchTakesKeysUntilItsTurnComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(nil)
		f.Slow(time.Second)
		o := guard.NewBatch(f, guard.BatchConfig{MaxKeys: 100, Limiter: guard.NewLimiter(guard.LimitConfig{MaxInFlight: 1})})
		var wg sync.WaitGroup
		for i := range 250 {
			wg.Go(func() {
				if _, err := o.Load(minute(t), []string{fmt.Sprint(i)}); err != nil {
					t.Error(err)
				}
			})
			time.Sleep(time.Millisecond)
		}
		wg.Wait()
		equal(t, "queries", f.Queries(), 4) // the first key, and 249 in three batches
	})
}

func TestBatchWhoseTurnDoesNotComeIsOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(nil)
		release := f.Block()
		o := guard.NewBatch(f, guard.BatchConfig{Limiter: guard.NewLimiter(guard.LimitConfig{MaxInFlight: 1})})
		first := start(minute(t), o, "a")
		time.Sleep(time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if c := start(ctx, o, "b").wait(); !errors.Is(c.err, origin.ErrOverloaded) {
			t.Errorf("got %v; want overloaded", c.err)
		}
		release()
		if c := first.wait(); c.err != nil {
			t.Error(c.err)
		}
		o.Wait()
		equal(t, "queries", f.Queries(), 1)
	})
}

func TestBatchAndLimitTogetherKeepTheBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(nil)
		f.Slow(10 * time.Millisecond)
		o := guard.NewBatch(f, guard.BatchConfig{MaxKeys: 100, Limiter: guard.NewLimiter(guard.LimitConfig{MaxInFlight: 4})})
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() {
				if _, err := o.Load(minute(t), []string{fmt.Sprint(i)}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		equal(t, "queries", f.Queries(), 10)
		equal(t, "together", f.Peak(), 4)
	})
}

func BenchmarkBatchOfOneHundredCallers(b *testing.B) {
	o := guard.NewBatch(origintest.New(nil), guard.BatchConfig{MaxKeys: 100, MaxWait: time.Second})
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	keys := make([]string, 100)
	for i := range keys {
		keys[i] = fmt.Sprint(i)
	}
	b.ReportAllocs()
	for b.Loop() {
		var wg sync.WaitGroup
		for i := range keys {
			wg.Go(func() { _, _ = o.Load(ctx, keys[i:i+1]) })
		}
		wg.Wait()
	}
}
