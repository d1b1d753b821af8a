package guard_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/guard"
	"github.com/ringside-cache/ringside/origin/origintest"
)

// busy returns a Batch of next whose only turn is taken until free is called.
func busy(t *testing.T, next origin.Origin, maxKeys int) (b *guard.Batch, free func()) {
	t.Helper()
	l := guard.NewLimiter(guard.LimitConfig{MaxInFlight: 1})
	free, err := l.EnterIdle(minute(t))
	if err != nil {
		t.Fatal(err)
	}
	return guard.NewBatch(next, guard.BatchConfig{MaxKeys: maxKeys, Limiter: l}), free
}

func TestBatchCombinesConcurrentLoads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(map[string]string{"a": "1", "b": "2"})
		b, free := busy(t, f, 0)
		first := start(minute(t), b, "a")
		time.Sleep(400 * time.Microsecond)
		second := start(minute(t), b, "b", "a", "absent")
		time.Sleep(100 * time.Microsecond)
		free()
		equal(t, "the first waits", first.wait().took, 500*time.Microsecond)
		equal(t, "the second waits what is left", second.wait().took, 100*time.Microsecond)
		equal(t, "queries", f.Queries(), 1)
		equal(t, "keys", f.Keys(), 3)
		equal(t, "a", string(first.results[0].Value.Data), "1")
		equal(t, "b", string(second.results[0].Value.Data), "2")
		equal(t, "a again", string(second.results[1].Value.Data), "1")
		wantErr(t, second.results[2].Err, origin.ErrNotFound)
		equal(t, "keys", f.Keys(), 3)
	})
}

func TestLoadDoesNotWaitWhileATurnIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(nil)
		f.Slow(time.Second)
		b := guard.NewBatch(f, guard.BatchConfig{Limiter: guard.NewLimiter(guard.LimitConfig{MaxInFlight: 2})})
		first := start(minute(t), b, "a")
		time.Sleep(time.Millisecond)
		second := start(minute(t), b, "b")
		equal(t, "the first took", first.wait().took, time.Second)
		equal(t, "the second took", second.wait().took, time.Second)
		equal(t, "queries", f.Queries(), 2)
	})
}

// On one CPU the goroutines run in the order in which they become ready.
func TestHerdIsOneQueryAlthoughTurnsAreFree(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const herd, turns = 20, 10
	fewest := int64(herd)
	for range 5 { // another goroutine of the process may interrupt one
		synctest.Test(t, func(t *testing.T) {
			f := origintest.New(nil)
			f.Slow(time.Second)
			b := guard.NewBatch(f, guard.BatchConfig{Limiter: guard.NewLimiter(guard.LimitConfig{MaxInFlight: turns})})
			var all sync.WaitGroup
			for i := range herd {
				all.Go(func() { _, _ = b.Load(minute(t), []string{fmt.Sprint(i)}) })
			}
			all.Wait()
			fewest = min(fewest, f.Queries())
		})
	}
	equal(t, "queries", fewest, 1)
}

func TestBatchHasAtMostMaxKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(nil)
		b, free := busy(t, f, 2)
		call := start(minute(t), b, "a", "b", "c", "d")
		synctest.Wait()
		free()
		wantErr(t, call.wait().err, nil)
		equal(t, "queries", f.Queries(), 2)
	})
}

func TestBatchOutlivesACallerThatLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(map[string]string{"a": "1", "b": "2"})
		f.Slow(time.Second)
		b, free := busy(t, f, 0)
		impatient, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		first, second := start(impatient, b, "a"), start(minute(t), b, "b")
		synctest.Wait()
		free()
		wantErr(t, first.wait().err, context.DeadlineExceeded)
		equal(t, "the impatient one leaves on time", first.took, 10*time.Millisecond)
		wantErr(t, second.wait().err, nil)
		equal(t, "b", string(second.results[0].Value.Data), "2")
		equal(t, "queries", f.Queries(), 1)
	})
}

func TestBatchEndsWhenAllCallersHaveLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		f := origintest.New(nil)
		f.Block()
		b, free := busy(t, f, 0)
		one, cancelOne := context.WithCancel(minute(t))
		two, cancelTwo := context.WithCancel(minute(t))
		first, second := start(one, b, "a"), start(two, b, "b")
		synctest.Wait()
		free()
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

func TestCancelledBatchIsNotJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(map[string]string{"a": "1"})
		b, free := busy(t, f, 0)
		gone, cancel := context.WithCancel(minute(t))
		first := start(gone, b, "a")
		synctest.Wait()
		cancel()
		wantErr(t, first.wait().err, context.Canceled)
		second := start(minute(t), b, "a")
		synctest.Wait()
		free()
		wantErr(t, second.wait().err, nil)
		b.Wait()
		equal(t, "queries", f.Queries(), 1)
	})
}

func TestCancelledCallerBeginsNoLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := guard.NewLimiter(guard.LimitConfig{MaxInFlight: 1, MaxQueue: -1})
		free, err := l.EnterIdle(minute(t))
		wantErr(t, err, nil)
		defer free()
		gone, cancel := context.WithCancel(minute(t))
		cancel()
		b := guard.NewBatch(origintest.New(nil), guard.BatchConfig{Limiter: l})
		wantErr(t, start(gone, b, "a").wait().err, context.Canceled)
		b.Wait()
		equal(t, "loads that asked for a turn", l.Stats().Refused, 0)
	})
}

func TestBatchHasTheLatestDeadlineOfItsCallers(t *testing.T) {
	for _, patient := range []int{0, 1, 2} {
		synctest.Test(t, func(t *testing.T) {
			f := origintest.New(nil)
			f.Slow(3 * time.Second)
			b, free := busy(t, f, 0)
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
			free()
			for i, c := range calls {
				equal(t, fmt.Sprintf("call %d has an answer", i), c.wait().err == nil, i == patient)
			}
		})
	}
}

func TestBatchFailsAllCallersWithTheOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(nil)
		f.Fail(errDown)
		b, free := busy(t, f, 0)
		first, second := start(minute(t), b, "a"), start(minute(t), b, "b")
		synctest.Wait()
		free()
		wantErr(t, first.wait().err, errDown)
		wantErr(t, second.wait().err, errDown)
		equal(t, "queries", f.Queries(), 1)
	})
}

// recovered returns the value with which Load of o panics, on the goroutine of its caller.
func recovered(t *testing.T, o origin.Origin) (p any) {
	defer func() { p = recover() }()
	_, err := o.Load(minute(t), []string{"a"})
	return err
}

// Nothing could recover from a panic on a goroutine of the batch.
// failing fails each Load of a key "bad" or "worse".
type failing struct{ *origintest.Fake }

var errWorse = errors.New("disk failure")

func (f failing) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	switch {
	case slices.Contains(keys, "bad"):
		return nil, errDown
	case slices.Contains(keys, "worse"):
		return nil, errWorse
	}
	return f.Fake.Load(ctx, keys)
}

func TestFailedGroupLeavesTheOthersAlone(t *testing.T) {
	b := guard.NewBatch(failing{origintest.New(map[string]string{"a": "1", "d": "4"})}, guard.BatchConfig{MaxKeys: 2})
	results, err := b.Load(minute(t), []string{"bad", "c", "a", "d", "worse", "e", "bad"})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{errDown, errDown, nil, nil, errWorse, errWorse, errDown} {
		wantErr(t, results[i].Err, want)
	}
	equal(t, "a", string(results[2].Value.Data), "1")
	equal(t, "d", string(results[3].Value.Data), "4")
	_, err = b.Load(minute(t), []string{"bad", "c", "bad"})
	wantErr(t, err, errDown)
}

func TestPanicOfAnOriginReachesItsCallers(t *testing.T) {
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

// short returns fewer results than keys.
type short struct{}

func (short) Load(context.Context, []string) ([]origin.Result, error) { return nil, nil }

func TestBatchRejectsResultsThatDoNotMatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if c := start(minute(t), guard.NewBatch(short{}, guard.BatchConfig{}), "a").wait(); c.err == nil {
			t.Error("a Load without results for its keys succeeded")
		}
	})
}

// Otherwise, successive callers of a busy origin would queue as loads of one key each.
func TestBatchAcceptsKeysUntilItsTurn(t *testing.T) {
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

func TestBatchWithoutATurnIsOverloaded(t *testing.T) {
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

func TestBatchAndLimiterKeepTheBudget(t *testing.T) {
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
		if n := f.Queries(); n > 10+4 {
			t.Errorf("%d queries; want one per 100 keys, and at most one more per turn", n)
		}
		equal(t, "together", f.Peak(), 4)
	})
}

func BenchmarkBatchOfOneHundredCallers(b *testing.B) {
	o := guard.NewBatch(origintest.New(nil), guard.BatchConfig{MaxKeys: 100})
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
