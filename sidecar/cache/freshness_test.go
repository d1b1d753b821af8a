package cache

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
)

func TestFormerOwnerDoesNotRefreshEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		o.Slow(10 * time.Millisecond)
		c := newCluster(t, 2, o, testPolicy())
		get(t, c.members[0], "k")
		c.order = func(int) (int, int) { return 1, 0 }
		for range 30000 {
			time.Sleep(tick)
			get(t, c.members[0], "k")
		}
		if n := c.members[0].Stats().LoadsBegun.Load(); n != 1 {
			t.Errorf("the former owner made %d loads; want its first one, and hops after that", n)
		}
	})
}

func TestEntryInTheOwnersSteadIsNotRefreshedEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		o.Slow(10 * time.Millisecond)
		p := testPolicy()
		c := newCluster(t, 2, o, p) // member 0 owns the key
		for range 5000 {
			a, err := c.members[1].Serve(t.Context(), Query{Dataset: "test", Key: "k", Gutter: true})
			if err != nil || a.Fresh > p.GutterTTL {
				t.Fatalf("fresh for %v, error %v; want at most the gutter ttl of %v", a.Fresh, err, p.GutterTTL)
			}
			time.Sleep(tick)
		}
	})
}

func TestPeekNeverLoads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		o.Slow(time.Second - tick)
		c := newCluster(t, 2, o, testPolicy())
		get(t, c.members[0], "k")
		c.order = func(int) (int, int) { return 1, 0 }
		time.Sleep(9 * time.Second)
		for range 1000 {
			_, err := c.members[0].Serve(t.Context(), Query{Dataset: "test", Key: "k", MemoryOnly: true})
			if err != nil {
				t.Fatal(err)
			}
		}
		if o.Queries() != 1 {
			t.Errorf("%d queries; want the first alone", o.Queries())
		}
	})
}

func TestRefreshesCountsThoseThatBegan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		o.Slow(100 * time.Millisecond)
		d := newDataset(t, o, nil, testPolicy())
		get(t, d, "k")
		time.Sleep(9899 * time.Millisecond)
		for range 10000 {
			get(t, d, "k")
		}
		if n := d.Stats().Refreshes.Load(); n != 1 {
			t.Errorf("%d refreshes counted; one began", n)
		}
	})
}

func TestStaleEntryDoesNotGiveWayToAnOlderStaleOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		c := newCluster(t, 3, o, testPolicy())
		get(t, c.members[1], "k")
		time.Sleep(12 * time.Second)
		o.Set("k", "new")
		expect(t, get(t, c.members[2], "k"), "new", SourceLoad)
		o.Fail(errDown)
		c.away[0].Store(true)
		time.Sleep(12 * time.Second)
		for range 1000 {
			if a := get(t, c.members[2], "k"); string(a.Value) != "new" || !a.Stale {
				t.Fatalf("got %+v; want the newer value, stale", a)
			}
		}
		if n := c.members[2].Stats().Hops.Load(); n > 4 {
			t.Errorf("%d hops for 1000 stale reads", n)
		}
	})
}

func TestStaleValueComesBeforeTheBoundOfFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		p := testPolicy()
		p.MaxFlights = 1
		d := newDataset(t, o, nil, p)
		get(t, d, "k")
		time.Sleep(p.TTL)
		defer o.Block()()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _, _ = d.Get(ctx, "other", ReadOptions{}) }()
		synctest.Wait()
		if a := get(t, d, "k"); !a.Stale || a.Detail != "overloaded" {
			t.Errorf("got %+v; want the stale value, as all flights are taken", a)
		}
	})
}
