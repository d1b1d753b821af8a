package guard_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/guard"
	"github.com/ringside-cache/ringside/origin/origintest"
)

func TestBreakerOpensOnConsecutiveFailuresAndProbesAfterItsCooldown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(map[string]string{"a": "1"})
		b := guard.NewBreaker(f, guard.BreakerConfig{Failures: 3, Cooldown: time.Second})
		load := func() error { return start(minute(t), b, "a").wait().err }
		f.Fail(errDown)
		for range 3 {
			wantErr(t, load(), errDown)
		}
		wantErr(t, load(), guard.ErrOpen)
		equal(t, "overload, which it is not", errors.Is(load(), origin.ErrOverloaded), false)
		equal(t, "queries", f.Queries(), 3)
		equal(t, "stats", b.Stats(), guard.BreakerStats{Open: true, Refused: 2})
		time.Sleep(time.Second + 1)
		wantErr(t, load(), errDown) // the probe
		wantErr(t, load(), guard.ErrOpen)
		equal(t, "queries after a failed probe", f.Queries(), 4)
		f.Fail(nil)
		time.Sleep(time.Second + 1)
		wantErr(t, load(), nil)
		wantErr(t, load(), nil)
		equal(t, "open at the end", b.Stats().Open, false)
	})
}

func TestBreakerLetsOneProbeThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(nil)
		b := guard.NewBreaker(f, guard.BreakerConfig{Failures: 1, Cooldown: time.Second})
		f.Fail(errDown)
		wantErr(t, start(minute(t), b, "a").wait().err, errDown)
		f.Fail(nil)
		time.Sleep(time.Second + 1)
		release := f.Block()
		probe := start(minute(t), b, "a")
		synctest.Wait()
		wantErr(t, start(minute(t), b, "a").wait().err, guard.ErrOpen)
		release()
		wantErr(t, probe.wait().err, nil)
		wantErr(t, start(minute(t), b, "a").wait().err, nil)
	})
}

// A frozen origin answers nothing. The caller of a batch leaves when its time has passed, which ends the Load of the batch.
func TestBreakerOpensOnLoadsThatTimeOut(t *testing.T) {
	for name, gate := range map[string]func(origin.Origin) origin.Origin{
		"alone": func(o origin.Origin) origin.Origin { return o },
		"batched": func(o origin.Origin) origin.Origin {
			return guard.NewBatch(o, guard.BatchConfig{})
		},
		"limited": func(o origin.Origin) origin.Origin {
			return guard.NewBatch(o, guard.BatchConfig{Limiter: guard.NewLimiter(guard.LimitConfig{MaxInFlight: 2})})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := origintest.New(nil)
				release := f.Block()
				defer release()
				b := guard.NewBreaker(canceling{f}, guard.BreakerConfig{Failures: 3, Cooldown: time.Hour})
				o := gate(b)
				for range 3 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Second)
					wantErr(t, start(ctx, o, "a").wait().err, context.DeadlineExceeded)
					cancel()
					time.Sleep(time.Second) // the batch ends
				}
				equal(t, "open", b.Stats().Open, true)
			})
		})
	}
}

// canceling reports each end of the context as a cancellation, as a driver may whose statement was canceled.
type canceling struct{ origin.Origin }

func (c canceling) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	results, err := c.Origin.Load(ctx, keys)
	if ctx.Err() == context.Canceled {
		err = fmt.Errorf("statement canceled: %w", ctx.Err())
	}
	return results, err
}

// After a probe without a result, another probe must be possible, or the breaker never closes.
func TestBreakerIgnoresACancelledProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(nil)
		b := guard.NewBreaker(f, guard.BreakerConfig{Failures: 1, Cooldown: time.Second})
		f.Fail(errDown)
		wantErr(t, start(minute(t), b, "a").wait().err, errDown)
		f.Fail(nil)
		time.Sleep(time.Second + 1)
		f.Block()
		ctx, cancel := context.WithCancel(minute(t))
		probe := start(ctx, b, "a")
		synctest.Wait()
		cancel()
		wantErr(t, probe.wait().err, context.Canceled)
		f.Block()()
		wantErr(t, start(minute(t), b, "a").wait().err, nil)
	})
}

func TestBreakerIgnoresWhatIsNotAFailure(t *testing.T) {
	for name, step := range map[string]struct {
		fail error
		keys []string
		left bool
	}{
		"absent":      {keys: []string{"absent"}},
		"data error":  {keys: []string{"spoiled"}},
		"invalid":     {keys: []string{"\x00"}},
		"overloaded":  {keys: []string{"a"}, fail: fmt.Errorf("%w: full", origin.ErrOverloaded)},
		"caller left": {keys: []string{"a"}, left: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := origintest.New(nil)
			f.Fail(step.fail)
			f.Spoil("spoiled", origin.SeveralRows)
			b := guard.NewBreaker(f, guard.BreakerConfig{Failures: 1})
			for range 5 {
				ctx, cancel := context.WithCancel(minute(t))
				if step.left {
					cancel()
				}
				_, _ = b.Load(ctx, step.keys)
				cancel()
			}
			equal(t, "queries", f.Queries(), 5)
			equal(t, "stats", b.Stats(), guard.BreakerStats{Closed: true})
		})
	}
}
