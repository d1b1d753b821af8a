package cache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func TestReadIsLoadedOnceAndThenHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		d := newDataset(t, o, nil, testPolicy())
		expect(t, get(t, d, "k"), "v", kv.SourceLoad)
		expect(t, get(t, d, "k"), "v", kv.SourceHit)
		if o.Queries() != 1 {
			t.Errorf("%d queries; want 1", o.Queries())
		}
	})
}

// A read that renewed the age of an entry would keep the hottest key forever.
func TestReadNeverRenewsAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		d := newDataset(t, o, nil, testPolicy())
		get(t, d, "k")
		o.Set("k", "new")
		for range 99 {
			time.Sleep(100 * time.Millisecond)
			expect(t, get(t, d, "k"), "old", kv.SourceHit)
		}
		time.Sleep(100 * time.Millisecond) // 10s: the ttl
		expect(t, get(t, d, "k"), "new", kv.SourceLoad)
	})
}

func TestTTLCountsFromBeforeTheLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		o.Slow(900 * time.Millisecond)
		d := newDataset(t, o, nil, testPolicy())
		a := get(t, d, "k")
		if a.Age != 900*time.Millisecond || a.Fresh != 9100*time.Millisecond {
			t.Errorf("age %v, fresh %v; want 900ms and 9.1s", a.Age, a.Fresh)
		}
	})
}

// Jitter only shortens: ttl is the promise.
func TestJitterSpreadsExpiryBelowTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPolicy()
		p.TTLJitter = 0.1
		o := origintest.New(nil)
		d := newDataset(t, o, nil, p)
		seen := map[time.Duration]bool{}
		for i := range 100 {
			key := fmt.Sprint(i)
			o.Set(key, "v")
			a := get(t, d, key)
			if a.Fresh > p.TTL || a.Fresh < p.TTL*9/10 {
				t.Fatalf("fresh for %v; want 9s to 10s", a.Fresh)
			}
			seen[a.Fresh] = true
		}
		if len(seen) < 90 {
			t.Errorf("100 entries expire at %d times", len(seen))
		}
	})
}

func TestNotFoundIsAnAnswerForNegativeTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		d := newDataset(t, o, nil, testPolicy())
		for range 1000 {
			if a := get(t, d, "none"); !a.NotFound || a.Value != nil || a.ETag != "" {
				t.Fatalf("got %+v; want absent", a)
			}
		}
		if o.Queries() != 1 {
			t.Errorf("%d queries for an absent key; want 1", o.Queries())
		}
		o.Set("none", "now")
		time.Sleep(time.Second)
		expect(t, get(t, d, "none"), "now", kv.SourceLoad)
	})
}

func TestOutageIsNeverCachedAsNotFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		d := newDataset(t, o, nil, testPolicy())
		o.Fail(errDown)
		_, err := d.Get(t.Context(), "k", kv.ReadOptions{})
		if kv.KindOf(err) != kv.KindUnavailable || kv.RetryAfter(err) == 0 || !errors.Is(err, errDown) {
			t.Errorf("during the outage: %v (kind %d)", err, kv.KindOf(err))
		}
		o.Fail(nil)
		expect(t, get(t, d, "k"), "v", kv.SourceLoad)
	})
}

func TestEmptyValueIsNotAbsent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDataset(t, origintest.New(map[string]string{"k": ""}), nil, testPolicy())
		if a := get(t, d, "k"); a.NotFound || a.ETag == "" {
			t.Errorf("got %+v; want an empty value", a)
		}
	})
}

func TestErrorsHaveKinds(t *testing.T) {
	overloaded := fmt.Errorf("queue full: %w", origin.ErrOverloaded)
	for _, c := range []struct {
		name, key string
		fail      error
		want      kv.Kind
	}{
		{"empty key", "", nil, kv.KindInvalidKey},
		{"long key", strings.Repeat("x", kv.MaxKeyBytes+1), nil, kv.KindInvalidKey},
		{"key that is not UTF-8", "a\xff", nil, kv.KindInvalidKey},
		{"NUL in key", "a\x00b", nil, kv.KindInvalidKey},
		{"overloaded origin", "k", overloaded, kv.KindOverloaded},
		{"dead origin", "k", errDown, kv.KindUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := origintest.New(map[string]string{"k": "v"})
				o.Fail(c.fail)
				d := newDataset(t, o, nil, testPolicy())
				if _, err := d.Get(t.Context(), c.key, kv.ReadOptions{}); kv.KindOf(err) != c.want {
					t.Errorf("got %v, kind %d; want kind %d", err, kv.KindOf(err), c.want)
				}
				if n := d.Stats().Error.Load(); n != 1 {
					t.Errorf("%d errors counted; want 1", n)
				}
			})
		})
	}
}

func TestSlowOriginEndsAtLoadTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		o.Slow(time.Minute)
		d := newDataset(t, o, nil, testPolicy())
		began := time.Now()
		_, err := d.Get(t.Context(), "k", kv.ReadOptions{})
		if kv.KindOf(err) != kv.KindUnavailable || time.Since(began) != time.Second {
			t.Errorf("got %v after %v; want unavailable after 1s", err, time.Since(began))
		}
	})
}

func TestCallersDeadlineIsTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		o.Slow(500 * time.Millisecond)
		d := newDataset(t, o, nil, testPolicy())
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := d.Get(ctx, "k", kv.ReadOptions{}); kv.KindOf(err) != kv.KindDeadline {
			t.Errorf("got %v; want the caller's deadline", err)
		}
		// The load goes on for those who come later.
		time.Sleep(400 * time.Millisecond)
		synctest.Wait()
		expect(t, get(t, d, "k"), "v", kv.SourceHit)
	})
}

func TestCancelOfOneWaiterFailsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const waiters = 10000
		o := origintest.New(map[string]string{"k": "v"})
		release := o.Block()
		d := newDataset(t, o, nil, testPolicy())
		var failed, left atomic.Int64
		var all sync.WaitGroup
		leaver, leave := context.WithCancel(t.Context())
		read := func(ctx context.Context, count *atomic.Int64) {
			if _, err := d.Get(ctx, "k", kv.ReadOptions{}); err != nil {
				count.Add(1)
			}
		}
		all.Go(func() { read(leaver, &left) })
		synctest.Wait()
		for range waiters {
			all.Go(func() { read(t.Context(), &failed) })
		}
		synctest.Wait()
		leave()
		synctest.Wait()
		release()
		all.Wait()
		if failed.Load() != 0 || left.Load() != 1 {
			t.Errorf("%d of %d waiters failed by another's cancel (left: %d)", failed.Load(), waiters, left.Load())
		}
		if o.Queries() != 1 {
			t.Errorf("%d queries; want 1", o.Queries())
		}
	})
}

// Between a caller's miss and its flight another flight may end: without a second look there are two queries.
func TestLateMissFindsWhatAFlightHasStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		late := &lateRoute{gate: make(chan struct{})}
		d := newDataset(t, o, late, testPolicy())
		var reader sync.WaitGroup
		reader.Go(func() { expect(t, get(t, d, "k"), "v", kv.SourceHit) })
		synctest.Wait() // it has missed, and waits for its route
		expect(t, get(t, d, "k"), "v", kv.SourceLoad)
		close(late.gate)
		reader.Wait()
		if o.Queries() != 1 {
			t.Errorf("%d queries; want 1", o.Queries())
		}
	})
}

// lateRoute holds the first caller back until its gate is closed.
type lateRoute struct {
	kv.NoPeers
	calls atomic.Int64
	gate  chan struct{}
}

func (r *lateRoute) Route(string, string) kv.Route {
	if r.calls.Add(1) == 1 {
		<-r.gate
	}
	return kv.Route{}
}

func TestHerdOnOneColdKeyIsOneQuery(t *testing.T) {
	o := origintest.New(nil)
	d := newDataset(t, o, nil, testPolicy())
	const rounds, herd = 300, 64
	for i := range rounds {
		key := fmt.Sprint("key-", i)
		o.Set(key, "v")
		var all sync.WaitGroup
		for range herd {
			all.Go(func() { get(t, d, key) })
		}
		all.Wait()
		if n := o.Asked(key); n != 1 {
			t.Fatalf("round %d: %d queries; want 1", i, n)
		}
	}
}

func TestLoadThatBeganBeforeAnInvalidationIsNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const races = 2000
		o := origintest.New(map[string]string{"k": "0"})
		d := newDataset(t, o, nil, testPolicy())
		stored := 0
		for i := range races {
			d.ApplyInvalidation(kv.Invalidation{Key: "k"})
			release := o.Block()
			var reader sync.WaitGroup
			reader.Go(func() { get(t, d, "k") })
			synctest.Wait() // the load has read the old row
			want := fmt.Sprint(i + 1)
			o.SetVersion("k", want, 0)
			d.ApplyInvalidation(kv.Invalidation{Key: "k"})
			release()
			reader.Wait()
			if got := get(t, d, "k"); string(got.Value) != want {
				stored++
			}
		}
		if stored != 0 {
			t.Errorf("%d of %d loads begun before an invalidation were stored after it", stored, races)
		}
		if n := d.Stats().LoadsDiscarded.Load(); n != races {
			t.Errorf("%d loads were fenced; want each of %d", n, races)
		}
	})
}

