package cache

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/internal/hotkeys"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// newHotCluster has four members. Member 0 owns every key, and all members know that "k" is hot; members 2 and 3 fetch it
// through each other. fetches lists the queries, as "to" or "to relay".
func newHotCluster(t *testing.T, p kv.Policy) (c *cluster, o *origintest.Fake, fetches func() []string) {
	t.Helper()
	o = origintest.New(map[string]string{"k": "v"})
	c = newCluster(t, 4, o, p)
	c.relay = func(from int) int { return []int{0, 0, 3, 2}[from] }
	var mu sync.Mutex
	var list []string
	c.fetched = func(to int, q kv.Query) {
		mu.Lock()
		defer mu.Unlock()
		text := fmt.Sprint(to)
		if q.Relay {
			text += " relay"
		}
		list = append(list, text)
	}
	fetches = func() []string {
		mu.Lock()
		defer mu.Unlock()
		defer func() { list = nil }()
		return list
	}
	c.members[0].hot = hotkeys.New()
	c.members[0].hot.Count("test", "k", 1000*hotkeys.Threshold) // as if fetched by thousands
	for _, d := range c.members[1:] {
		get(t, d, "k")
		drop(d) // it knows that the key is hot, and has no fresh copy
	}
	get(t, c.members[0], "k")
	fetches()
	return c, o, fetches
}

// drop expires the copies of d.
func drop(d *Dataset) { d.ExpireFrom("member-0") }

func expectFetches(t *testing.T, fetches func() []string, want ...string) {
	t.Helper()
	if got := fetches(); !slices.Equal(got, want) {
		t.Errorf("got the fetches %q, want %q", got, want)
	}
}

func TestHotKeyIsFetchedThroughAnotherMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPolicy()
		p.TTL = time.Minute
		c, o, fetches := newHotCluster(t, p)
		loads := o.Queries()
		expect(t, get(t, c.members[3], "k"), "v", kv.SourcePeerHit)
		expectFetches(t, fetches, "2 relay", "0")
		e, _ := c.members[3].store.Peek("k")
		if e == nil || e.Owner != "member-0" {
			t.Errorf("got entry %+v, want a copy of the owner's", e)
		}
		expect(t, get(t, c.members[2], "k"), "v", kv.SourceLocalHit) // it has a copy itself
		time.Sleep(kv.HotCopyTTL - tick)
		expect(t, get(t, c.members[3], "k"), "v", kv.SourceLocalHit)
		expectFetches(t, fetches)
		time.Sleep(2 * tick)
		var relayed uint32
		c.fetched = func(to int, q kv.Query) { relayed += q.Relayed }
		get(t, c.members[3], "k")
		if relayed != 1 {
			t.Errorf("%d relayed fetches are reported to the owner, want the one before", relayed)
		}
		if n := o.Queries() - loads; n > 1 {
			t.Errorf("%d loads in one ttl, want 1 at most", n)
		}
	})
}

// Two members that fetch through each other must not wait for each other.
func TestRelaysDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, fetches := newHotCluster(t, testPolicy())
		c.lag = 10 * tick
		var all sync.WaitGroup
		for _, d := range c.members[2:] {
			all.Go(func() { get(t, d, "k") })
		}
		all.Wait()
		got := fetches()
		slices.Sort(got)
		if want := []string{"0", "0", "2 relay", "3 relay"}; !slices.Equal(got, want) {
			t.Errorf("got the fetches %q, want %q", got, want)
		}
	})
}

func TestManyReadersOfAHotKeyAreOneFetchFromTheOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, fetches := newHotCluster(t, testPolicy())
		c.lag = 10 * tick
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if _, err := c.members[2].Serve(t.Context(), kv.Query{Dataset: "test", Key: "k", Relay: true}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		owner := 0
		for _, to := range fetches() {
			if to == "0" {
				owner++
			}
		}
		if owner > 1 {
			t.Errorf("got %d fetches from the owner, want one", owner)
		}
	})
}

// The member that answers for the owner may have the invalidation later than the reader.
func TestReaderOfAHotKeySeesWhatWasInvalidatedHere(t *testing.T) {
	for _, versions := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			c, o, fetches := newHotCluster(t, testPolicy())
			if !versions {
				o.Unversioned()
			}
			get(t, c.members[2], "k")
			get(t, c.members[3], "k")
			time.Sleep(tick)
			c.publicationsLost.Store(true)
			a, err := c.members[0].Write(t.Context(), kv.Change{Key: "k", Value: []byte("new")})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(tick)
			c.members[3].ApplyInvalidation(kv.Invalidation{Dataset: "test", Key: "k", Version: a.Version, Age: tick})
			fetches()
			if a := get(t, c.members[3], "k"); string(a.Value) != "new" {
				t.Errorf("versions %t: got %q after the invalidation, want the new value", versions, a.Value)
			}
			expectFetches(t, fetches, "2 relay", "0")
		})
	}
}

func TestReadsOfAHotKeyOutliveTheRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, o, fetches := newHotCluster(t, testPolicy())
		loads := o.Queries()
		c.away[2].Store(true)
		expect(t, get(t, c.members[3], "k"), "v", kv.SourcePeerHit)
		expectFetches(t, fetches, "0")
		c.away[2].Store(false)
		drop(c.members[3])
		c.members[2].core.peers = blind{seenFrom{c, 2}}
		expect(t, get(t, c.members[3], "k"), "v", kv.SourcePeerHit)
		expectFetches(t, fetches, "2 relay", "0")
		if n := o.Queries() - loads; n != 0 {
			t.Errorf("%d loads because a member could not reach the owner, want none", n)
		}
		o.Fail(errDown)
		time.Sleep(time.Minute)
		c.members[2].core.peers = seenFrom{c, 2}
		loads = o.Queries()
		c.members[3].reported.Learn("k", 500, c.members[3].now())
		if a := get(t, c.members[3], "k"); !a.Stale {
			t.Errorf("got %+v while the origin fails, want a stale answer", a)
		}
		if n := o.Queries() - loads; n > 1 {
			t.Errorf("%d loads of one read while the origin fails, want 1", n)
		}
	})
}

// blind cannot reach the owner.
type blind struct{ seenFrom }

type unreachableOwner struct{ kv.Peer }

func (unreachableOwner) Fetch(context.Context, kv.Query) (kv.Answer, error) {
	return kv.Answer{}, fmt.Errorf("%w: a firewall", kv.ErrUnreachable)
}

func (b blind) Route(dataset, key string) kv.Route {
	r := b.seenFrom.Route(dataset, key)
	r.Owner = unreachableOwner{r.Owner}
	return r
}

func TestOnlyTheOwnersEntryIsRelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, fetches := newHotCluster(t, testPolicy())
		c.members[2].core.peers = blind{seenFrom{c, 2}}
		through := c.relay
		c.relay = nil
		get(t, c.members[2], "k") // from the successor: its invalidations are not the owner's
		c.members[2].core.peers, c.relay = seenFrom{c, 2}, through
		fetches()
		get(t, c.members[3], "k")
		expectFetches(t, fetches, "2 relay", "0")
	})
}

func TestNoCacheReadOfAHotKeyAsksTheOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _, fetches := newHotCluster(t, testPolicy())
		if _, err := c.members[3].Get(t.Context(), "k", kv.ReadOptions{NoCache: true}); err != nil {
			t.Fatal(err)
		}
		expectFetches(t, fetches, "0")
		_, err := c.members[3].Get(t.Context(), "other", kv.ReadOptions{})
		if err != nil && !errors.Is(err, kv.ErrUnreachable) {
			t.Fatal(err)
		}
		expectFetches(t, fetches, "0") // it is not hot
	})
}

// A copy of a hot key lives longer; after a change of the ring the member that sent it may not know of writes.
func TestCopyOfAHotKeyEndsSoonAfterAChangeOfTheRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPolicy()
		c, _, fetches := newHotCluster(t, p)
		get(t, c.members[1], "k")
		fetches()
		time.Sleep(tick)
		c.members[1].RingChanged()
		time.Sleep(p.LocalTTL - tick)
		expect(t, get(t, c.members[1], "k"), "v", kv.SourceLocalHit)
		time.Sleep(tick)
		get(t, c.members[1], "k")
		if got := fetches(); len(got) == 0 {
			t.Error("the copy lives longer than local_ttl after a change of the ring")
		}
		get(t, c.members[1], "k")
		expectFetches(t, fetches) // the new copy is from after the change
	})
}

func TestFetchesThroughOtherMembersCount(t *testing.T) {
	d := newDataset(t, origintest.New(map[string]string{"k": "v"}), nil, testPolicy())
	d.hot = hotkeys.New()
	q := kv.Query{Dataset: "test", Key: "k", Relayed: 2 * hotkeys.Threshold}
	if a, err := d.Serve(t.Context(), q); err != nil || a.HotRate < hotkeys.Threshold || a.Relayed {
		t.Errorf("got %+v, %v; want a hot key", a, err)
	}
	q.Relayed = 0
	if a, ok := d.ServeHit(q, 100); !ok || a.HotRate == 0 {
		t.Errorf("a hit: got %+v, %t; want a hot key", a, ok)
	}
	r := d.ServeMany(t.Context(), []kv.Query{q, {Dataset: "test", Key: "other"}}, kv.BatchLimit{Bytes: 100})
	if r[0].Answer.HotRate == 0 || r[1].Answer.HotRate != 0 {
		t.Errorf("a batch: got %+v; want a hot key and one that is not", r)
	}
	if x := d.Explain("k"); x.Reads.Fetches < hotkeys.Threshold {
		t.Errorf("got %+v, want the rate of the key", x.Reads)
	}
	q.MemoryOnly = true
	if a, err := d.Serve(t.Context(), q); err != nil || a.HotRate != 0 {
		t.Errorf("a handover: got %+v, %v; want no rate", a, err)
	}
}
