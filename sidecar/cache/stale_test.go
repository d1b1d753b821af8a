package cache

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func TestStaleIfError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		d := newDataset(t, o, nil, testPolicy())
		get(t, d, "k")
		o.Fail(errDown)
		time.Sleep(5 * time.Minute)
		a := get(t, d, "k")
		if string(a.Value) != "v" || !a.Stale || a.Fresh != 0 || a.Age != 5*time.Minute || a.Detail != "origin-error" {
			t.Errorf("got %+v; want the stale value", a)
		}
		time.Sleep(10 * time.Second) // ttl + stale_if_error
		if _, err := d.Get(t.Context(), "k", kv.ReadOptions{}); kv.KindOf(err) != kv.KindUnavailable {
			t.Errorf("past stale_if_error: %v; want unavailable", err)
		}
	})
}

func TestNotFoundIsStaleOnlyIfAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, window := range []time.Duration{0, time.Minute} {
			o := origintest.New(nil)
			p := testPolicy()
			p.NegativeStaleIfError = window
			members := newCluster(t, 2, o, p).members
			for _, d := range members {
				if a := get(t, d, "k"); !a.NotFound {
					t.Fatalf("got %+v, want not found", a)
				}
			}
			o.Fail(errDown)
			time.Sleep(p.NegativeTTL + time.Second)
			for i, d := range members {
				a, err := d.Get(t.Context(), "k", kv.ReadOptions{})
				if window == 0 && kv.KindOf(err) != kv.KindUnavailable {
					t.Errorf("member %d, no window: %+v, %v; want unavailable", i, a, err)
				} else if window > 0 && (err != nil || !a.NotFound || !a.Stale || a.Detail != kv.DetailOriginError) {
					t.Errorf("member %d, in the window: %+v, %v; want a stale answer that there is no row", i, a, err)
				}
				_, err = d.Get(t.Context(), "k", kv.ReadOptions{LimitStale: true, MaxStale: 500 * time.Millisecond})
				if kv.KindOf(err) != kv.KindUnavailable {
					t.Errorf("member %d, staler than the reader allows: %v; want unavailable", i, err)
				}
			}
			o.Fail(nil)
			o.Set("k", "v")
			time.Sleep(2 * staleRetry)
			if a := get(t, members[0], "k"); string(a.Value) != "v" || a.Stale {
				t.Errorf("after the outage: %+v, want the new row", a)
			}
			o.Fail(errDown)
			time.Sleep(p.NegativeTTL + window)
			if _, err := members[0].Get(t.Context(), "other", kv.ReadOptions{}); kv.KindOf(err) != kv.KindUnavailable {
				t.Errorf("a key that was never read: %v; want unavailable", err)
			}
		}
	})
}

func TestFailedRefreshBacksOffAndBlocksNoReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		d := newDataset(t, o, nil, testPolicy())
		get(t, d, "k")
		o.Slow(time.Hour) // silence, not an error
		time.Sleep(10 * time.Second)
		began := time.Now()
		get(t, d, "k")
		if waited := time.Since(began); waited != staleWait {
			t.Errorf("the first stale read waited %v; want %v", waited, staleWait)
		}
		began = time.Now()
		for range 1000 {
			get(t, d, "k")
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("1000 more stale reads waited %v; want none", waited)
		}
		queries := o.Queries()
		for range 10 {
			time.Sleep(time.Second)
			get(t, d, "k")
		}
		if n := o.Queries() - queries; n > 10 {
			t.Errorf("%d queries in 10s of outage; want at most one a second", n)
		}
		o.Slow(0)
		o.Set("k", "new")
		time.Sleep(2 * time.Second)
		get(t, d, "k")
		synctest.Wait()
		expect(t, get(t, d, "k"), "new", kv.SourceHit)
	})
}

func TestStaleWhileRevalidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPolicy()
		p.StaleWhileRevalidate = time.Second
		o := origintest.New(map[string]string{"k": "old"})
		d := newDataset(t, o, nil, p)
		get(t, d, "k")
		o.Set("k", "new")
		o.Slow(100 * time.Millisecond)
		time.Sleep(10 * time.Second)
		began := time.Now()
		a := get(t, d, "k")
		if !a.Stale || a.Detail != "revalidating" || time.Since(began) != 0 {
			t.Errorf("got %+v after %v; want a stale answer at once", a, time.Since(began))
		}
		time.Sleep(101 * time.Millisecond)
		expect(t, get(t, d, "k"), "new", kv.SourceHit)
	})
}

