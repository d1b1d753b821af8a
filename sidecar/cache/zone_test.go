package cache

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/internal/hotkeys"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// zones is a cluster with zones. Each member has views of its own.
type zones struct {
	*cluster
	owner, successor func(from int, key string) int
	zoneOwner        func(from int, key string) int // the member of the zone of from; -1: none
	cut              func(from, to int) bool        // nothing arrives; nil: nowhere
	previous         func(from int) int             // nil: none
	streams          func(from, to int) bool        // the invalidations of to arrive at from; nil: everywhere
	older            bool                           // members do not know zones
	asked            atomic.Int64                   // keys that were asked for, also of members that do not answer
	crossings        atomic.Int64                   // … by members of another zone
}

// newZones has two members in each of three zones. Member 0, in zone 0, owns every key, and 1, also in zone 0, is its successor; 2 and
// 4 are the zone owners of the other zones.
func newZones(t testing.TB, o *origintest.Fake, p kv.Policy) *zones {
	z := zonesOf(t, 6, o, p)
	z.owner = func(int, string) int { return 0 }
	z.successor = func(int, string) int { return 1 }
	z.zoneOwner = func(from int, _ string) int { return from / 2 * 2 }
	return z
}

func zonesOf(t testing.TB, n int, o origin.Origin, p kv.Policy) *zones {
	z := &zones{cluster: &cluster{t: t, away: make([]atomic.Bool, n), frozen: make([]atomic.Bool, n), prev: -1}}
	z.order = func(from int) (int, int) { return z.owner(from, ""), z.successor(from, "") }
	for i := range n {
		z.members = append(z.members, newDataset(t, o, zoneView{seenFrom{z.cluster, i}, z}, p))
	}
	return z
}

type zoneView struct {
	seenFrom
	z *zones
}

func (v zoneView) Route(_, key string) kv.Route {
	owner := v.z.owner(v.self, key)
	if owner == v.self {
		if v.z.previous != nil {
			return kv.Route{Previous: v.peer(v.z.previous(v.self))}
		}
		return kv.Route{}
	}
	return kv.Route{Owner: v.peer(owner), Successor: v.peer(v.z.successor(v.self, key)), OwnerDown: v.z.away[owner].Load()}
}

func (v zoneView) ZoneOwner(_, key string) (kv.Peer, bool) {
	owner := v.z.zoneOwner(v.self, key)
	if owner < 0 || owner/2 == v.z.owner(v.self, key)/2 {
		return nil, false
	}
	return v.peer(owner), owner == v.self
}

func (v zoneView) peer(i int) kv.Peer {
	if i == v.self {
		return nil
	}
	return zoneLink{link{v.c, i}, v}
}

// zoneLink counts requests.
type zoneLink struct {
	link
	from zoneView
}

func (l zoneLink) count(keys int) error {
	l.from.z.asked.Add(int64(keys))
	if l.from.self/2 != l.to/2 {
		l.from.z.crossings.Add(int64(keys))
	}
	if cut := l.from.z.cut; cut != nil && cut(l.from.self, l.to) {
		return fmt.Errorf("%w: %s", kv.ErrUnreachable, l.ID())
	}
	return nil
}

func (l zoneLink) Fetch(ctx context.Context, q kv.Query) (kv.Answer, error) {
	if err := l.count(1); err != nil {
		return kv.Answer{}, err
	}
	if l.from.z.older && q.Zone {
		return kv.Answer{}, &kv.Error{Kind: kv.KindNotCached}
	}
	a, err := l.link.Fetch(ctx, q)
	return l.kept(q, a), err
}

// kept is what package peer makes of an answer: no copy is kept without a stream of the member that loaded it.
func (l zoneLink) kept(q kv.Query, a kv.Answer) kv.Answer {
	var loader int
	if _, err := fmt.Sscanf(a.Owner, "member-%d", &loader); q.Zone && err == nil && l.from.z.streams != nil && !l.from.z.streams(l.from.self, loader) {
		a.Fresh = 0
	}
	return a
}

// Publish reaches those to which there is a stream.
func (v zoneView) Publish(i kv.Invalidation) {
	for n, d := range v.z.members {
		if n != v.self && !v.z.publicationsLost.Load() && (v.z.streams == nil || v.z.streams(n, v.self)) {
			d.ApplyInvalidation(i)
		}
	}
}

func (l zoneLink) FetchBatch(ctx context.Context, qs []kv.Query) []kv.Outcome {
	if err := l.count(len(qs)); err != nil {
		outcomes := make([]kv.Outcome, len(qs))
		for i := range outcomes {
			outcomes[i].Err = err
		}
		return outcomes
	}
	outcomes := l.link.FetchBatch(ctx, qs)
	for i := range outcomes {
		outcomes[i].Answer = l.kept(qs[i], outcomes[i].Answer)
	}
	return outcomes
}

func longPolicy() kv.Policy {
	p := testPolicy()
	p.TTL = time.Minute
	return p
}

