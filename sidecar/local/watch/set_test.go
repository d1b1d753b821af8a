package watch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/keylist"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// listable is a dataset whose keys can be listed, with a change feed that is live if feed is true.
func listable(t *testing.T, fake *origintest.Fake, ttl time.Duration, feed bool, maxBytes int64) *cache.Dataset {
	t.Helper()
	policy := kv.DefaultPolicy()
	policy.TTL, policy.TTLJitter, policy.NegativeTTL, policy.StaleIfError = ttl, 0, ttl, 0
	if feed {
		policy.GapTTL = ttl
	}
	d, err := cache.New(cache.Config{Name: "d", Policy: policy, Origin: keylist.New(fake, fake, nil), Writer: fake, MaxBytes: maxBytes})
	if err != nil {
		t.Fatal(err)
	}
	if feed {
		d.SetFeedLive(true)
	}
	t.Cleanup(d.Close)
	return d
}

func engineOf(t *testing.T, c api.Config, d api.Dataset) *Engine {
	return NewEngine(api.NewBackend(t.Context(), c, api.NewCatalog(api.Served{Dataset: d})))
}

func startSet(t *testing.T, e *Engine, d api.Dataset, prefix, resume string) *watched {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watched{recorder: newRecorder(), t: t, stop: cancel, done: make(chan error, 1)}
	go func() { w.done <- e.NewSet(api.Served{Dataset: d}, prefix, resume).Run(ctx, w.recorder) }()
	return w
}

// settled waits until everything that is due has been sent.
func settled() { time.Sleep(500 * time.Millisecond) }

func TestSetWatchSendsStatesThenCurrentThenChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := origintest.New(map[string]string{"a1": "1", "a2": "1", "b1": "1"})
		d := listable(t, fake, time.Hour, true, 16<<20)
		e := engineOf(t, api.Config{}, d)
		w := startSet(t, e, d, "a", "")
		defer w.end()
		settled()
		got, _ := w.recorded()
		if len(got) != 3 || got[2] != "current" {
			t.Fatalf("got %q, want two states and then current", got)
		}
		change(t, d, "a2", "2")
		settled()
		w.expect("a2=2")
		change(t, d, "a3", "new") // a key that did not exist
		settled()
		w.expect("a3=new")
		change(t, d, "b1", "2") // another prefix
		change(t, d, "a3", "new")
		settled()
		w.expect()
		fake.Set("a4", "elsewhere") // a change that only the feed reports
		d.ApplyInvalidation(kv.Invalidation{Dataset: "d", Key: "a4"})
		settled()
		w.expect("a4=elsewhere")
		fake.Delete("a1")
		d.ApplyInvalidation(kv.Invalidation{Dataset: "d", Key: "a1"})
		settled()
		w.expect("a1-")
		all := startSet(t, e, d, "", "")
		defer all.end()
		settled()
		all.expect("a2=2", "a3=new", "a4=elsewhere", "b1=2", "current")
	})
}

// Watches of one set share its list and its reads.
func TestWatchesOfOneSetShareIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rows := map[string]string{}
		for i := range 700 {
			rows[fmt.Sprintf("k%04d", i)] = "1"
		}
		fake := origintest.New(rows)
		d := listable(t, fake, time.Hour, true, 16<<20)
		e := engineOf(t, api.Config{}, d)
		for range 20 {
			w := startSet(t, e, d, "k", "")
			defer w.end()
			settled()
			if got, _ := w.recorded(); len(got) != 701 {
				t.Fatalf("got %d events, want 700 states and current", len(got))
			}
		}
		if n := fake.Lists(); n != 1 {
			t.Errorf("%d lists, want 1", n)
		}
		for key := range rows {
			if n := fake.Asked(key); n != 1 {
				t.Fatalf("%s was loaded %d times, want once", key, n)
			}
		}
		if s := e.backend.Stats(); s.WatchedSets.Load() != 1 || s.WatchedSetKeys.Load() != 700 {
			t.Errorf("%d sets of %d keys", s.WatchedSets.Load(), s.WatchedSetKeys.Load())
		}
	})
}

