package sqldb

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestServerTimeoutIsBelowTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for left, want := range map[time.Duration]time.Duration{
			time.Second: 900 * time.Millisecond, 5 * time.Millisecond: 4 * time.Millisecond,
			time.Microsecond: time.Millisecond, -time.Second: time.Millisecond,
		} {
			ctx, cancel := context.WithTimeout(t.Context(), left)
			defer cancel()
			if got := ServerTimeout(ctx); got != want {
				t.Errorf("%v left: %v, want %v", left, got, want)
			}
		}
		if got := ServerTimeout(t.Context()); got != 0 {
			t.Errorf("no deadline: %v", got)
		}
	})
}
