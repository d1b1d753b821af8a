package guard_test

import (
	"context"
	"errors"
	"fmt"
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

func TestBatchCombinesConcurrentLoads(t *testing.T) {
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
		equal(t, "keys", f.Keys(), 3)
	})
}

func TestFullBatchDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(nil)
		b := guard.NewBatch(f, guard.BatchConfig{MaxKeys: 2, MaxWait: time.Hour})
		equal(t, "took", start(minute(t), b, "a", "b", "c", "d").wait().took, 0)
		equal(t, "queries", f.Queries(), 2)
	})
}

func TestBatchOutlivesACallerThatLeaves(t *testing.T) {
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

func TestBatchEndsWhenAllCallersHaveLeft(t *testing.T) {
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

func TestCancelledBatchIsNotJoined(t *testing.T) {
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

func TestBatchHasTheLatestDeadlineOfItsCallers(t *testing.T) {
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

func TestBatchFailsAllCallersWithTheOrigin(t *testing.T) {
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
