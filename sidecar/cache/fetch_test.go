package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func TestMissGoesToTheOwnerAndLeavesALocalCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		c := newCluster(t, 3, o, testPolicy())
		expect(t, get(t, c.members[1], "k"), "v", kv.SourceLoad)
		expect(t, get(t, c.members[2], "k"), "v", kv.SourcePeerHit)
		a := get(t, c.members[1], "k")
		expect(t, a, "v", kv.SourceLocalHit)
		if a.Owner != "member-0" {
			t.Errorf("owner %q; want member-0", a.Owner)
		}
		if o.Queries() != 1 {
			t.Errorf("%d queries; want 1", o.Queries())
		}
	})
}

func TestEntryOlderThanThisMemberIsOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		c := newCluster(t, 2, o, testPolicy())
		get(t, c.members[0], "k")
		time.Sleep(5 * time.Second)
		late := newDataset(t, o, seenFrom{c, 1}, testPolicy())
		expect(t, get(t, late, "k"), "v", kv.SourcePeerHit)
		if n := late.Stats().PeerFetches.Load(); n != 1 {
			t.Errorf("%d peer fetches; want 1", n)
		}
	})
}

func TestEveryMemberGivesTheSameETag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, origintest.New(map[string]string{"k": "v"}), testPolicy())
		if a, b := get(t, c.members[0], "k"), get(t, c.members[1], "k"); a.ETag != b.ETag || a.ETag == "" {
			t.Errorf("ETags %q and %q", a.ETag, b.ETag)
		}
	})
}

func TestLocalCopyNeverOutlivesTheOwnersEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		c := newCluster(t, 2, o, testPolicy())
		get(t, c.members[0], "k")
		time.Sleep(9500 * time.Millisecond)
		a := get(t, c.members[1], "k")
		if a.Age != 9500*time.Millisecond || a.Fresh != 500*time.Millisecond {
			t.Errorf("age %v, fresh %v; want 9.5s and 500ms", a.Age, a.Fresh)
		}
		o.Set("k", "new")
		time.Sleep(500 * time.Millisecond)
		expect(t, get(t, c.members[1], "k"), "new", kv.SourceLoad)
	})
}

// The owner's remaining time counts from its answer. Counted from the request, a slow load would shorten it twice.
func TestCopyOfASlowLoadIsFreshForWhatIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPolicy()
		p.TTL = time.Second
		o := origintest.New(map[string]string{"k": "v"})
		o.Slow(600 * time.Millisecond)
		c := newCluster(t, 2, o, p)
		if a := get(t, c.members[1], "k"); a.Age != 600*time.Millisecond || a.Fresh != 400*time.Millisecond {
			t.Errorf("age %v, fresh %v; want 600ms and 400ms", a.Age, a.Fresh)
		}
	})
}

func TestNotFoundIsCopiedLikeAValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		c := newCluster(t, 5, o, testPolicy())
		for range 100 {
			for _, d := range c.members {
				if a := get(t, d, "none"); !a.NotFound {
					t.Fatalf("got %+v", a)
				}
			}
		}
		if o.Queries() != 1 {
			t.Errorf("%d queries for one absent key on five members; want 1", o.Queries())
		}
	})
}

func TestHerdOnFiveMembersIsOneQuery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		o.Slow(10 * time.Millisecond)
		c := newCluster(t, 5, o, testPolicy())
		var all sync.WaitGroup
		for i := range 1000 {
			all.Go(func() { get(t, c.members[i%5], "k") })
		}
		all.Wait()
		if o.Queries() != 1 {
			t.Errorf("%d queries; want 1", o.Queries())
		}
	})
}

// With one map for fetches and loads, each would wait for its own fetch to return from the other.
func TestRingsThatDisagreeDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, origintest.New(map[string]string{"k": "v"}), testPolicy())
		c.order = func(from int) (int, int) { return 1 - from, from } // each thinks it is the other's
		began := time.Now()
		var both sync.WaitGroup
		for _, d := range c.members {
			both.Go(func() { get(t, d, "k") })
		}
		both.Wait()
		if waited := time.Since(began); waited != 0 {
			t.Errorf("they waited for each other for %v", waited)
		}
	})
}

func TestMemberThatDoesNotOwnAKeyCachesItShortly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		c := newCluster(t, 3, o, testPolicy())
		c.order = func(from int) (int, int) { return (from + 1) % 3, from } // 1 asks 2, which thinks that 0 owns it
		a := get(t, c.members[1], "k")
		expect(t, a, "v", kv.SourceLoad)
		if n := c.members[0].Stats().Served.Load(); n != 0 {
			t.Errorf("the request was forwarded")
		}
		if e := c.members[2].Explain("k"); e.Fresh != 2*time.Second || e.Why != "failover" {
			t.Errorf("kept for %v, %s; want 2s, failover", e.Fresh, e.Why)
		}
	})
}