func TestKeyCrossesIntoEachZoneOncePerTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		z := newZones(t, o, longPolicy())
		const periods = 3
		for range periods * 60 { // one read a second through each member: local copies live as long
			for _, d := range z.members {
				if a := get(t, d, "k"); string(a.Value) != "v" {
					t.Fatalf("got %q", a.Value)
				}
			}
			time.Sleep(time.Second)
		}
		if n := o.Queries(); n != periods {
			t.Errorf("got %d queries in %d periods of the ttl, want one in each", n, periods)
		}
		if n := z.crossings.Load(); n != 2*periods {
			t.Errorf("got %d fetches from other zones by two zones in %d periods of the ttl, want one by each in each", n, periods)
		}
		e, _ := z.members[3].store.Peek("k")
		if e == nil || e.Owner != "member-0" {
			t.Errorf("got %+v, want a copy that depends on the invalidations of the owner", e)
		}
	})
}

// A herd in a zone, the zone owner's own readers among them, is one fetch from the other zone.
func TestHerdInAZoneIsOneCrossing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		z := newZones(t, o, longPolicy())
		z.lag = 10 * tick
		var all sync.WaitGroup
		for i := range 300 {
			all.Go(func() { get(t, z.members[i%6], "k") })
		}
		all.Wait()
		if q, n := o.Queries(), z.crossings.Load(); q != 1 || n != 2 {
			t.Errorf("got %d queries and %d fetches from other zones, want 1 and 2", q, n)
		}
	})
}

func TestBatchAsksEachZoneOwnerOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		values, keys := map[string]string{}, []string(nil)
		for i := range 100 {
			key := fmt.Sprint(i)
			values[key], keys = key, append(keys, key)
		}
		z := newZones(t, origintest.New(values), longPolicy())
		for i, r := range z.members[3].GetMany(t.Context(), keys, kv.ReadOptions{}, kv.BatchLimit{Bytes: kv.DefaultBatchBytes}) {
			if r.Err != nil || string(r.Answer.Value) != keys[i] {
				t.Fatalf("key %s: got %q, %v", keys[i], r.Answer.Value, r.Err)
			}
		}
		if n := z.batches.Load(); n != 2 {
			t.Errorf("got %d requests, want one to the zone owner and one to the owner", n)
		}
	})
}

// Bounds of the reader hold at both members that it reads through.
func TestReadsOfOneZoneSeeTheirWrites(t *testing.T) {
	for _, versions := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			o := origintest.New(map[string]string{"k": "old"})
			if !versions {
				o.Unversioned()
			}
			z := newZones(t, o, longPolicy())
			for _, d := range z.members {
				get(t, d, "k")
			}
			time.Sleep(tick)
			z.publicationsLost.Store(true)
			if _, err := z.members[3].Write(t.Context(), kv.Change{Key: "k", Value: []byte("new")}); err != nil {
				t.Fatal(err)
			}
			if a := get(t, z.members[3], "k"); string(a.Value) != "new" {
				t.Errorf("versions %v: got %q after the write, want it", versions, a.Value)
			}
			if e, _ := z.members[2].store.Peek("k"); string(e.Value) != "new" {
				t.Errorf("versions %v: the zone owner has %q after the read through it, want the write", versions, e.Value)
			}
			time.Sleep(2 * time.Second)
			if a := get(t, z.members[3], "k"); string(a.Value) != "new" {
				t.Errorf("versions %v: got %q after the copy has ended, want the write", versions, a.Value)
			}
			if a, err := z.members[5].Get(t.Context(), "k", kv.ReadOptions{NoCache: true}); err != nil || string(a.Value) != "new" {
				t.Errorf("versions %v: got %q, %v without cache in another zone, want the write", versions, a.Value, err)
			}
		})
	}
}

// The reader's bound is a time without a version, after which the zone owner has loaded nothing: its copy must not do.
func TestZoneOwnerDoesNotAnswerWithLessThanItIsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		z := newZones(t, o, longPolicy())
		get(t, z.members[3], "k")
		time.Sleep(tick)
		o.Set("k", "new")
		z.members[3].ApplyInvalidation(kv.Invalidation{Dataset: "test", Key: "k"}) // the zone owner and the owner did not get it
		time.Sleep(tick)
		before := z.asked.Load()
		if a := get(t, z.members[3], "k"); string(a.Value) != "new" {
			t.Errorf("got %q after the invalidation, want the new value", a.Value)
		}
		if n := z.asked.Load() - before; n != 2 {
			t.Errorf("the read made %d fetches, want that from the zone owner and that from the owner", n)
		}
	})
}

func TestInvalidationReachesCopiesOfZoneOwners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		z := newZones(t, o, longPolicy())
		for _, d := range z.members {
			get(t, d, "k")
		}
		time.Sleep(tick)
		o.Set("k", "new")
		if _, err := z.members[5].Invalidate(t.Context(), kv.Scope{Keys: []string{"k"}}); err != nil {
			t.Fatal(err)
		}
		for i, d := range z.members {
			if a := get(t, d, "k"); string(a.Value) != "new" {
				t.Errorf("member %d: got %q after the invalidation, want the new value", i, a.Value)
			}
		}
	})
}