// During an outage of the database, members copy the stale answer of the owner, so that not each read is a peer fetch.
func TestStaleAnswerOfTheOwnerIsCopied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		c := newCluster(t, 2, o, testPolicy())
		get(t, c.members[1], "k")
		o.Fail(errDown)
		time.Sleep(15 * time.Second)
		for range 1000 {
			if a := get(t, c.members[1], "k"); !a.Stale || string(a.Value) != "v" {
				t.Fatalf("got %+v", a)
			}
		}
		if n := c.members[1].Stats().PeerFetches.Load(); n > 2 {
			t.Errorf("%d peer fetches for 1000 stale reads", n)
		}
		o.Fail(nil)
		o.Set("k", "new")
		for range 4 { // the owner's retry, the copy's retry, each behind a stale answer
			time.Sleep(time.Second)
			get(t, c.members[1], "k")
		}
		synctest.Wait()
		if a := get(t, c.members[1], "k"); string(a.Value) != "new" || a.Stale {
			t.Errorf("4s after the outage: %+v", a)
		}
	})
}

func TestNoCacheIsNeverAnsweredStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		d := newDataset(t, o, nil, testPolicy())
		get(t, d, "k")
		time.Sleep(tick)
		o.Fail(errDown)
		if _, err := d.Get(t.Context(), "k", kv.ReadOptions{NoCache: true}); kv.KindOf(err) != kv.KindUnavailable {
			t.Errorf("got %v; want unavailable", err)
		}
	})
}

// Many readers of a key that is about to expire: one refresh before its end, and no reader waits.
func TestEarlyRefreshKeepsReadersFromWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		o.Slow(10 * time.Millisecond)
		d := newDataset(t, o, nil, testPolicy())
		get(t, d, "k")
		waited := 0
		for range 60000 { // a minute: six times the ttl
			time.Sleep(tick)
			for range 10 { // so many that chance leaves none of 6 refreshes to the last 10ms
				if began := time.Now(); get(t, d, "k").Source != kv.SourceHit || time.Since(began) != 0 {
					waited++
				}
			}
		}
		if waited != 0 || o.Queries() > 8 {
			t.Errorf("%d readers waited, %d queries; want none, and about one per ttl", waited, o.Queries())
		}
	})
}

func TestEarlyRefreshIsOneFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		o.Slow(100 * time.Millisecond)
		d := newDataset(t, o, nil, testPolicy())
		get(t, d, "k")
		time.Sleep(9899 * time.Millisecond) // 1ms left of a load's 100
		var all sync.WaitGroup
		for range 10000 {
			all.Go(func() { get(t, d, "k") })
		}
		all.Wait()
		if n := o.Queries(); n != 2 {
			t.Errorf("%d queries; want the first and one early refresh", n)
		}
	})
}

func TestExpiredEntryIsAStaleAnswerWhileTheOriginIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		c := newCluster(t, 2, o, testPolicy())
		for _, d := range c.members {
			get(t, d, "k")
		}
		time.Sleep(tick)
		for _, d := range c.members {
			d.ExpireAll()
		}
		o.Fail(errDown)
		for _, d := range c.members {
			if a := get(t, d, "k"); !a.Stale || string(a.Value) != "v" {
				t.Errorf("got %+v; want the stale value", a)
			}
		}
	})
}

func TestExpiredEntryIsLoadedAgain(t *testing.T) {
	for _, window := range []time.Duration{0, time.Minute} { // to revalidate in: not for this
		synctest.Test(t, func(t *testing.T) {
			o := origintest.New(map[string]string{"k": "old"})
			p := testPolicy()
			p.StaleWhileRevalidate = window
			d := newDataset(t, o, nil, p)
			get(t, d, "k")
			o.Set("k", "new") // without an invalidation
			d.ExpireAll()
			if a := get(t, d, "k"); a.Stale || string(a.Value) != "new" {
				t.Errorf("got %+v; want the new value", a)
			}
		})
	}
}

func TestLoadThatBeganBeforeEverythingExpiresIsNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		d := newDataset(t, o, nil, testPolicy())
		o.Slow(10 * tick)
		var read sync.WaitGroup
		read.Go(func() { get(t, d, "k") })
		time.Sleep(tick)
		o.Slow(0)
		o.Set("k", "new") // without an invalidation
		d.ExpireAll()
		read.Wait()
		if a := get(t, d, "k"); string(a.Value) != "new" {
			t.Errorf("got %q", a.Value)
		}
	})
}

func TestFirstReadAfterAnOutageIsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		d := newDataset(t, o, nil, testPolicy())
		get(t, d, "k")
		o.Fail(errDown)
		time.Sleep(11 * time.Second)
		if a := get(t, d, "k"); !a.Stale {
			t.Errorf("got %+v in the outage", a)
		}
		o.Fail(nil)
		o.Set("k", "new")
		time.Sleep(time.Minute)
		if a := get(t, d, "k"); a.Stale || string(a.Value) != "new" {
			t.Errorf("a minute after the outage %q is read, stale %v", a.Value, a.Stale)
		}
	})
}
