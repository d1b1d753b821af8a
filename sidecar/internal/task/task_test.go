package task

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestFailureEndsTheRunUnlessStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failed error
		g := NewGroup(func(err error) { failed = err })
		stopped := g.Go("first", func(ctx context.Context) error {
			<-ctx.Done()
			return errors.New("ended")
		})
		stopped.Stop()
		if failed != nil {
			t.Errorf("got %v from a task that was stopped, want nil", failed)
		}
		g.Go("second", func(context.Context) error { return errors.New("broken") })
		synctest.Wait()
		if failed == nil || failed.Error() != "second: broken" {
			t.Errorf("got %v, want second: broken", failed)
		}
		(*Task)(nil).Stop()
	})
}

func TestEveryRunsUntilItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3500*time.Millisecond)
		defer cancel()
		n := 0
		if err := Every(ctx, time.Second, func() { n++ }); err != nil || n != 3 {
			t.Errorf("got %d calls and %v in 3.5 s, want 3 and nil", n, err)
		}
	})
}
