package cache

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
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
			t.Errorf("the former owner made %d loads; want its first one, and peer fetches after that", n)
		}
	})
}

func TestFailoverEntryIsNotRefreshedEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		o.Slow(10 * time.Millisecond)
		p := testPolicy()
		c := newCluster(t, 2, o, p) // member 0 owns the key
		for range 5000 {
			a, err := c.members[1].Serve(t.Context(), kv.Query{Dataset: "test", Key: "k", Failover: true})
			if err != nil || a.Fresh > p.FailoverTTL {
				t.Fatalf("fresh for %v, error %v; want at most failover_ttl of %v", a.Fresh, err, p.FailoverTTL)
			}
			time.Sleep(tick)
		}
	})
}

func TestHandoverNeverLoads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		o.Slow(time.Second - tick)
		c := newCluster(t, 2, o, testPolicy())
		get(t, c.members[0], "k")
		c.order = func(int) (int, int) { return 1, 0 }
		time.Sleep(9 * time.Second)
		for range 1000 {
			_, err := c.members[0].Serve(t.Context(), kv.Query{Dataset: "test", Key: "k", MemoryOnly: true})
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

func TestOlderStaleAnswerDoesNotReplaceAStaleEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		c := newCluster(t, 3, o, testPolicy())
		get(t, c.members[1], "k")
		time.Sleep(12 * time.Second)
		o.Set("k", "new")
		expect(t, get(t, c.members[2], "k"), "new", kv.SourceLoad)
		o.Fail(errDown)
		c.away[0].Store(true)
		time.Sleep(12 * time.Second)
		for range 1000 {
			if a := get(t, c.members[2], "k"); string(a.Value) != "new" || !a.Stale {
				t.Fatalf("got %+v; want the newer value, stale", a)
			}
		}
		if n := c.members[2].Stats().PeerFetches.Load(); n > 4 {
			t.Errorf("%d peer fetches for 1000 stale reads", n)
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
		go func() { _, _ = d.Get(ctx, "other", kv.ReadOptions{}) }()
		synctest.Wait()
		if a := get(t, d, "k"); !a.Stale || a.Detail != "overloaded" {
			t.Errorf("got %+v; want the stale value, as all flights are taken", a)
		}
	})
}

func TestHandoverRestoresNothingOlder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		c := newCluster(t, 2, o, testPolicy())
		get(t, c.members[0], "k")
		time.Sleep(time.Second)
		o.Set("k", "new")
		c.order = func(from int) (int, int) { return 2, from } // the owner is unknown to both, each stands in for it
		serve := func() string {
			a, err := c.members[1].Serve(t.Context(), kv.Query{Dataset: "test", Key: "k"})
			if err != nil {
				t.Fatal(err)
			}
			return string(a.Value)
		}
		if v := serve(); v != "new" {
			t.Fatalf("got %q", v)
		}
		time.Sleep(3 * time.Second) // beyond failover_ttl, within that of member 0
		c.order = func(int) (int, int) { return 1, 0 }
		c.prev = 0
		if v := serve(); v != "new" {
			t.Errorf("got %q after the newer value", v)
		}
	})
}

func TestHandedOverEntryLivesNoLongerThanTheTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		long := testPolicy()
		long.TTL, long.NegativeTTL = time.Hour, time.Hour
		c := newCluster(t, 2, o, testPolicy())
		c.members[0].SetPolicy(long)
		get(t, c.members[0], "k")
		get(t, c.members[0], "none")
		c.order, c.prev = func(int) (int, int) { return 1, 0 }, 0
		time.Sleep(500 * time.Millisecond)
		if a := get(t, c.members[1], "k"); a.Fresh != 9500*time.Millisecond {
			t.Errorf("fresh for %v; want what is left of the ttl here", a.Fresh)
		}
		if a := get(t, c.members[1], "none"); a.Fresh != 500*time.Millisecond {
			t.Errorf("absent for %v; want what is left of the negative ttl here", a.Fresh)
		}
		time.Sleep(20 * time.Second)
		expect(t, get(t, c.members[1], "k"), "v", kv.SourceLoad)
	})
}

