package cache

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

const cachedKeys = 200

func manyRows() (rows map[string]string, keys []string) {
	rows = make(map[string]string, cachedKeys)
	for i := range cachedKeys {
		key := fmt.Sprint("k", i)
		rows[key], keys = "v", append(keys, key)
	}
	return rows, keys
}

// readAll reads each key once, and returns how many reads had to wait. All must be answered with a stale value.
func readAll(t *testing.T, d *Dataset, keys []string) (waited int) {
	t.Helper()
	for _, key := range keys {
		began := time.Now()
		if a := get(t, d, key); !a.Stale || string(a.Value) != "v" {
			t.Fatalf("%s: got %+v; want the stale value", key, a)
		}
		if time.Since(began) > 0 {
			waited++
		}
	}
	return waited
}

// A frozen database accepts statements and answers none: the feed ends, and nothing else says that the origin fails.
func TestFrozenOriginBlocksNoReaderOfACachedKey(t *testing.T) {
	for _, window := range []time.Duration{0, time.Second} { // to revalidate in
		synctest.Test(t, func(t *testing.T) {
			p := testPolicy()
			p.TTL, p.GapTTL, p.StaleWhileRevalidate = time.Hour, time.Second, window
			rows, keys := manyRows()
			o := origintest.New(rows)
			c := newCluster(t, 2, o, p)
			for _, d := range c.members {
				d.SetFeedLive(true)
				for _, key := range keys {
					get(t, d, key)
				}
			}
			release := o.Block()
			defer release()
			for _, d := range c.members {
				d.SetFeedLive(false)
			}
			time.Sleep(3 * time.Second)
			// One reader finds out, unless the other member's request did.
			if n := readAll(t, c.members[0], keys); n > 1 {
				t.Errorf("window %v: %d of %d reads on the owner waited; want at most the first", window, n, len(keys))
			}
			for range 30 {
				time.Sleep(time.Second)
				for i, d := range c.members {
					if n := readAll(t, d, keys); n > 0 {
						t.Errorf("window %v: %d of %d reads on member %d waited; want none", window, n, len(keys), i)
					}
				}
			}
			if loads, _ := c.members[0].Flights(); loads == 0 {
				t.Error("no load is in flight: nobody notices the end of the outage")
			}
			if _, err := c.members[0].Get(t.Context(), keys[0], kv.ReadOptions{MinVersion: 99}); err == nil {
				t.Error("a read that requires a version was answered without the origin")
			}
		})
	}
}

func TestFrozenOwnerBlocksNoReaderOfACachedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rows, keys := manyRows()
		c := newCluster(t, 3, origintest.New(rows), testPolicy())
		for _, key := range keys {
			get(t, c.members[2], key)
		}
		c.frozen[0].Store(true)
		c.frozen[1].Store(true)
		time.Sleep(11 * time.Second)
		waited := 0
		for range 20 {
			time.Sleep(100 * time.Millisecond) // before the first failover load ends
			waited += readAll(t, c.members[2], keys)
		}
		if waited > 1 {
			t.Errorf("%d of %d reads waited for the frozen owner; want at most the first", waited, 20*len(keys))
		}
	})
}

func TestOriginThatAnswersIsNotSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rows, keys := manyRows()
		o := origintest.New(rows)
		d := newDataset(t, o, nil, testPolicy())
		for _, key := range keys {
			get(t, d, key)
		}
		release := o.Block()
		time.Sleep(11 * time.Second)
		readAll(t, d, keys[:10])
		release()
		time.Sleep(2 * time.Second)
		get(t, d, "not cached")
		if a := get(t, d, keys[20]); a.Stale {
			t.Errorf("got %+v after the outage; want a fresh value", a)
		}
	})
}

func TestSilenceIsNoReasonToWaitLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		d := newDataset(t, o, nil, testPolicy())
		get(t, d, "k")
		release := o.Block()
		time.Sleep(11 * time.Second)
		get(t, d, "k")
		release()
		time.Sleep(time.Minute) // without readers
		if a := get(t, d, "k"); a.Stale {
			t.Errorf("got %+v a minute after the outage; want a fresh value", a)
		}
	})
}

