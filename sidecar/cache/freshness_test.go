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