// Members 2 and 3 are cut off from the others and the database. Member 3 has never read the key.
func TestZoneThatIsCutOffIsServedByItsZoneOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		z := newZones(t, o, testPolicy())
		get(t, z.members[2], "k")
		z.cut = func(from, to int) bool { return from/2 != to/2 }
		z.members[2].ExpireFrom("member-0") // its stream has ended
		o.Fail(errDown)
		began := time.Now()
		a := get(t, z.members[3], "k")
		if string(a.Value) != "v" || !a.Stale || time.Since(began) > 2*staleWait {
			t.Errorf("got %+v after %v, want the stale value soon", a, time.Since(began))
		}
		time.Sleep(time.Minute)
		if a := get(t, z.members[3], "k"); string(a.Value) != "v" || !a.Stale {
			t.Errorf("got %+v a minute later, want the stale value", a)
		}
	})
}

func TestSilentZoneOwnerIsSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		z := newZones(t, o, testPolicy())
		z.away[2].Store(true)
		get(t, z.members[3], "k")
		if n, q := z.asked.Load(), o.Queries(); n != 2 || q != 1 {
			t.Errorf("got %d fetches and %d queries, want the zone owner and the owner asked, and one query", n, q)
		}
	})
}

func TestZoneOwnerOfAnOlderReleaseIsSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		z := newZones(t, o, testPolicy())
		z.older = true
		get(t, z.members[3], "k")
		if n := z.asked.Load(); n != 2 {
			t.Errorf("got %d fetches, want 2", n)
		}
	})
}

// The owner is dead: zone owners ask its successor, and one query is made.
func TestZoneOwnersFailOverToTheSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		z := newZones(t, o, testPolicy())
		z.away[0].Store(true)
		for _, d := range z.members[2:] {
			if a := get(t, d, "k"); string(a.Value) != "v" {
				t.Errorf("got %q", a.Value)
			}
		}
		if q := o.Queries(); q != 1 {
			t.Errorf("got %d queries, want that of the successor", q)
		}
	})
}

// The readers of a zone make a key hot for their zone owner: they keep copies longer, and fetch it through no further member.
func TestHotKeyOfAnotherZoneHasNoRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		z := newZones(t, o, longPolicy())
		z.relay = func(int) int { t.Error("a relay was asked for"); return 4 }
		z.members[2].hot = hotkeys.New()
		z.members[2].hot.Count("test", "k", 1000*hotkeys.Threshold)
		get(t, z.members[3], "k")
		time.Sleep(kv.HotCopyTTL - tick)
		expect(t, get(t, z.members[3], "k"), "v", kv.SourceLocalHit)
		time.Sleep(2 * tick)
		before := z.asked.Load()
		expect(t, get(t, z.members[3], "k"), "v", kv.SourcePeerHit)
		if n := z.asked.Load() - before; n != 1 {
			t.Errorf("got %d fetches, want one from the zone owner", n)
		}
	})
}

// Whatever members think who owns what, and with any of them dead, a read asks two other members at most, and ends.
func TestReadMakesTwoPeerFetchesAtMost(t *testing.T) {
	const members, keys, rounds = 8, 4, 40
	for round := range rounds {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, uint64(round)))
			values := map[string]string{}
			for k := range keys {
				values[fmt.Sprint(k)] = "v"
			}
			p := testPolicy()
			p.LocalTTL = 0 // each read is a fetch
			z := zonesOf(t, members, origintest.New(values), p)
			view := func(least int) func(from int, key string) int {
				drawn := map[string]int{}
				for from := range members {
					for k := range keys {
						drawn[fmt.Sprint(from, " ", k)] = least + random.IntN(members-least)
					}
				}
				return func(from int, key string) int { return drawn[fmt.Sprint(from, " ", key)] }
			}
			z.owner, z.successor, z.zoneOwner = view(0), view(0), view(-1)
			for m := range members {
				z.away[m].Store(random.IntN(4) == 0)
			}
			for from, d := range z.members {
				for k := range keys {
					before := z.asked.Load()
					if a := get(t, d, fmt.Sprint(k)); string(a.Value) != "v" {
						t.Errorf("got %q", a.Value)
					}
					if n := z.asked.Load() - before; n > 2 {
						t.Errorf("round %d: a read of key %d through member %d made %d peer fetches, want 2 at most", round, k, from, n)
					}
				}
			}
			time.Sleep(p.TTL)
			z.lag = 10 * tick
			var all sync.WaitGroup // none waits for itself through others
			for i := range 100 {
				all.Go(func() { get(t, z.members[i%members], fmt.Sprint(i%keys)) })
			}
			all.Wait()
		})
	}
}

// Each of two members takes the other one for the zone owner.
func TestZoneOwnersThatDisagreeDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := newZones(t, origintest.New(map[string]string{"k": "v"}), testPolicy())
		z.lag = 10 * tick
		z.zoneOwner = func(from int, _ string) int { return from ^ 1 }
		began := time.Now()
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() { get(t, z.members[2+i%2], "k") })
		}
		all.Wait()
		if took := time.Since(began); took > 100*tick {
			t.Errorf("reads took %v: members waited for each other", took)
		}
	})
}
