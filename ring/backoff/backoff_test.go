package backoff

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestWaitsDoubleUpToTheLongest(t *testing.T) {
	b := Backoff{First: time.Second, Longest: 3 * time.Second}
	for i, most := range []time.Duration{1, 2, 3, 3, 1} {
		if i == 4 {
			b.Reset()
		}
		if got := b.Next(); got < most*time.Second/2 || got >= most*time.Second {
			t.Errorf("wait %d: got %v, want at least %v and less than %v", i, got, most*time.Second/2, most*time.Second)
		}
	}
}

func TestWaitsAreRandom(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 100 {
		b := Backoff{First: time.Hour, Longest: time.Hour}
		seen[b.Next()] = true
	}
	if len(seen) < 90 {
		t.Errorf("got %d different waits of 100, want almost all different", len(seen))
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if Sleep(ctx, time.Minute) || time.Since(began) != time.Second {
			t.Errorf("slept %v of a minute, want one second, the lifetime of the context", time.Since(began))
		}
		b := Backoff{First: time.Minute, Longest: time.Minute}
		if b.Wait(ctx) || time.Since(began) != time.Second {
			t.Error("waited after the context had ended")
		}
		if !Sleep(t.Context(), time.Minute) || time.Since(began) != time.Minute+time.Second {
			t.Errorf("got %v after the start, want 1m1s: a full minute of sleep", time.Since(began))
		}
	})
}