// The owner sends a stale answer while it loads the value. Nothing has failed.
func TestCopyOfARevalidatingAnswerReportsNoError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPolicy()
		p.StaleWhileRevalidate = time.Minute
		o := origintest.New(map[string]string{"k": "v"})
		c := newCluster(t, 2, o, p)
		get(t, c.members[1], "k")
		time.Sleep(11 * time.Second)
		for range 5 { // the answer of the owner, and then its copy
			if a := get(t, c.members[1], "k"); !a.Stale || a.Detail != kv.DetailRevalidating {
				t.Errorf("got stale %t, detail %q; want revalidating", a.Stale, a.Detail)
			}
			if c.members[1].Explain("k").Failing {
				t.Error("the copy is explained as failing")
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Second)
		if a := get(t, c.members[1], "k"); a.Stale {
			t.Errorf("got %+v after the load; want a fresh value", a)
		}
	})
}

func TestFailedRevalidationIsReportedAndBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPolicy()
		p.StaleWhileRevalidate = time.Minute
		o := origintest.New(map[string]string{"k": "v"})
		d := newDataset(t, o, nil, p)
		get(t, d, "k")
		o.Fail(errDown)
		time.Sleep(11 * time.Second)
		queries := o.Queries()
		for i := range 100 {
			want := kv.DetailOriginError
			if i == 0 {
				want = kv.DetailRevalidating
			}
			if a := get(t, d, "k"); !a.Stale || a.Detail != want {
				t.Errorf("read %d: got stale %t, detail %q; want %s", i, a.Stale, a.Detail, want)
			}
			synctest.Wait()
			time.Sleep(20 * time.Millisecond)
		}
		if n := o.Queries() - queries; n != 2 {
			t.Errorf("%d queries in two seconds; want 2", n)
		}
	})
}

// What every API reports as the time left (max-age, ttl of Cache-Status, time_left) is how long this member sends the entry.
func TestLifetimeOfAnAnswerIsThatOfItsEntry(t *testing.T) {
	reads := map[string]func(t *testing.T, d *Dataset) kv.Answer{
		"Get": func(t *testing.T, d *Dataset) kv.Answer { return get(t, d, "k") },
		"GetMany": func(t *testing.T, d *Dataset) kv.Answer {
			return d.GetMany(t.Context(), []string{"k"}, kv.ReadOptions{}, kv.BatchLimit{Bytes: 100})[0].Answer
		},
		"no-cache": func(t *testing.T, d *Dataset) kv.Answer {
			a, _ := d.Get(t.Context(), "k", kv.ReadOptions{NoCache: true})
			return a
		},
		"hit": func(t *testing.T, d *Dataset) kv.Answer {
			get(t, d, "k")
			time.Sleep(300 * time.Millisecond)
			return get(t, d, "k")
		},
		"Cached": func(t *testing.T, d *Dataset) kv.Answer {
			get(t, d, "k")
			time.Sleep(300 * time.Millisecond)
			a, _ := d.Cached("k", kv.ReadOptions{})
			return a
		},
	}
	states := map[string]func(c *cluster){
		"settled":             func(c *cluster) { setFeeds(c, true) },
		"gap in the feed":     func(c *cluster) { setFeeds(c, false) },
		"gap since the load":  func(c *cluster) { setFeeds(c, true); get(c.t, c.members[0], "k"); setFeeds(c, false) },
		"copy, owner settled": func(c *cluster) { setFeeds(c, true); get(c.t, c.members[0], "k"); time.Sleep(9500 * tick) },
		"other owner since": func(c *cluster) {
			setFeeds(c, true)
			get(c.t, c.members[0], "k")
			time.Sleep(tick)
			c.order = func(int) (int, int) { return 1, 0 }
			for _, d := range c.members {
				d.RingChanged()
			}
		},
	}
	for state, set := range states {
		for name, read := range reads {
			for member := range 2 {
				synctest.Test(t, func(t *testing.T) {
					p := testPolicy()
					p.GapTTL, p.LocalTTL = 2*time.Second, 1500*time.Millisecond
					o := origintest.New(map[string]string{"k": "v"})
					o.Slow(tick) // an answer that takes time must not claim it
					c := newCluster(t, 2, o, p)
					c.lag = 5 * tick
					set(c)
					d := c.members[member]
					a := read(t, d)
					time.Sleep(a.Fresh - 1)
					if _, ok := d.Cached("k", kv.ReadOptions{}); !ok || a.Stale || a.Fresh <= 0 {
						t.Errorf("%s, %s, member %d: %v left, but the entry has ended before", state, name, member, a.Fresh)
					}
					time.Sleep(time.Nanosecond)
					if _, ok := d.Cached("k", kv.ReadOptions{}); ok {
						t.Errorf("%s, %s, member %d: %v left, but the entry lives longer", state, name, member, a.Fresh)
					}
				})
			}
		}
	}
}

func setFeeds(c *cluster, live bool) {
	for _, d := range c.members {
		d.SetFeedLive(live)
	}
}
