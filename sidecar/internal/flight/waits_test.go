package flight

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"weak"
)

// A batch holds values until its response has been sent. A call that goes on after its reader has left must not hold them.
func TestReaderThatLeftIsNotHeld(t *testing.T) {
	g := New[int](1, nil)
	release := make(chan struct{})
	defer g.Close()
	defer close(release)
	calls := g.Start(nil, []string{"key"}, time.Hour, func(_ context.Context, _ []int, finish func(int, int, error)) { <-release })
	held := readAndLeave(t, calls)
	runtime.GC()
	if held.Value() != nil {
		t.Error("the call that is running holds what its reader held")
	}
	runtime.KeepAlive(calls)
}

// readAndLeave waits for calls with a context that has ended, and returns what the wait has held.
func readAndLeave(t *testing.T, calls []*Call[int]) weak.Pointer[[1 << 20]byte] {
	values, left := new([1 << 20]byte), false
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	Each(calls, func(_ int, _ int, err error) { values[0]++; left = errors.Is(err, context.Canceled) }).Wait(ctx, nil)
	if !left || values[0] != 1 {
		t.Errorf("the reader that left got %d results; want the one that it was canceled", values[0])
	}
	return weak.Make(values)
}

func TestPanicOfOneWaitLeavesTheOthersTheirResult(t *testing.T) {
	g := New[int](1, nil)
	release, got := make(chan struct{}), 0
	calls := g.Start(nil, []string{"key"}, time.Hour, func(_ context.Context, _ []int, finish func(int, int, error)) {
		<-release
		finish(0, 7, nil)
	})
	take := func(_ int, value int, _ error) { got += value }
	waits := []*Waits[int]{
		Each(calls, take), Each(calls, func(int, int, error) { panic("boom") }), Each(calls, take),
	}
	close(release)
	for i, w := range waits {
		select {
		case <-w.done:
		case <-time.After(time.Minute):
			t.Errorf("wait %d has no result", i)
		}
	}
	g.Close()
	if got != 14 {
		t.Errorf("the results add up to %d; want 14, 7 for each of the two others", got)
	}
}

func TestPanicOfAWaitAtTheTimeoutDoesNotEndTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New[int](1, nil)
		release := make(chan struct{})
		calls := g.Start(nil, []string{"key"}, time.Second, func(context.Context, []int, func(int, int, error)) { <-release })
		var got error
		Each(calls, func(int, int, error) { panic("boom") })
		Each(calls, func(_ int, _ int, err error) { got = err })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !errors.Is(got, context.DeadlineExceeded) {
			t.Errorf("the other wait got %v", got)
		}
		close(release)
		g.Close()
	})
}