func TestLongestDurationsDoNotOverflow(t *testing.T) {
	for _, forever := range []time.Duration{1 << 62, math.MaxInt64} {
		synctest.Test(t, func(t *testing.T) {
			o := origintest.New(map[string]string{"k": "v"})
			p := kv.DefaultPolicy()
			p.TTLJitter = 1
			p.TTL, p.NegativeTTL, p.LocalTTL, p.LoadTimeout = forever, forever, forever, forever
			p.StaleIfError, p.StaleWhileRevalidate, p.FailoverTTL = forever, forever, forever
			c := newCluster(t, 2, o, p)
			time.Sleep(time.Second)
			for _, key := range []string{"k", "none"} {
				get(t, c.members[1], key)
				time.Sleep(time.Hour)
				get(t, c.members[1], key)
			}
			if o.Queries() != 2 {
				t.Errorf("%v: %d queries; want one for each key", forever, o.Queries())
			}
			e := c.members[1].Explain("k")
			if e.Fresh <= 0 || e.Usable <= 0 || e.Age < 0 {
				t.Errorf("%v: fresh %v, usable %v, age %v", forever, e.Fresh, e.Usable, e.Age)
			}
		})
	}
}

func TestZeroDurations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		p := kv.DefaultPolicy()
		p.TTLJitter, p.NegativeTTL, p.LocalTTL, p.StaleIfError = 0, 0, 0, 0
		c := newCluster(t, 2, o, p)
		for range 2 {
			time.Sleep(tick)
			if a := get(t, c.members[0], "none"); !a.NotFound || a.Source != kv.SourceLoad {
				t.Errorf("negative_ttl 0: %+v", a)
			}
		}
		get(t, c.members[1], "k")
		time.Sleep(tick)
		expect(t, get(t, c.members[1], "k"), "v", kv.SourcePeerHit)
	})
}

type said struct {
	noBatches
	kv.Answer
}

func (said) ID() string { return "said" }

func (s said) Fetch(context.Context, kv.Query) (kv.Answer, error) { return s.Answer, nil }

func (said) Write(context.Context, kv.Change) (kv.Answer, error) {
	return kv.Answer{}, kv.ErrUnreachable
}

func (s said) WriteMany(_ context.Context, cs []kv.Change) []kv.Outcome { return each(s.Write, cs) }

type ownedBy struct {
	kv.NoPeers
	kv.Peer
}

func (o ownedBy) Route(string, string) kv.Route { return kv.Route{Owner: o.Peer} }

func TestAbsurdTimesOfAPeer(t *testing.T) {
	for _, a := range []kv.Answer{
		{Age: -time.Hour, Fresh: time.Hour},
		{Age: math.MaxInt64, Fresh: math.MaxInt64, Took: math.MaxInt64},
		{Age: math.MinInt64, Fresh: math.MinInt64, Took: math.MinInt64},
		{Age: math.MinInt64, Fresh: math.MaxInt64, Took: math.MaxInt64},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := newDataset(t, origintest.New(nil), ownedBy{Peer: said{Answer: a}}, testPolicy())
			get(t, d, "k")
			if e := d.Explain("k"); e.Age < 0 || e.Fresh > testPolicy().LocalTTL {
				t.Errorf("%+v: age %v, fresh %v", a, e.Age, e.Fresh)
			}
		})
	}
}

func TestNoCacheSkipsAnyNumberOfOlderFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		others := &othersFlights{left: 5}
		d := newDataset(t, o, others, testPolicy())
		get(t, d, "k")
		others.of = d
		time.Sleep(time.Second)
		o.Set("k", "new")
		a, err := d.Get(t.Context(), "k", kv.ReadOptions{NoCache: true})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, a, "new", kv.SourceLoad)
	})
}

type othersFlights struct {
	kv.NoPeers
	of   *Dataset
	left int
}

func (o *othersFlights) Route(_, key string) kv.Route {
	if o.of == nil || o.left == 0 {
		return kv.Route{}
	}
	o.left--
	go func() {
		_, _ = o.of.fetcher.loads.Do(context.Background(), key, 0, time.Minute, func(context.Context) (result, error) {
			time.Sleep(tick)
			e, _ := o.of.store.Peek(key)
			return result{entry: e, source: kv.SourceHit, asOf: e.Began}, nil
		})
	}()
	time.Sleep(tick / 2)
	return kv.Route{}
}