func TestDeadOwnerDoesNotSendEveryMemberToTheOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		o.Slow(10 * time.Millisecond)
		c := newCluster(t, 10, o, testPolicy())
		c.away[0].Store(true)
		var all sync.WaitGroup
		for i := range 900 {
			all.Go(func() {
				a := get(t, c.members[1+i%9], "k")
				if string(a.Value) != "v" {
					t.Errorf("got %q", a.Value)
				}
			})
		}
		all.Wait()
		if o.Queries() != 1 {
			t.Errorf("%d queries with a dead owner; want 1, the successor's", o.Queries())
		}
		for i, want := range map[int]int64{1: 0, 2: 1} { // the successor does not ask itself
			if n := c.members[i].Stats().Successor.Load(); n != want {
				t.Errorf("member %d counts %d peer fetches to the successor; want %d", i, n, want)
			}
		}
	})
}

// A failure of the origin at the owner is final: requests to the successor, or to the database from here, would multiply the load.
func TestOriginFailureAtTheOwnerIsAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		o.Fail(errDown)
		c := newCluster(t, 3, o, testPolicy())
		if _, err := c.members[2].Get(t.Context(), "k", kv.ReadOptions{}); kv.KindOf(err) != kv.KindUnavailable {
			t.Errorf("got %v; want unavailable", err)
		}
		if o.Queries() != 1 || c.members[1].Stats().Served.Load() != 0 {
			t.Errorf("%d queries, the successor asked %d times", o.Queries(), c.members[1].Stats().Served.Load())
		}
	})
}

func TestOwnerAndSuccessorAway(t *testing.T) {
	away := func(t *testing.T) (*cluster, *origintest.Fake) {
		o := origintest.New(map[string]string{"held": "old"})
		c := newCluster(t, 3, o, testPolicy())
		get(t, c.members[2], "held")
		c.away[0].Store(true)
		c.away[1].Store(true)
		time.Sleep(2 * time.Second)
		return c, o
	}
	t.Run("a stale copy comes before the origin", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, o := away(t)
			a := get(t, c.members[2], "held")
			if string(a.Value) != "old" || !a.Stale || a.Detail != "owner-unreachable" || o.Queries() != 1 {
				t.Errorf("got %+v after %d queries", a, o.Queries())
			}
			if why := c.members[2].Stats().LastPeerFetchError.Load(); why == nil || !errors.Is(*why, kv.ErrUnreachable) {
				t.Errorf("the reason is not kept: %v", why)
			}
		})
	})
	t.Run("loads made here are few", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, o := away(t)
			o.Slow(100 * time.Millisecond)
			var refused atomic.Int64
			var all sync.WaitGroup
			for i := range 100 {
				key := fmt.Sprint("cold-", i)
				o.Set(key, "v")
				all.Go(func() {
					if _, err := c.members[2].Get(t.Context(), key, kv.ReadOptions{}); kv.KindOf(err) == kv.KindOverloaded {
						refused.Add(1)
					}
				})
			}
			all.Wait()
			// In the second that they wait, ten rounds of loads begin, and an eleventh when it ends.
			if o.Peak() != maxFailoverLoads || refused.Load() < 100-11*maxFailoverLoads || refused.Load() > 100-10*maxFailoverLoads {
				t.Errorf("%d loads at once, %d of 100 refused; want %d, and those whose turn did not come within 1s",
					o.Peak(), refused.Load(), maxFailoverLoads)
			}
		})
	})
}

func TestCopyIsNotStoredAfterAnInvalidation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		o.Slow(100 * time.Millisecond)
		c := newCluster(t, 2, o, testPolicy())
		var reader sync.WaitGroup
		reader.Go(func() { get(t, c.members[1], "k") })
		time.Sleep(tick)
		o.Set("k", "new")
		for _, d := range c.members {
			d.ApplyInvalidation(kv.Invalidation{Key: "k"})
		}
		reader.Wait()
		if a := get(t, c.members[1], "k"); string(a.Value) != "new" {
			t.Errorf("got %q: a copy asked for before an invalidation was stored after it", a.Value)
		}
	})
}

func TestNoCacheReachesTheOwnersOrigin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		c := newCluster(t, 2, o, testPolicy())
		get(t, c.members[1], "k")
		time.Sleep(tick)
		o.Set("k", "new")
		a, err := c.members[1].Get(t.Context(), "k", kv.ReadOptions{NoCache: true})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, a, "new", kv.SourceLoad)
		if o.Queries() != 2 {
			t.Errorf("%d queries; want 2", o.Queries())
		}
	})
}

func TestNewOwnerTakesOverFromThePreviousOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		c := newCluster(t, 2, o, testPolicy())
		get(t, c.members[0], "k")
		c.order = func(int) (int, int) { return 1, 0 }
		c.prev = 0
		time.Sleep(4 * time.Second)
		a := get(t, c.members[1], "k")
		if a.Source != kv.SourcePeerHit || a.Age != 4*time.Second || a.Fresh != 6*time.Second || o.Queries() != 1 {
			t.Errorf("got %+v after %d queries; want the entry with the time it had left", a, o.Queries())
		}
		expect(t, get(t, c.members[1], "k"), "v", kv.SourceHit)
		if a := get(t, c.members[1], "none"); !a.NotFound {
			t.Errorf("got %+v; want a load after a handover request without an entry", a)
		}
	})
}

func TestHandoverFromADeadMemberCostsLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		d := newDataset(t, o, handoverFrom{previous: silent{}}, testPolicy())
		began := time.Now()
		expect(t, get(t, d, "k"), "v", kv.SourceLoad)
		if waited := time.Since(began); waited != handoverTimeout {
			t.Errorf("the load waited %v for the handover; want %v", waited, handoverTimeout)
		}
	})
}

type handoverFrom struct {
	kv.NoPeers
	previous kv.Peer
}

func (p handoverFrom) Route(string, string) kv.Route { return kv.Route{Previous: p.previous} }

// silent never answers.
type silent struct{ noBatches }

func (silent) ID() string { return "silent" }

func (silent) Write(context.Context, kv.Change) (kv.Answer, error) {
	return kv.Answer{}, kv.ErrUnreachable
}

func (s silent) WriteMany(_ context.Context, cs []kv.Change) []kv.Outcome { return each(s.Write, cs) }

func (silent) Fetch(ctx context.Context, _ kv.Query) (kv.Answer, error) {
	<-ctx.Done()
	return kv.Answer{}, fmt.Errorf("%w: %w", kv.ErrUnreachable, ctx.Err())
}

// Readers, writers and sweepers run concurrently, for the race detector. No read may return the value of another key.
func TestValuesNeverMix(t *testing.T) {
	o := origintest.New(nil)
	for i := range 100 {
		o.Set(fmt.Sprint(i), fmt.Sprint("value of ", i))
	}
	p := testPolicy()
	p.TTL, p.LocalTTL = 2*time.Millisecond, time.Millisecond
	c := newCluster(t, 3, o, p)
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := range 2000 {
				n := (i*7 + worker) % 100
				d := c.members[(i+worker)%3]
				if a := get(t, d, fmt.Sprint(n)); string(a.Value) != fmt.Sprint("value of ", n) {
					t.Errorf("key %d has %q", n, a.Value)
				}
				switch i % 50 {
				case 0:
					d.ApplyInvalidation(kv.Invalidation{Key: fmt.Sprint(n)})
				case 1:
					d.Sweep()
				}
			}
		})
	}
	all.Wait()
}

// frozen is a member that reports the end of its deadline when it resumes, as one that was stopped with SIGSTOP does.
type frozen struct {
	said
	after time.Duration
}

func (f frozen) Fetch(context.Context, kv.Query) (kv.Answer, error) {
	time.Sleep(f.after)
	return kv.Answer{}, &kv.Error{Kind: kv.KindDeadline, Err: errors.New("the caller's deadline passed")}
}

func (frozen) Write(context.Context, kv.Change) (kv.Answer, error) {
	return kv.Answer{}, &kv.Error{Kind: kv.KindUnknown, Err: errors.New("deadline")}
}

func (f frozen) WriteMany(_ context.Context, cs []kv.Change) []kv.Outcome { return each(f.Write, cs) }

type ownerAndSuccessor struct {
	kv.NoPeers
	owner, successor kv.Peer
}

func (o ownerAndSuccessor) Route(string, string) kv.Route {
	return kv.Route{Owner: o.owner, Successor: o.successor}
}

func TestDeadlineOfAFrozenMemberIsNoAnswer(t *testing.T) {
	for _, after := range []time.Duration{0, 900 * time.Millisecond, 1250 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			o := origintest.New(map[string]string{"k": "v"})
			successor := newCluster(t, 1, o, testPolicy())
			d := newDataset(t, o, ownerAndSuccessor{owner: frozen{after: after}, successor: link{successor, 0}}, testPolicy())
			a := get(t, d, "k")
			expect(t, a, "v", kv.SourceLoad)
			if a.Detail != "owner-unreachable" || d.Stats().PeerFetchErrors.Load() != 1 {
				t.Errorf("after %v: detail %q, %d fetches without an answer; want the successor's answer", after, a.Detail,
					d.Stats().PeerFetchErrors.Load())
			}
			_, err := d.Write(t.Context(), kv.Change{Key: "k", Value: []byte("w")})
			expectKind(t, err, kv.KindUnknown) // it may have been made
			ctx, cancel := context.WithTimeout(t.Context(), tick)
			defer cancel()
			_, err = d.Get(ctx, "other", kv.ReadOptions{NoCache: true})
			if after > 0 {
				expectKind(t, err, kv.KindDeadline) // the caller's own
			}
		})
	}
}

func TestEndOfAFlightIsNotADeadlineOfItsReaders(t *testing.T) {
	ended, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	d := newDataset(t, origintest.New(nil), nil, testPolicy())
	for _, kind := range []kv.Kind{kv.KindDeadline, kv.KindCanceled} {
		err := noAnswer(ended, &kv.Error{Kind: kind, Err: errors.New("the caller's deadline passed")})
		expectKind(t, d.classify(err), kv.KindUnavailable)
	}
}
