package flight

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestCallersOfOneKeyShareOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New[int](10)
		var calls atomic.Int64
		fn := func(context.Context) (int, error) {
			time.Sleep(time.Second)
			return int(calls.Add(1)), nil
		}
		var waiters sync.WaitGroup
		for range 1000 {
			waiters.Go(func() {
				if v, err := g.Do(t.Context(), "key", time.Minute, fn); v != 1 || err != nil {
					t.Errorf("got %d, %v; want 1", v, err)
				}
			})
		}
		waiters.Wait()
		if v, _ := g.Do(t.Context(), "key", time.Minute, fn); v != 2 {
			t.Errorf("the call after the flight got %d; want a new flight", v)
		}
		if n := len(g.calls); n != 0 {
			t.Errorf("%d calls are kept after their end: a second cache", n)
		}
	})
}

func TestWaiterThatGivesUpLeavesAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const waiters = 10000
		g := New[string](10)
		fn := func(ctx context.Context) (string, error) {
			select {
			case <-time.After(time.Second):
				return "value", nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}
		first, leave := context.WithCancel(t.Context())
		var failed, gone atomic.Int64
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := g.Do(first, "key", time.Minute, fn); errors.Is(err, context.Canceled) {
				gone.Add(1)
			}
		})
		synctest.Wait() // the one who leaves is the one who began the call
		for range waiters {
			all.Go(func() {
				if v, err := g.Do(t.Context(), "key", time.Minute, fn); v != "value" || err != nil {
					failed.Add(1)
				}
			})
		}
		synctest.Wait()
		leave()
		all.Wait()
		if failed.Load() != 0 || gone.Load() != 1 {
			t.Errorf("%d of %d waiters failed with the one who left (%d)", failed.Load(), waiters, gone.Load())
		}
	})
}

func TestCallThatHangsHoldsKeyNoLongerThanItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New[int](10)
		hang := make(chan struct{})
		began := time.Now()
		_, err := g.Do(t.Context(), "key", time.Second, func(context.Context) (int, error) { <-hang; return 1, nil })
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("got %v after %v; want the timeout after 1s", err, time.Since(began))
		}
		v, err := g.Do(t.Context(), "key", time.Second, func(context.Context) (int, error) { return 2, nil })
		if v != 2 || err != nil {
			t.Errorf("the next call got %d, %v; want 2", v, err)
		}
		if g.Len() != 1 {
			t.Errorf("%d calls are counted; the one that hangs still is under way", g.Len())
		}
		close(hang)
		g.Close()
	})
}

func TestForgetLetsLaterCallersStartAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New[string](10)
		release := make(chan struct{})
		var waiters sync.WaitGroup
		waiters.Go(func() {
			v, err := g.Do(t.Context(), "key", time.Minute, func(context.Context) (string, error) { <-release; return "old", nil })
			if v != "old" || err != nil {
				t.Errorf("the first waiter got %q, %v", v, err)
			}
		})
		synctest.Wait()
		g.Forget("key")
		v, err := g.Do(t.Context(), "key", time.Minute, func(context.Context) (string, error) { return "new", nil })
		if v != "new" || err != nil {
			t.Errorf("after Forget: got %q, %v; want new", v, err)
		}
		close(release)
		waiters.Wait()
		g.Forget("none")
		g.ForgetAll()
	})
}

func TestBoundOfFlightsCountsDetachedOnesToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New[int](2)
		release := make(chan struct{})
		wait := func(context.Context) (int, error) { <-release; return 1, nil }
		for _, key := range []string{"a", "b"} {
			if !g.Start(key, time.Minute, wait) || g.Start(key, time.Minute, wait) {
				t.Fatal("the first start of a key, and no other, starts its flight")
			}
		}
		g.ForgetAll()
		if g.Start("c", time.Minute, wait) {
			t.Error("the third flight of two was started")
		}
		if _, err := g.Do(t.Context(), "c", time.Minute, wait); !errors.Is(err, ErrFull) {
			t.Errorf("the third flight of two got %v", err)
		}
		close(release)
		synctest.Wait()
		if _, err := g.Do(t.Context(), "c", time.Minute, wait); err != nil {
			t.Errorf("after two flights ended: %v", err)
		}
	})
}

func TestPanicEndsTheCallAndNotTheProcess(t *testing.T) {
	g := New[int](1)
	_, err := g.Do(t.Context(), "key", time.Minute, func(context.Context) (int, error) { panic("boom") })
	var p *PanicError
	if !errors.As(err, &p) || p.Value != "boom" || len(p.Stack) == 0 {
		t.Errorf("got %v; want the panic", err)
	}
}

func TestCloseCancelsAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New[int](1)
		ended := false
		g.Start("key", time.Minute, func(ctx context.Context) (int, error) {
			<-ctx.Done()
			time.Sleep(time.Second)
			ended = true
			return 0, ctx.Err()
		})
		g.Close()
		if !ended {
			t.Error("Close returned before its call did")
		}
		if _, err := g.Do(t.Context(), "key", time.Minute, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func BenchmarkDo(b *testing.B) {
	g := New[int](10)
	fn := func(context.Context) (int, error) { return 1, nil }
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.Do(b.Context(), "key", time.Minute, fn); err != nil {
			b.Fatal(err)
		}
	}
}
