package flight

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestCallersOfOneKeyShareOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New[int](10, nil)
		var calls atomic.Int64
		fn := func(context.Context) (int, error) {
			time.Sleep(time.Second)
			return int(calls.Add(1)), nil
		}
		var waiters sync.WaitGroup
		for range 1000 {
			waiters.Go(func() {
				if v, err := g.Do(t.Context(), "key", 0, time.Minute, fn); v != 1 || err != nil {
					t.Errorf("got %d, %v; want 1", v, err)
				}
			})
		}
		waiters.Wait()
		if v, _ := g.Do(t.Context(), "key", 0, time.Minute, fn); v != 2 {
			t.Errorf("the call after the flight got %d; want a new call, 2", v)
		}
		if n := len(g.calls); n != 0 {
			t.Errorf("%d calls are in the map after their end; want 0", n)
		}
	})
}

func TestWaiterThatGivesUpFailsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const waiters = 10000
		g := New[string](10, nil)
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
			if _, err := g.Do(first, "key", 0, time.Minute, fn); errors.Is(err, context.Canceled) {
				gone.Add(1)
			}
		})
		synctest.Wait() // the caller that leaves is the one that began the call
		for range waiters {
			all.Go(func() {
				if v, err := g.Do(t.Context(), "key", 0, time.Minute, fn); v != "value" || err != nil {
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

func TestCallThatHangsHoldsItsKeyUntilTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New[int](10, nil)
		hang := make(chan struct{})
		began := time.Now()
		_, err := g.Do(t.Context(), "key", 0, time.Second, func(context.Context) (int, error) { <-hang; return 1, nil })
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("got %v after %v; want the timeout after 1s", err, time.Since(began))
		}
		v, err := g.Do(t.Context(), "key", 0, time.Second, func(context.Context) (int, error) { return 2, nil })
		if v != 2 || err != nil {
			t.Errorf("the next call got %d, %v; want 2", v, err)
		}
		if g.Len() != 1 {
			t.Errorf("%d calls are counted; want 1: the one that hangs is still running", g.Len())
		}
		close(hang)
		g.Close()
	})
}

func TestForgetLetsLaterCallersStartANewCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New[string](10, nil)
		release := make(chan struct{})
		var waiters sync.WaitGroup
		waiters.Go(func() {
			v, err := g.Do(t.Context(), "key", 0, time.Minute, func(context.Context) (string, error) { <-release; return "old", nil })
			if v != "old" || err != nil {
				t.Errorf("the first waiter got %q, %v", v, err)
			}
		})
		synctest.Wait()
		g.Forget("key")
		v, err := g.Do(t.Context(), "key", 0, time.Minute, func(context.Context) (string, error) { return "new", nil })
		if v != "new" || err != nil {
			t.Errorf("after Forget: got %q, %v; want new", v, err)
		}
		close(release)
		waiters.Wait()
		g.Forget("none")
		g.ForgetAll()
	})
}

func TestBoundCountsDetachedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New[int](2, nil)
		release := make(chan struct{})
		wait := func(context.Context) (int, error) { <-release; return 1, nil }
		for _, key := range []string{"a", "b"} {
			go func() { _, _ = g.Do(t.Context(), key, 0, time.Minute, wait) }()
		}
		synctest.Wait()
		g.ForgetAll()
		if _, err := g.Do(t.Context(), "c", 0, time.Minute, wait); !errors.Is(err, ErrFull) {
			t.Errorf("the third of two calls got %v", err)
		}
		close(release)
		synctest.Wait()
		if _, err := g.Do(t.Context(), "c", 0, time.Minute, wait); err != nil {
			t.Errorf("after two calls ended: %v", err)
		}
	})
}

func TestPanicEndsTheCallAndNotTheProcess(t *testing.T) {
	g := New[int](1, nil)
	_, err := g.Do(t.Context(), "key", 0, time.Minute, func(context.Context) (int, error) { panic("boom") })
	var p *PanicError
	if !errors.As(err, &p) || p.Value != "boom" || len(p.Stack) == 0 {
		t.Errorf("got %v; want the panic", err)
	}
}

func TestCloseCancelsAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New[int](1, nil)
		ended := false
		g.Start(nil, []string{"key"}, time.Minute, func(ctx context.Context, _ []int, _ func(int, int, error)) {
			<-ctx.Done()
			time.Sleep(time.Second)
			ended = true
		})
		g.Close()
		if !ended {
			t.Error("Close returned before its call did")
		}
		if _, err := g.Do(t.Context(), "key", 0, time.Minute, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// One function makes the calls of all keys that have none yet.
func TestStartMakesTheCallsOfManyKeysAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New[string](4, nil)
		go func() {
			_, _ = g.Do(t.Context(), "b", 0, time.Minute, func(context.Context) (string, error) {
				time.Sleep(time.Second)
				return "other", nil
			})
		}()
		synctest.Wait()
		calls := g.Start(nil, []string{"a", "b", "c", "a", "d", "e"}, time.Minute, func(_ context.Context, started []int, finish func(int, string, error)) {
			if !slices.Equal(started, []int{0, 2, 4}) {
				t.Errorf("started for %v; want a, c and d, which have no call, up to the bound", started)
			}
			finish(0, "mine", nil)
			time.Sleep(time.Hour)
		})
		for i, want := range []struct {
			value string
			err   error
		}{
			{value: "mine"}, {value: "other"}, {err: context.DeadlineExceeded},
			{value: "mine"}, {err: context.DeadlineExceeded}, {err: ErrFull},
		} {
			v, err := calls[i].Wait(context.Background())
			if v != want.value || !errors.Is(err, want.err) {
				t.Errorf("call %d: got %q, %v; want %q, %v", i, v, err, want.value, want.err)
			}
		}
		if n := g.Len(); n != 2 {
			t.Errorf("%d calls counted; want the 2 of which the function still holds the result", n)
		}
		g.Close()
		if _, err := g.Start(nil, []string{"a"}, time.Minute, nil)[0].Wait(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

func TestCallWithoutAResultFails(t *testing.T) {
	g := New[int](1, nil)
	calls := g.Start(nil, []string{"key"}, time.Minute, func(context.Context, []int, func(int, int, error)) {})
	if _, err := calls[0].Wait(t.Context()); err == nil {
		t.Error("got no error; want one, as the function passed no result")
	}
}

func BenchmarkDo(b *testing.B) {
	g := New[int](10, nil)
	fn := func(context.Context) (int, error) { return 1, nil }
	b.ReportAllocs()
	for b.Loop() {
		if _, err := g.Do(b.Context(), "key", 0, time.Minute, fn); err != nil {
			b.Fatal(err)
		}
	}
}

// counted is most bytes.
type counted struct {
	mu          sync.Mutex
	taken, most int64
}

func (c *counted) Take(n int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken+n > c.most {
		return false
	}
	c.taken += n
	return true
}

func (c *counted) Return(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taken -= n
}

func TestCallsTakeMemoryUntilTheyEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const value = 1000
		memory := &counted{most: runBytes + callBytes + 3 + value}
		g := New[int](10, memory)
		release := make(chan struct{})
		fn := func(context.Context) (int, error) { <-release; return 1, nil }
		impatient, cancel := context.WithCancel(t.Context())
		go func() { _, _ = g.Do(impatient, "key", value, time.Minute, fn) }()
		synctest.Wait()
		if memory.taken != memory.most {
			t.Errorf("got %d bytes taken by a call, want %d", memory.taken, memory.most)
		}
		if _, err := g.Do(t.Context(), "other", 0, time.Minute, fn); !errors.Is(err, ErrFull) {
			t.Errorf("got %v without memory, want ErrFull", err)
		}
		cancel() // the call goes on
		synctest.Wait()
		if memory.taken != memory.most {
			t.Errorf("got %d bytes taken after the caller has left, want %d", memory.taken, memory.most)
		}
		go close(release)
		if _, err := g.Do(t.Context(), "key", value, time.Minute, fn); err != nil {
			t.Errorf("got %v, want to join the call without memory", err)
		}
		synctest.Wait()
		if memory.taken != 0 || g.Len() != 0 {
			t.Errorf("got %d bytes and %d calls at the end, want none", memory.taken, g.Len())
		}
		g.Close()
	})
}