func TestSetWatchFindsUnannouncedChanges(t *testing.T) {
	for _, feed := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			fake := origintest.New(map[string]string{"a": "1", "b": "1"})
			d := listable(t, fake, 3*time.Second, feed, 16<<20)
			w := startSet(t, engineOf(t, api.Config{}, d), d, "", "")
			defer w.end()
			settled()
			w.expect("a=1", "b=1", "current")
			fake.Set("a", "2")
			fake.Set("c", "1")
			fake.Delete("b")
			wait := 2*3*time.Second + time.Second
			if feed {
				time.Sleep(wait)
				w.expect() // complete reads are rare while a feed reports changes
				wait = sweepWithFeed
			}
			time.Sleep(wait)
			w.expect("a=2", "c=1", "b-")
		})
	}
}

func TestSetWatchSendsAnErrorOnceAndThenTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := origintest.New(map[string]string{"a": "1", "b": "1"})
		d := listable(t, fake, time.Hour, true, 16<<20)
		w := startSet(t, engineOf(t, api.Config{}, d), d, "", "")
		defer w.end()
		settled()
		w.expect("a=1", "b=1", "current")
		fake.Fail(errors.New("down"))
		d.ApplyInvalidation(kv.Invalidation{Dataset: "d", Key: "a"})
		time.Sleep(10 * time.Second)
		w.expect("a!")
		fake.Fail(nil)
		time.Sleep(10 * time.Second)
		w.expect("a=1")
	})
}

// After a gap of the feed the set is listed and read again at once.
func TestSetWatchFindsWhatChangedInAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := origintest.New(map[string]string{"a": "1", "b": "1"})
		d := listable(t, fake, time.Hour, true, 16<<20)
		w := startSet(t, engineOf(t, api.Config{}, d), d, "", "")
		defer w.end()
		settled()
		w.expect("a=1", "b=1", "current")
		fake.Set("c", "1")
		fake.Delete("b")
		d.ExpireAll()
		settled()
		w.expect("c=1", "b-")
	})
}

func TestSetWatchResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := origintest.New(map[string]string{"a": "1", "b": "1", "c": "1"})
		d := listable(t, fake, time.Hour, true, 16<<20)
		e := engineOf(t, api.Config{}, d)
		w := startSet(t, e, d, "", "")
		settled()
		token := w.expect("a=1", "b=1", "c=1", "current")
		w.end()
		change(t, d, "a", "2")
		fake.Delete("b")
		d.ApplyInvalidation(kv.Invalidation{Dataset: "d", Key: "b"})
		settled()
		w = startSet(t, e, d, "", token) // the same sidecar: only what has changed
		settled()
		now := w.expect("a=2", "b-", "current")
		w.end()

		elsewhere := listable(t, fake, time.Hour, true, 16<<20)
		other := engineOf(t, api.Config{}, elsewhere)
		w = startSet(t, other, elsewhere, "", now) // another sidecar, the same states
		settled()
		w.expect("current")
		w.end()
		for _, stale := range []string{token, "garbage", now + "x"} { // other states
			w = startSet(t, other, elsewhere, "", stale)
			settled()
			if got, _ := w.recorded(); len(got) != 4 || got[0] != "reset" || got[3] != "current" {
				t.Errorf("token %q: got %q, want reset, two states, current", stale, got)
			}
			w.end()
		}
		w = startSet(t, other, elsewhere, "a", now) // another prefix
		settled()
		w.expect("reset", "a=2", "current")
		w.end()
		time.Sleep(2 * unusedFor)
		if n := other.backend.Stats().WatchedSets.Load(); n != 0 {
			t.Errorf("%d sets in memory without a watch", n)
		}
	})
}

