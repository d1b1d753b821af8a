package cache

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func TestCopiesOfALostMemberExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		c := newCluster(t, 2, o, testPolicy())
		get(t, c.members[1], "k")
		c.publicationsLost.Store(true)
		put(t, c.members[0], "k", "new")
		expect(t, get(t, c.members[1], "k"), "old", kv.SourceLocalHit)
		c.members[1].ExpireFrom("member-0")
		expect(t, get(t, c.members[1], "k"), "new", kv.SourcePeerHit)
	})
}

func TestInvalidateReachesEveryMember(t *testing.T) {
	for name, s := range map[string]kv.Scope{"keys": {Keys: []string{"a/1"}}, "prefix": {Prefix: "a/"}, "all": {}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := origintest.New(map[string]string{"a/1": "old"})
				c := newCluster(t, 4, o, testPolicy())
				for _, d := range c.members {
					get(t, d, "a/1")
				}
				c.away[3].Store(true)
				o.Set("a/1", "new")
				told, err := c.members[1].Invalidate(t.Context(), s)
				if err != nil || told.Members != 3 || fmt.Sprint(told.Unreached) != "[member-3]" {
					t.Errorf("got %+v, %v", told, err)
				}
				time.Sleep(tick)
				for i, d := range c.members[:3] {
					if a := get(t, d, "a/1"); string(a.Value) != "new" {
						t.Errorf("member %d reads %q", i, a.Value)
					}
				}
			})
		})
	}
}

func TestOlderAnswerOfAnOwnerWithoutTheInvalidationIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "old"})
		c := newCluster(t, 2, o, testPolicy())
		get(t, c.members[1], "k")
		time.Sleep(tick)
		version := o.Set("k", "new")
		c.members[1].ApplyInvalidation(kv.Invalidation{Key: "k", Version: version}) // and not the owner
		if a := get(t, c.members[1], "k"); string(a.Value) != "new" {
			t.Errorf("got %q", a.Value)
		}
		time.Sleep(tick)
		o.Set("k", "newer")
		c.members[1].ApplyInvalidation(kv.Invalidation{Key: "k"})
		if a := get(t, c.members[1], "k"); string(a.Value) != "newer" {
			t.Errorf("got %q", a.Value)
		}
	})
}

func TestExpiredCopyIsAStaleAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		c := newCluster(t, 3, o, testPolicy())
		get(t, c.members[2], "k")
		c.members[2].ExpireFrom("member-0")
		c.away[0].Store(true)
		o.Fail(errDown)
		if a := get(t, c.members[2], "k"); !a.Stale || string(a.Value) != "v" {
			t.Errorf("got %+v; want the stale copy", a)
		}
		_, err := c.members[2].Get(t.Context(), "k", kv.ReadOptions{LimitStale: true})
		expectKind(t, err, kv.KindUnavailable)
	})
}

func TestPeerFetchThatBeganBeforeCopiesExpireIsNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScripted(kv.Answer{Value: []byte("old"), Version: 1, Fresh: time.Minute})
		d := newDataset(t, origintest.New(nil), s, testPolicy())
		var reader sync.WaitGroup
		reader.Go(func() { get(t, d, "k") })
		synctest.Wait()
		d.ExpireFrom(s.ID())
		close(s.gates[0])
		reader.Wait()
		if d.Explain("k").Held {
			t.Error("a copy from before the missed invalidations is held")
		}
	})
}

func TestInvalidatedKeyIsNotLoadedForEachMember(t *testing.T) {
	for _, s := range []kv.Scope{{Keys: []string{"k"}}, {}} {
		synctest.Test(t, func(t *testing.T) {
			o := origintest.New(map[string]string{"k": "v"})
			c := newCluster(t, 10, o, testPolicy())
			if _, err := c.members[3].Invalidate(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			for _, d := range c.members {
				time.Sleep(tick)
				get(t, d, "k")
			}
			if n := o.Queries(); n != 1 {
				t.Errorf("%d queries for %+v on 10 members; want 1", n, s)
			}
		})
	}
}

func TestExpiredCopyIsNotExplainedAsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, origintest.New(map[string]string{"k": "v"}), testPolicy())
		get(t, c.members[1], "k")
		c.members[1].ExpireFrom("member-0")
		if x := c.members[1].Explain("k"); !x.Held || x.Fresh > 0 {
			t.Errorf("%+v; want a copy that is not fresh", x)
		}
	})
}

func TestInvalidationWithANegativeVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		d := newDataset(t, o, nil, testPolicy())
		get(t, d, "k") // does not exist
		o.Set("k", "v")
		time.Sleep(tick)
		d.ApplyInvalidation(kv.Invalidation{Dataset: "test", Key: "k", Version: -5})
		expect(t, get(t, d, "k"), "v", kv.SourceLoad)
	})
}

// While prefixes are invalidated 100 times per second that begin no key, reads cost the origin what they cost without.
func TestPrefixInvalidationCostsNothingWhereNothingMatches(t *testing.T) {
	const (
		keys     = 10
		duration = 10 * time.Second
		every    = 10 * time.Millisecond
	)
	policy := testPolicy()
	policy.TTL, policy.TTLJitter, policy.LocalTTL = time.Minute, 0, time.Minute
	for name, invalidate := range map[string]func(c *cluster, prefix string){
		"by an application": func(c *cluster, prefix string) {
			if _, err := c.members[0].Invalidate(context.Background(), kv.Scope{Prefix: prefix}); err != nil {
				t.Error(err)
			}
		},
		"by another member": func(c *cluster, prefix string) {
			if _, err := c.members[1].Invalidate(context.Background(), kv.Scope{Prefix: prefix}); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := origintest.New(nil)
				for i := range keys {
					o.Set(fmt.Sprintf("key-%d", i), "v")
				}
				o.Slow(50 * time.Millisecond)
				c := newCluster(t, 2, o, policy)
				done := make(chan struct{})
				var all sync.WaitGroup
				all.Go(func() {
					defer close(done)
					for n := range int(duration / every) {
						time.Sleep(every)
						invalidate(c, fmt.Sprintf("other-%d/", n))
					}
				})
				for i := range keys {
					for _, d := range c.members {
						all.Go(func() {
							for {
								select {
								case <-done:
									return
								case <-time.After(5 * time.Millisecond):
									get(t, d, fmt.Sprintf("key-%d", i))
								}
							}
						})
					}
				}
				all.Wait()
				if n := o.Queries(); n != keys {
					t.Errorf("%d queries in %v, want %d", n, duration, keys)
				}
			})
		})
	}
}

// A reader after an invalidation by prefix does not join a load from before it, and that load is not stored.
func TestPrefixInvalidationDetachesTheFlightsOfItsKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"a/1": "v", "b/1": "v"})
		d := newDataset(t, o, nil, testPolicy())
		release := o.Block()
		var readers sync.WaitGroup
		read := func() {
			for _, key := range []string{"a/1", "b/1"} {
				readers.Go(func() { get(t, d, key) })
			}
			synctest.Wait()
		}
		read()
		d.ApplyInvalidation(kv.Invalidation{Key: "a/", Prefix: true})
		read()
		if a, b := o.Asked("a/1"), o.Asked("b/1"); a != 2 || b != 1 {
			t.Errorf("%d queries of a/1 and %d of b/1, want 2 and 1", a, b)
		}
		release()
		readers.Wait()
	})
}

// slowPeers takes a second for each broadcast.
type slowPeers struct {
	kv.NoPeers
	lists [][]kv.Invalidation
}

func (p *slowPeers) Broadcast(_ context.Context, list []kv.Invalidation) (int, []string) {
	p.lists = append(p.lists, list)
	time.Sleep(time.Second)
	return 3, []string{"away"}
}

// Requests that come while one is sent to the members are sent together: however many come, the members get one at a time.
func TestInvalidationsAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		peers := &slowPeers{}
		d := newDataset(t, origintest.New(nil), peers, testPolicy())
		var all sync.WaitGroup
		for i := range 100 {
			scope := kv.Scope{Keys: []string{fmt.Sprintf("a/%d", i), "b"}}
			if i == 50 {
				scope = kv.Scope{Prefix: "a/"}
			}
			all.Go(func() {
				r, err := d.Invalidate(t.Context(), scope)
				if err != nil || r.Members != 4 || len(r.Unreached) != 1 {
					t.Errorf("got %+v, %v", r, err)
				}
			})
			synctest.Wait()
		}
		all.Wait()
		if len(peers.lists) != 2 || len(peers.lists[0]) != 2 || len(peers.lists[1]) != 2 {
			t.Errorf("broadcast %+v, want the first request and then the prefix a/ with the key b", peers.lists)
		}
		if n := d.Stats().Invalidations.Load(); n != 199 {
			t.Errorf("%d invalidations were applied here at once, want 199", n)
		}
	})
}