// A reader that comes after an invalidation must not join the load that began before it.
func TestInvalidationDetachesTheFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		release := o.Block()
		d := newDataset(t, o, nil, testPolicy())
		var first sync.WaitGroup
		first.Go(func() { get(t, d, "k") })
		synctest.Wait()
		o.Set("k", "new")
		d.ApplyInvalidation(kv.Invalidation{Key: "k"})
		done := make(chan kv.Answer)
		go func() { done <- get(t, d, "k") }()
		synctest.Wait()
		if n := o.Queries(); n != 2 {
			t.Errorf("%d queries; the reader after the invalidation joined the old load", n)
		}
		release()
		expect(t, <-done, "new", kv.SourceLoad)
		first.Wait()
	})
}

func TestInvalidatePrefix(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"a/1": "v", "a/2": "v", "b/1": "v"})
		d := newDataset(t, o, nil, testPolicy())
		for _, key := range []string{"a/1", "a/2", "b/1"} {
			get(t, d, key)
		}
		d.ApplyInvalidation(kv.Invalidation{Key: "a/", Prefix: true})
		expect(t, get(t, d, "b/1"), "v", kv.SourceHit)
		expect(t, get(t, d, "a/1"), "v", kv.SourceLoad)
	})
}

func TestOlderVersionNeverReplacesNewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		o.SetVersion("k", "new", 7)
		d := newDataset(t, o, nil, testPolicy())
		get(t, d, "k")
		time.Sleep(tick)
		o.SetVersion("k", "old", 6) // as a replica that lags would say
		a, err := d.Get(t.Context(), "k", kv.ReadOptions{NoCache: true})
		if err != nil || string(a.Value) != "new" || a.Version != 7 {
			t.Errorf("got %q at %d, %v; want the newer version", a.Value, a.Version, err)
		}
	})
}

func TestNoCacheLoadsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		d := newDataset(t, o, nil, testPolicy())
		get(t, d, "k")
		time.Sleep(tick)
		o.Set("k", "new")
		a, err := d.Get(t.Context(), "k", kv.ReadOptions{NoCache: true})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, a, "new", kv.SourceLoad)
	})
}

// A load in flight when a no-cache read begins may have read the row too early.
func TestNoCacheDoesNotTakeALoadThatBeganBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		o.Slow(100 * time.Millisecond)
		d := newDataset(t, o, nil, testPolicy())
		var first sync.WaitGroup
		first.Go(func() { get(t, d, "k") })
		time.Sleep(tick)
		o.Set("k", "new")
		a, err := d.Get(t.Context(), "k", kv.ReadOptions{NoCache: true})
		if err != nil || string(a.Value) != "new" {
			t.Errorf("got %q, %v; want the value of a load begun after the read", a.Value, err)
		}
		first.Wait()
		if n := o.Queries(); n != 2 {
			t.Errorf("%d queries; want 2", n)
		}
	})
}

func TestOnlyIfCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		d := newDataset(t, o, nil, testPolicy())
		if _, err := d.Get(t.Context(), "k", kv.ReadOptions{OnlyIfCached: true}); kv.KindOf(err) != kv.KindNotCached {
			t.Errorf("got %v; want not cached", err)
		}
		get(t, d, "k")
		if _, err := d.Get(t.Context(), "k", kv.ReadOptions{OnlyIfCached: true}); err != nil || o.Queries() != 1 {
			t.Errorf("got %v after %d queries; want the held entry", err, o.Queries())
		}
	})
}

func TestBoundOfFlightsRefusesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPolicy()
		p.MaxFlights = 2
		o := origintest.New(map[string]string{"a": "v", "b": "v", "c": "v"})
		release := o.Block()
		d := newDataset(t, o, nil, p)
		var readers sync.WaitGroup
		for _, key := range []string{"a", "b"} {
			readers.Go(func() { get(t, d, key) })
		}
		synctest.Wait()
		_, err := d.Get(t.Context(), "c", kv.ReadOptions{})
		if kv.KindOf(err) != kv.KindOverloaded || kv.RetryAfter(err) == 0 || d.Stats().Refused.Load() != 1 {
			t.Errorf("got %v; want overloaded", err)
		}
		release()
		readers.Wait()
	})
}

func TestPanicOfAnOriginIsAnErrorOfTheRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDataset(t, panicking{}, nil, testPolicy())
		if _, err := d.Get(t.Context(), "k", kv.ReadOptions{}); kv.KindOf(err) != kv.KindInternal || strings.Contains(err.Error(), "goroutine") {
			t.Errorf("got %v; want an internal error without a stack", err)
		}
	})
}

type panicking struct{}

func (panicking) Load(context.Context, []string) ([]origin.Result, error) { panic("boom") }

func TestSweepRemovesOnlyDeadEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		d := newDataset(t, o, nil, testPolicy())
		get(t, d, "k")
		get(t, d, "none")
		time.Sleep(11 * time.Second) // past ttl and negative_ttl, within stale_if_error
		if n := d.Sweep(); n != 1 || d.Memory().Entries != 1 {
			t.Errorf("%d dropped, %d held; want the absent one dropped", n, d.Memory().Entries)
		}
		time.Sleep(5 * time.Minute)
		if n := d.Sweep(); n != 1 || d.Memory().Bytes != 0 {
			t.Errorf("%d dropped, %d bytes held; want none", n, d.Memory().Bytes)
		}
	})
}

// A caller that gives up may overwrite the key while the load that it began goes on.
func TestKeyMayBeReusedByItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"key-1": "one", "key-2": "two"})
		release := o.Block()
		d := newDataset(t, o, nil, testPolicy())
		buf := []byte("key-1")
		ctx, leave := context.WithCancel(t.Context())
		time.AfterFunc(tick, leave)
		if _, err := d.Get(ctx, view(buf), kv.ReadOptions{}); kv.KindOf(err) != kv.KindCanceled {
			t.Fatalf("got %v; want canceled", err)
		}
		copy(buf, "key-2")
		release()
		synctest.Wait()
		expect(t, get(t, d, "key-1"), "one", kv.SourceHit)
		expect(t, get(t, d, view(buf)), "two", kv.SourceLoad)
	})
}

func TestEachReadIsCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		c := newCluster(t, 2, o, testPolicy())
		s := c.members[1].Stats()
		get(t, c.members[1], "k")    // load
		get(t, c.members[1], "k")    // local hit
		time.Sleep(time.Second)      // local_ttl
		get(t, c.members[1], "k")    // peer hit
		get(t, c.members[1], "none") // negative
		get(t, c.members[0], "k")    // hit
		o.Fail(errDown)
		time.Sleep(10 * time.Second)
		get(t, c.members[1], "k") // stale
		_, _ = c.members[1].Get(t.Context(), "other", kv.ReadOptions{})
		got := []int64{
			s.Load.Load(), s.LocalHit.Load(), s.PeerHit.Load(), s.Negative.Load(), s.Stale.Load(), s.Error.Load(),
			c.members[0].Stats().Hit.Load(), s.Hit.Load(),
		}
		if want := "[1 1 1 1 1 1 1 0]"; fmt.Sprint(got) != want {
			t.Errorf("load, local, peer, negative, stale, error, hit, hit: %v; want %v", got, want)
		}
	})
}

func TestRefusedReadsAreCountedAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		d := newDataset(t, o, nil, testPolicy())
		o.FailWrites(fmt.Errorf("%w: busy", origin.ErrOverloaded))
		_, err := d.Write(t.Context(), kv.Change{Key: "k", Value: []byte("v")})
		expectKind(t, err, kv.KindOverloaded)
		get(t, d, "k")
		time.Sleep(time.Minute)
		o.Fail(fmt.Errorf("%w: busy", origin.ErrOverloaded))
		if a := get(t, d, "k"); !a.Stale { // which is an answer
			t.Errorf("got %+v", a)
		}
		if n := d.Stats().Refused.Load(); n != 0 {
			t.Errorf("%d reads counted as refused; none was", n)
		}
		for range 2 {
			_, err := d.Get(t.Context(), "other", kv.ReadOptions{})
			expectKind(t, err, kv.KindOverloaded)
		}
		if n := d.Stats().Refused.Load(); n != 2 {
			t.Errorf("%d reads counted as refused; want 2", n)
		}
	})
}

// Cached answers what Get answers at once, except "not found", and leaves the count to its caller.
func TestCachedNeitherLoadsNorCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		d := newDataset(t, o, nil, testPolicy())
		get(t, d, "k")
		get(t, d, "absent")
		queries, hits := o.Queries(), d.Stats().Hit.Load()+d.Stats().Negative.Load()
		expectCached := func(key string, o kv.ReadOptions, want bool) {
			t.Helper()
			a, ok := d.Cached(key, o)
			if ok != want || ok && (string(a.Value) != "v" || a.Source != kv.SourceHit) {
				t.Errorf("%s, %+v: got %q from %v, %v; want v from memory: %v", key, o, a.Value, a.Source, ok, want)
			}
		}
		expectCached("k", kv.ReadOptions{}, true)
		expectCached("k", kv.ReadOptions{NoCache: true}, false)
		expectCached("k", kv.ReadOptions{MinVersion: 9}, false)
		expectCached("absent", kv.ReadOptions{}, false)
		expectCached("never-read", kv.ReadOptions{}, false)
		time.Sleep(testPolicy().TTL)
		expectCached("k", kv.ReadOptions{}, false)
		if n := d.Stats().Hit.Load() + d.Stats().Negative.Load(); n != hits || o.Queries() != queries {
			t.Errorf("%d reads counted and %d queries; want %d and %d as before", n, o.Queries(), hits, queries)
		}
	})
}
