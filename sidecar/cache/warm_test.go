package cache

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/guard"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/internal/warm"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// keysOf lists the keys of a fake origin, as long as it answers.
type keysOf struct {
	*origintest.Fake
	lists atomic.Int64
}

func (k *keysOf) ListKeys(ctx context.Context, _ string, yield func(string) bool) error {
	k.lists.Add(1)
	after := ""
	for {
		rows, err := k.List(ctx, origin.ListQuery{After: after, Limit: 1000})
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, row := range rows {
			if after = row.Key; !yield(row.Key) {
				return nil
			}
		}
	}
}

// warming is a cluster whose members keep all keys warm.
type warming struct {
	*cluster
	origin *keysOf
	keys   []string
	passes []warm.Pass // guarded by mu
	mu     sync.Mutex
}

func newWarming(t *testing.T, members int, p kv.Policy, interval time.Duration, pin bool, maxBytes int64) *warming {
	rows, keys := manyRows()
	w := &warming{origin: &keysOf{Fake: origintest.New(rows)}, keys: keys}
	w.cluster = &cluster{t: t, order: func(int) (int, int) { return 0, 1 }, prev: -1}
	for i := range members {
		d, err := New(Config{
			Name: "test", Policy: p, Origin: w.origin, Peers: seenFrom{w.cluster, i}, MaxBytes: maxBytes,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(d.Close)
		w.members = append(w.members, d)
		limiter := guard.NewLimiter(guard.LimitConfig{})
		run, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		runner := warm.New(warm.Config{
			Dataset: d, Work: d.Work(), Origin: w.origin, Keys: w.origin, Turn: limiter.EnterIdle, Batch: 100,
			Interval: interval, Pin: pin,
			Done: func(p warm.Pass) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.passes = append(w.passes, p)
			},
		})
		go func() {
			defer close(done)
			_ = runner.Run(run)
		}()
		t.Cleanup(func() { stop(); <-done })
	}
	return w
}

// failures reads each key once, and returns how many reads failed or were stale.
func (w *warming) failures(d *Dataset) (failed, stale int) {
	for _, key := range w.keys {
		switch a, err := d.Get(w.t.Context(), key, kv.ReadOptions{}); {
		case err != nil || string(a.Value) != "v":
			failed++
		case a.Stale:
			stale++
		}
	}
	return failed, stale
}

const memoryOfTests = 64 << 20

func TestKeysThatWereNeverReadAreServedInAnOutage(t *testing.T) {
	for _, after := range []time.Duration{time.Second, 7 * time.Minute, time.Hour} { // whenever it begins
		synctest.Test(t, func(t *testing.T) {
			w := newWarming(t, 1, testPolicy(), 77*time.Second, false, memoryOfTests)
			time.Sleep(after)
			w.members[0].Sweep()
			w.origin.Fail(errDown)
			queries := w.origin.Queries()
			if failed, _ := w.failures(w.members[0]); failed > 0 {
				t.Errorf("%v after the start, %d of %d reads failed", after, failed, len(w.keys))
			}
			time.Sleep(3 * time.Minute)
			w.members[0].Sweep()
			if failed, stale := w.failures(w.members[0]); failed > 0 || stale != len(w.keys) {
				t.Errorf("in the fourth minute of the outage, %d of %d reads failed, and %d were stale", failed, len(w.keys), stale)
			}
			if n := w.origin.Queries() - queries; after < time.Minute && n > int64(2*len(w.keys)+100) {
				t.Errorf("%d queries in the outage", n)
			}
		})
	}
}

func TestEachKeyIsLoadedByItsOwnerAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWarming(t, 2, testPolicy(), time.Hour, false, memoryOfTests)
		time.Sleep(time.Minute)
		if n := w.origin.Keys(); n != cachedKeys {
			t.Errorf("%d keys were loaded; want each of %d once", n, cachedKeys)
		}
		w.order = func(int) (int, int) { return 1, 0 }
		for _, d := range w.members {
			d.RingChanged()
		}
		time.Sleep(time.Second)
		if n, held := w.origin.Keys(), w.members[1].Memory().Entries; n != 2*cachedKeys || held != cachedKeys {
			t.Errorf("%d keys were loaded, the new owner holds %d; want each once more, by the new owner", n, held)
		}
	})
}

func TestChangedRowIsLoadedBeforeItIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWarming(t, 1, testPolicy(), time.Hour, false, memoryOfTests)
		time.Sleep(time.Second)
		w.origin.Set("k1", "new")
		w.origin.Set("inserted", "new")
		for _, key := range []string{"k1", "inserted"} {
			w.members[0].ApplyInvalidation(kv.Invalidation{Key: key})
		}
		time.Sleep(time.Second)
		w.origin.Fail(errDown)
		for _, key := range []string{"k1", "inserted"} {
			expect(t, get(t, w.members[0], key), "new", kv.SourceHit)
		}
	})
}

func TestWarmEntriesAreLoadedAgainAfterAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPolicy()
		p.TTL, p.GapTTL = time.Hour, time.Second
		w := newWarming(t, 1, p, 20*time.Minute, false, memoryOfTests)
		w.members[0].SetFeedLive(true)
		time.Sleep(time.Second)
		w.members[0].SetFeedLive(false)
		w.members[0].ExpireAll()
		w.members[0].SetFeedLive(true)
		time.Sleep(time.Second)
		if failed, stale := w.failures(w.members[0]); failed+stale > 0 {
			t.Errorf("%d reads failed and %d were stale; want only hits", failed, stale)
		}
		if n := w.members[0].Stats().Hit.Load(); n != cachedKeys {
			t.Errorf("%d hits; want %d", n, cachedKeys)
		}
	})
}

func TestFailedWarmUpIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWarming(t, 1, testPolicy(), time.Hour, false, memoryOfTests)
		w.origin.Fail(errDown)
		time.Sleep(10 * time.Minute)
		if n := w.origin.lists.Load(); n < 10 || n > 60 {
			t.Errorf("%d lists in 10 minutes of outage; want one per 30s at most, after the first", n)
		}
		w.origin.Fail(nil)
		time.Sleep(time.Minute)
		st := w.members[0].Stats()
		if st.WarmPasses.Load() != 1 || st.WarmKeys.Load() != cachedKeys || st.WarmLoaded.Load() != cachedKeys {
			t.Errorf("%d passes, %d keys, %d loaded after the outage; want 1 with all keys",
				st.WarmPasses.Load(), st.WarmKeys.Load(), st.WarmLoaded.Load())
		}
	})
}

func TestWarmUpEvictsNothing(t *testing.T) {
	for _, maxBytes := range []int64{40 << 10, 54 << 10} { // of some 100 KiB; the list, and the entries, do not fit
		synctest.Test(t, func(t *testing.T) {
			w := newWarming(t, 1, testPolicy(), time.Minute, false, maxBytes)
			time.Sleep(5 * time.Minute)
			w.mu.Lock()
			defer w.mu.Unlock()
			m := w.members[0].Memory()
			for _, pass := range w.passes {
				if pass.Omitted == 0 || int64(pass.Keys) > maxBytes/256 {
					t.Errorf("%d keys were listed and %d omitted; want those that fit into %d bytes", pass.Keys, pass.Omitted, maxBytes)
				}
			}
			if m.Evictions > 0 || m.Bytes > maxBytes || m.Entries == 0 || len(w.passes) < 2 {
				t.Errorf("%d evictions, %d bytes of %d, %d entries, %d passes", m.Evictions, m.Bytes, maxBytes, m.Entries, len(w.passes))
			}
		})
	}
}

func TestPinnedKeysSurviveAScan(t *testing.T) {
	for _, pin := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWarming(t, 1, testPolicy(), time.Hour, pin, 200<<10)
			time.Sleep(time.Second)
			for i := range 5000 {
				_, _ = w.members[0].Get(t.Context(), fmt.Sprint("absent", i), kv.ReadOptions{})
			}
			w.origin.Fail(errDown)
			if failed, _ := w.failures(w.members[0]); (failed == 0) != pin {
				t.Errorf("pin %t: %d of %d keys are gone after a scan", pin, failed, len(w.keys))
			}
		})
	}
}
