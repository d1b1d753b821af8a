package cache

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
)

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

func TestPeekBringsNothingOlderThanWhatWasHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		c := newCluster(t, 2, o, testPolicy())
		get(t, c.members[0], "k")
		time.Sleep(time.Second)
		o.Set("k", "new")
		c.order = func(from int) (int, int) { return 2, from } // the owner is unknown to both, each stands in for it
		serve := func() string {
			a, err := c.members[1].Serve(t.Context(), Query{Dataset: "test", Key: "k"})
			if err != nil {
				t.Fatal(err)
			}
			return string(a.Value)
		}
		if v := serve(); v != "new" {
			t.Fatalf("got %q", v)
		}
		time.Sleep(3 * time.Second) // beyond the gutter ttl, within that of member 0
		c.order = func(int) (int, int) { return 1, 0 }
		c.prev = 0
		if v := serve(); v != "new" {
			t.Errorf("got %q after the newer value", v)
		}
	})
}

func TestInheritedEntryLivesNoLongerThanOwnTTL(t *testing.T) {
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
		expect(t, get(t, c.members[1], "k"), "v", SourceLoad)
	})
}
