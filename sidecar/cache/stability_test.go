package cache

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func TestEntryOfAFormerOwnerIsNoBetterThanACopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		c := newCluster(t, 2, o, testPolicy())
		get(t, c.members[0], "k")
		time.Sleep(tick)
		c.order = func(int) (int, int) { return 1, 0 }
		for _, d := range c.members {
			d.RingChanged()
		}
		c.publicationsLost.Store(true) // it is not subscribed yet
		put(t, c.members[1], "k", "new")
		time.Sleep(testPolicy().LocalTTL + tick)
		if a := get(t, c.members[0], "k"); string(a.Value) != "new" {
			t.Errorf("the former owner reads %q", a.Value)
		}
		time.Sleep(testPolicy().TTL)
		get(t, c.members[0], "k")
		get(t, c.members[0], "k") // a hit
		if c.members[0].settled.Unsettled() {
			t.Error("hits are checked twice forever")
		}
	})
}

func TestGapInTheFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPolicy()
		p.TTL, p.GapTTL = time.Hour, time.Second
		o := origintest.New(map[string]string{"k": "0"})
		d := newDataset(t, o, nil, p)
		reads := func(after time.Duration, want string) {
			t.Helper()
			time.Sleep(after)
			if a := get(t, d, "k"); string(a.Value) != want {
				t.Errorf("got %q; want %q", a.Value, want)
			}
		}
		reads(0, "0")
		o.Set("k", "1")
		reads(time.Second, "1") // the feed has not begun
		d.SetFeedLive(true)
		d.ApplyInvalidation(kv.Invalidation{Prefix: true})
		reads(tick, "1")
		o.Set("k", "2")
		reads(time.Minute, "1") // no invalidation yet
		d.ApplyInvalidation(kv.Invalidation{Key: "k"})
		reads(tick, "2")
		d.SetFeedLive(false)
		o.Set("k", "3")
		reads(time.Second, "3")
		if d.Stats().FeedGaps.Load() != 1 {
			t.Errorf("%d gaps; want 1", d.Stats().FeedGaps.Load())
		}
	})
}
