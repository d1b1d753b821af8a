package guard_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/guard"
	"github.com/ringside-cache/ringside/origin/origintest"
)

// writing turns each Load into a Write.
type writing struct{ writer origin.Writer }

func (w writing) Load(ctx context.Context, keys []string) ([]origin.Result, error) {
	v, err := w.writer.Write(ctx, origin.Change{Key: keys[0]})
	return []origin.Result{{Value: v}}, err
}

// listing turns each Load into a List.
type listing struct{ lister origin.Lister }

func (l listing) Load(ctx context.Context, _ []string) ([]origin.Result, error) {
	_, err := l.lister.List(ctx, origin.ListQuery{Limit: 1})
	return nil, err
}

func TestLimiterRejectsAtOnceWhenTheQueueIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, other := origintest.New(nil), origintest.New(nil)
		f.Slow(time.Second)
		other.Slow(time.Second)
		l := guard.NewLimiter(guard.LimitConfig{MaxInFlight: 2, MaxQueue: 3})
		a, b := writing{l.Writer(f)}, listing{l.Lister(other)}
		var calls []*call
		for i := range 6 {
			calls = append(calls, start(minute(t), []origin.Origin{a, b}[i%2], "k"))
			synctest.Wait()
		}
		equal(t, "stats", l.Stats(), guard.LimitStats{MaxInFlight: 2, MaxQueue: 3, InFlight: 2, Queued: 3, Refused: 1})
		wantErr(t, calls[5].wait().err, origin.ErrOverloaded)
		equal(t, "the refused one waits", calls[5].took, 0)
		for i, took := range []time.Duration{1, 1, 2, 2, 3} {
			equal(t, fmt.Sprintf("call %d", i), calls[i].wait().took, took*time.Second)
		}
		equal(t, "stats at rest", l.Stats(), guard.LimitStats{MaxInFlight: 2, MaxQueue: 3, Refused: 1})
		equal(t, "writes and lists begun", f.Writes()+other.Queries(), 5)
	})
}

func TestAppendsNeedATurn(t *testing.T) {
	f := origintest.New(nil)
	l := guard.NewLimiter(guard.LimitConfig{MaxInFlight: 1, MaxQueue: -1})
	release := f.BlockWrites()
	defer release()
	first := start(minute(t), writing{l.Writer(f)}, "a")
	for f.Writes() == 0 {
		runtime.Gosched()
	}
	_, err := l.Writer(f).Append(minute(t), []byte("v"))
	wantErr(t, err, origin.ErrOverloaded)
	wantErr(t, l.Writer(f).WriteMany(minute(t), []origin.Change{{Key: "b"}})[0].Err, origin.ErrOverloaded)
	release()
	wantErr(t, first.wait().err, nil)
	row, err := l.Writer(f).Append(minute(t), []byte("v"))
	wantErr(t, err, nil)
	equal(t, "key", row.Key, "row-1")
	equal(t, "in flight", l.Stats().InFlight, int64(0))
}

func TestLimiterLetsACallerLeaveTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(nil)
		release := f.BlockWrites()
		l := guard.NewLimiter(guard.LimitConfig{MaxInFlight: 1, MaxQueue: 2})
		o := writing{l.Writer(f)}
		first := start(minute(t), o, "a")
		synctest.Wait()
		short, cancelShort := context.WithTimeout(t.Context(), time.Second)
		defer cancelShort()
		cancelled, cancel := context.WithCancel(minute(t))
		late, gone := start(short, o, "b"), start(cancelled, o, "c")
		synctest.Wait()
		cancel()
		wantErr(t, gone.wait().err, context.Canceled)
		equal(t, "a caller that left was refused", errors.Is(gone.err, origin.ErrOverloaded), false)
		wantErr(t, late.wait().err, origin.ErrOverloaded)
		wantErr(t, late.err, context.DeadlineExceeded)
		equal(t, "took", late.took, time.Second)
		release()
		wantErr(t, first.wait().err, nil)
		equal(t, "stats", l.Stats(), guard.LimitStats{MaxInFlight: 1, MaxQueue: 2, GaveUp: 2})
		equal(t, "writes", f.Writes(), 1)
	})
}

func TestLimiterWithoutAQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := origintest.New(nil)
		f.Slow(time.Second)
		o := writing{guard.NewLimiter(guard.LimitConfig{MaxInFlight: 1, MaxQueue: -1}).Writer(f)}
		first := start(minute(t), o, "a")
		synctest.Wait()
		wantErr(t, start(minute(t), o, "b").wait().err, origin.ErrOverloaded)
		wantErr(t, first.wait().err, nil)
	})
}

// guarded is a Fake within a budget.
type guarded struct {
	origin.Origin
	origin.Writer
	origin.Lister
}

func within(f *origintest.Fake) origintest.Rows {
	l := guard.NewLimiter(guard.LimitConfig{})
	return guarded{guard.NewBatch(f, guard.BatchConfig{Limiter: l}), l.Writer(f), l.Lister(f)}
}

func TestLimiterConformsAsAWriter(t *testing.T) {
	origintest.ConformanceWriter(t, origintest.WriterSubject{
		New: func(_ *testing.T, rows map[string]string) origintest.Rows { return within(origintest.New(rows)) },
		Unversioned: func(*testing.T) origintest.Rows {
			f := origintest.New(map[string]string{"a": "old"})
			f.Unversioned()
			return within(f)
		},
		Stuck: func(*testing.T) (origintest.Rows, func()) {
			f := origintest.New(map[string]string{"a": "old"})
			return within(f), f.BlockWrites()
		},
	})
}

func TestBackgroundStatementsUseIdleTurnsOnly(t *testing.T) {
	for _, turns := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			l := guard.NewLimiter(guard.LimitConfig{MaxInFlight: turns})
			f := origintest.New(nil)
			release := f.Block()
			defer release()
			batch := guard.NewBatch(f, guard.BatchConfig{MaxKeys: 1, Limiter: l})
			idle := func() (leave func(), ok bool) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				leave, err := l.EnterIdle(ctx)
				return leave, err == nil
			}
			leave, ok := idle()
			equal(t, "turn of an idle origin", ok, true)
			_, ok = idle()
			equal(t, "second background statement", ok, false)
			leave()
			var loads []*call
			for i := range turns - 1 {
				loads = append(loads, start(minute(t), batch, fmt.Sprint(i)))
			}
			if turns == 1 {
				loads = append(loads, start(minute(t), batch, "a"))
			}
			synctest.Wait()
			time.Sleep(time.Millisecond) // the wait of a batch
			_, ok = idle()
			equal(t, "last free turn", ok, false)
			release()
			for _, l := range loads {
				l.wait()
			}
			leave, ok = idle()
			equal(t, "turn after the loads", ok, true)
			leave()
			equal(t, "in flight", l.Stats().InFlight, 0)
		})
	}
}
