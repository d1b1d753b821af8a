package origintest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
)

func TestFakeAnswersFromTheMomentItBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(map[string]string{"a": "old"})
		release := f.Block()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		got := make(chan origin.Result)
		go func() {
			results, err := f.Load(ctx, []string{"a"})
			if err != nil {
				t.Error(err)
			}
			got <- results[0]
		}()
		synctest.Wait()
		f.Set("a", "new")
		release()
		if r := <-got; string(r.Value.Data) != "old" || r.Value.Version != 1 {
			t.Errorf("got %q at version %d, want the row as it was", r.Value.Data, r.Value.Version)
		}
		if f.Queries() != 1 || f.Keys() != 1 || f.Asked("a") != 1 || f.Flying() != 0 || f.Peak() != 1 {
			t.Error("got wrong counts")
		}
	})
}

func TestFakeLeavesWhenTheContextIsDone(t *testing.T) {
	for name, hold := range map[string]func(*origintest.Fake){
		"blocked": func(f *origintest.Fake) { f.Block() },
		"slow":    func(f *origintest.Fake) { f.Slow(time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := origintest.New(nil)
				hold(f)
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				start := time.Now()
				_, err := f.Load(ctx, []string{"a"})
				if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
					t.Errorf("%v after %v", err, time.Since(start))
				}
			})
		})
	}
}

func TestFakeChecksItsCaller(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for name, load := range map[string]func(*origintest.Fake){
		"no deadline": func(f *origintest.Fake) { f.Load(t.Context(), []string{"a"}) },
		"no keys":     func(f *origintest.Fake) { f.Load(ctx, nil) },
		"empty key":   func(f *origintest.Fake) { f.Load(ctx, []string{""}) },
		"twice":       func(f *origintest.Fake) { f.Load(ctx, []string{"a", "a"}) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("no panic")
				}
			}()
			load(origintest.New(nil))
		})
	}
}

func TestFakeConforms(t *testing.T) {
	origintest.Conformance(t, origintest.Subject{
		New: func(_ *testing.T, rows map[string]string) origin.Origin { return origintest.New(rows) },
		Stuck: func(*testing.T) origin.Origin {
			f := origintest.New(nil)
			f.Block()
			return f
		},
	})
}