// A watch whose client is slow gets the newest states, and begins again when it has missed more deletions than are remembered.
func TestSlowSetWatchGetsTheNewestStates(t *testing.T) {
	for _, deletions := range []int{50, 1000} {
		synctest.Test(t, func(t *testing.T) {
			fake := origintest.New(map[string]string{"a": "1", "b": "1"})
			d := listable(t, fake, time.Hour, true, 64<<20)
			e := engineOf(t, api.Config{}, d)
			e.maxDeleted = 100
			w := startSet(t, e, d, "", "")
			settled()
			w.expect("a=1", "b=1", "current")
			w.recorder.events = make(chan Event) // from now on the client reads nothing
			for i := range 50 {
				change(t, d, "a", fmt.Sprint(i))
			}
			for i := range deletions {
				key := fmt.Sprint("x", i)
				fake.Set(key, "1")
				d.ApplyInvalidation(kv.Invalidation{Dataset: "d", Key: key})
				if i%1000 == 0 {
					settled()
				}
			}
			time.Sleep(time.Minute)
			for i := range deletions {
				fake.Delete(fmt.Sprint("x", i))
			}
			d.ExpireAll()
			time.Sleep(time.Minute)
			var got []string
			for len(got) == 0 || got[len(got)-1] != "current" {
				select {
				case e := <-w.recorder.events:
					if !strings.HasPrefix(e.Key, "x") {
						got = append(got, wordOf(e))
					}
				case <-time.After(10 * time.Second):
					got = append(got, "current")
				}
			}
			last := slices.Index(got, "a=49")
			reset := slices.Contains(got, "reset")
			if last < 0 || len(got) > 6 || reset != (deletions > e.maxDeleted) {
				t.Errorf("%d deletions: got %q", deletions, got)
			}
			if n := e.backend.Stats().WatchedSetKeys.Load(); n > int64(2+e.maxDeleted) {
				t.Errorf("%d deletions: %d keys are remembered", deletions, n)
			}
			w.end()
		})
	}
}

func TestSetsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := origintest.New(map[string]string{"a1": "1", "a2": "1", "a3": "1", "b1": "1", "b2": "1"})
		d := listable(t, fake, time.Second, false, 16<<20)
		e := engineOf(t, api.Config{MaxSetKeys: 2, MaxSets: 2}, d)
		over := startSet(t, e, d, "a", "")
		if err := <-over.done; kv.KindOf(err) != kv.KindInvalidKey || !strings.Contains(err.Error(), "longer prefixes") {
			t.Errorf("a set of 3 keys: %v", err)
		}
		if n := fake.Asked("a1"); n != 0 {
			t.Errorf("a key of a set that is too large was loaded %d times", n)
		}
		b := startSet(t, e, d, "b", "")
		settled()
		b.expect("b1=1", "b2=1", "current")
		a1 := startSet(t, e, d, "a1", "")
		settled()
		a1.expect("a1=1", "current")
		third := startSet(t, e, d, "a2", "")
		if err := <-third.done; kv.KindOf(err) != kv.KindOverloaded {
			t.Errorf("a third set: %v", err)
		}
		a1.end() // its set stays without a watch, and makes room
		third = startSet(t, e, d, "a2", "")
		settled()
		third.expect("a2=1", "current")
		third.end()
		fake.Set("b3", "1")
		settled()
		time.Sleep(3 * time.Second)
		if err := <-b.done; kv.KindOf(err) != kv.KindInvalidKey {
			t.Errorf("a set that grows beyond its limit: %v", err)
		}
		if n := e.backend.Stats().SetsRefused.Load(); n < 3 {
			t.Errorf("%d refusals counted", n)
		}
	})
}

func TestSetsTakeMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := origintest.New(map[string]string{"a": "1"})
		d := listable(t, fake, time.Second, false, 16<<20)
		b := budget.New(8 << 20)
		e := engineOf(t, api.Config{Budget: b}, d)
		w := startSet(t, e, d, "", "")
		settled()
		w.expect("a=1", "current")
		taken := int64(0)
		for b.Take(budget.Watches, 1) {
			taken++
		}
		fake.Set("b", "1")
		d.ApplyInvalidation(kv.Invalidation{Dataset: "d", Key: "b"})
		if err := <-w.done; !errors.Is(err, kv.ErrNoMemory) {
			t.Errorf("got %v, want the lack of memory", err)
		}
		b.Return(budget.Watches, taken)
		w = startSet(t, e, d, "", "")
		settled()
		w.expect("a=1", "b=1", "current")
		w.end()
		time.Sleep(2 * unusedFor)
		for b.Take(budget.Watches, 1) {
			taken--
		}
		if most := int64(watchBytes + 10*memberBytes); taken < -most {
			t.Errorf("%d bytes were not returned", -taken)
		}
	})
}

