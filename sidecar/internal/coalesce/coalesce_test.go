package coalesce

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

func TestRequestsDuringOneBecomeOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var rounds [][]int
		m := New(func(_ context.Context, list []int) int {
			rounds = append(rounds, list)
			<-release
			return len(rounds)
		})
		results := make([]int, 100)
		var all sync.WaitGroup
		do := func(i int) {
			all.Go(func() { results[i], _ = m.Do(t.Context(), []int{i}) })
			synctest.Wait()
		}
		for i := range results {
			do(i)
		}
		close(release)
		all.Wait()
		if len(rounds) != 2 || !slices.Equal(rounds[0], []int{0}) || len(rounds[1]) != 99 {
			t.Errorf("got %v, want the first alone and then all others together", rounds)
		}
		for i, r := range results {
			if want := min(i+1, 2); r != want {
				t.Errorf("request %d got the result of round %d, want %d", i, r, want)
			}
		}
		m.Close()
	})
}

func TestCallerThatLeavesEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, done := make(chan struct{}), 0
		m := New(func(_ context.Context, list []int) int {
			<-release
			done += len(list)
			return 0
		})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i := range 2 {
			all.Go(func() {
				if _, err := m.Do(ctx, []int{i}); !errors.Is(err, context.Canceled) {
					t.Errorf("got %v", err)
				}
			})
			synctest.Wait()
		}
		cancel()
		all.Wait()
		close(release)
		synctest.Wait()
		if done != 2 {
			t.Errorf("%d of 2 requests were carried out", done)
		}
		m.Close()
	})
}

func TestCloseEndsWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(func(ctx context.Context, _ []int) error {
			<-ctx.Done()
			return ctx.Err()
		})
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() { _, _ = m.Do(t.Context(), []int{1}) })
		}
		synctest.Wait()
		m.Close()
		all.Wait()
		if _, err := m.Do(t.Context(), nil); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: got %v", err)
		}
	})
}
