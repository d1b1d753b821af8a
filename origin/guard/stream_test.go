package guard_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/guard"
)

// rowByRow is an origin that has one row per second, with the key as its value. It fails at the key "bad".
type rowByRow struct{}

func (o rowByRow) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	return origin.Collect(ctx, o, keys)
}

func (rowByRow) LoadEach(_ context.Context, keys []string, yield func(int, origin.Result)) error {
	for i, key := range keys {
		time.Sleep(time.Second)
		if key == "bad" {
			return errDown
		}
		yield(i, origin.Result{Value: origin.Value{Data: []byte(key)}})
	}
	return nil
}

func slowRows() *guard.Batch {
	b := guard.NewBreaker(rowByRow{}, guard.BreakerConfig{})
	return guard.NewBatch(b, guard.BatchConfig{Limiter: guard.NewLimiter(guard.LimitConfig{})})
}

func TestCallersGetEachRowWhenItArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, free := busy(t, guard.NewBreaker(rowByRow{}, guard.BreakerConfig{}), 0)
		began := time.Now()
		load := func(keys ...string) {
			last := 0
			err := origin.LoadEach(minute(t), b, keys, func(i int, r origin.Result) {
				seconds := int(time.Since(began) / time.Second)
				equal(t, "the value", string(r.Value.Data), keys[i])
				if seconds <= last {
					t.Errorf("%s arrived after %d s; want it one second after the key before it", keys[i], seconds)
				}
				last = seconds
			})
			wantErr(t, err, nil)
			equal(t, "seconds until the last row", last, 3)
		}
		var all sync.WaitGroup
		all.Go(func() { load("a", "b", "c") })
		synctest.Wait()
		all.Go(func() { load("b", "c") })
		synctest.Wait()
		free()
		all.Wait()
	})
}

func TestCallerThatLeavesGetsNothingMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := slowRows()
		go func() { _, _ = b.Load(minute(t), []string{"a", "b"}) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		values, left := 0, false
		err := origin.LoadEach(ctx, b, []string{"a", "b"}, func(_ int, r origin.Result) {
			if left {
				t.Error("got a result after the return")
			}
			if r.Err == nil {
				values++
			}
		})
		left = true
		wantErr(t, err, nil)
		equal(t, "values before the deadline", values, 1)
		b.Wait()
	})
}

func TestRowsBeforeAFailureAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		results, err := slowRows().Load(minute(t), []string{"a", "bad", "c"})
		wantErr(t, err, nil)
		equal(t, "the value before the failure", string(results[0].Value.Data), "a")
		wantErr(t, results[1].Err, errDown)
		wantErr(t, results[2].Err, errDown)
	})
}