// An origin that fails does not end a watch: readers get stale values, and changes follow when it is back.
func TestSetWatchInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := origintest.New(map[string]string{"a": "1", "b": "1"})
		d := listable(t, fake, time.Second, false, 16<<20)
		e := engineOf(t, api.Config{}, d)
		fake.Fail(errors.New("down"))
		if err := <-startSet(t, e, d, "", "").done; kv.KindOf(err) != kv.KindUnavailable {
			t.Errorf("a set whose keys nobody knows: %v", err)
		}
		fake.Fail(nil)
		w := startSet(t, e, d, "", "")
		settled()
		w.expect("a=1", "b=1", "current")
		fake.Fail(errors.New("down"))
		time.Sleep(20 * time.Second)
		fake.Set("a", "2")
		fake.Set("c", "1")
		fake.Fail(nil)
		time.Sleep(20 * time.Second)
		got, _ := w.recorded()
		if !slices.Contains(got, "a=2") || !slices.Contains(got, "c=1") || slices.Contains(got, "b-") {
			t.Errorf("got %q, want a=2 and c=1", got)
		}
		w.end()
	})
}

func TestSetWatchOfADatasetThatCannotBeListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := origintest.New(map[string]string{"a": "1"})
		d, err := cache.New(cache.Config{Name: "d", Policy: kv.DefaultPolicy(), MaxBytes: 1 << 20,
			Origin: keylist.New(fake, nil, errors.New("set list to a query"))})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		err = <-startSet(t, engineOf(t, api.Config{}, d), d, "", "").done
		if kv.KindOf(err) != kv.KindInvalidKey || !strings.Contains(err.Error(), "set list to a query") {
			t.Errorf("got %v", err)
		}
	})
}

// client is what an application makes of the events of a set.
type client map[string]string

func (c client) apply(words []string) {
	for _, word := range words {
		key, value, found := strings.Cut(word, "=")
		switch {
		case word == "reset":
			clear(c)
		case found:
			c[key] = value
		default:
			delete(c, strings.TrimSuffix(key, "-"))
		}
	}
}

// Whatever is written, deleted, reported, lost, interrupted or evicted, in the end the client has what the table has.
func TestSetWatchConverges(t *testing.T) {
	for seed := range uint64(12) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			fake, table := origintest.New(nil), client{}
			feed, memory := random.IntN(2) == 0, []int64{1 << 20, 16 << 20}[random.IntN(2)]
			d := listable(t, fake, 2*time.Second, feed, memory)
			e := engineOf(t, api.Config{}, d)
			w, c, token := startSet(t, e, d, "k", ""), client{}, ""
			receive := func() {
				got, last := w.recorded()
				c.apply(got)
				if last != "" {
					token = last
				}
			}
			reopen := func() {
				w.stop()
				if err := <-w.done; err != nil && kv.KindOf(err) != kv.KindUnavailable {
					t.Error(err)
				}
				receive()
				w = startSet(t, e, d, "k", token)
			}
			for range 300 {
				key := fmt.Sprintf("%s%d", []string{"k", "j"}[random.IntN(2)], random.IntN(40))
				value := strings.Repeat(fmt.Sprint(random.IntN(9)), []int{1, 20000}[random.IntN(2)])
				switch n := random.IntN(20); {
				case n < 6:
					fake.Set(key, value)
					table[key] = value
				case n < 9:
					fake.Delete(key)
					delete(table, key)
				case n < 12:
					if _, err := d.Write(t.Context(), kv.Change{Key: key, Value: []byte(value)}); err == nil {
						table[key] = value
					}
				case n == 12:
					d.ExpireAll()
				case n == 13:
					d.ApplyInvalidation(kv.Invalidation{Dataset: "d", Key: "k", Prefix: true})
				case n == 14: // the client loses its connection
					reopen()
				case n == 15:
					time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond)
				case n == 16:
					fake.Fail([]error{nil, errors.New("down")}[random.IntN(2)])
				default: // the last change is reported
					d.ApplyInvalidation(kv.Invalidation{Dataset: "d", Key: key})
				}
				time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
				receive()
			}
			fake.Fail(nil)
			time.Sleep(kv.DefaultPolicy().LoadTimeout)
			reopen() // it may have begun when the keys could not be listed
			time.Sleep(2 * sweepWithFeed)
			receive()
			delete(c, "current")
			maps.DeleteFunc(table, func(key, _ string) bool { return !strings.HasPrefix(key, "k") })
			if !maps.Equal(c, table) {
				t.Errorf("seed %d, feed %v, memory %d: the client has %d keys, the table %d", seed, feed, memory, len(c), len(table))
				for key, value := range table {
					if c[key] != value {
						t.Errorf("%s: got %.9q, want %.9q", key, c[key], value)
					}
				}
			}
			w.end()
		})
	}
}
