package cache

import (
	"context"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// sleeper is a member that sleeps, with a feed or with copies of entries of member 0.
type sleeper struct {
	*cluster
	origin *origintest.Fake
	slept  bool
	proofs int
	lost   bool // the next proof finds that invalidations are missing
}

func newSleeper(t *testing.T, p kv.Policy) *sleeper {
	o := origintest.New(map[string]string{})
	s := &sleeper{cluster: newCluster(t, 2, o, p), origin: o}
	s.awake = func(int) bool { return !s.slept }
	s.prove = func(context.Context, int) {
		s.proofs++
		if s.lost {
			for _, d := range s.members {
				d.ExpireAll()
			}
		}
		s.slept = false
	}
	for _, d := range s.members {
		d.SetFeedLive(true)
	}
	return s
}

func (s *sleeper) sleep() {
	s.slept = true
	for _, d := range s.members {
		d.Sleep()
	}
}

func TestFirstReadAfterARestProvesThatNothingIsMissing(t *testing.T) {
	feed, copies := testPolicy(), testPolicy()
	feed.TTL, feed.LocalTTL, feed.GapTTL = time.Hour, time.Hour, time.Second
	copies.TTL, copies.LocalTTL = time.Hour, time.Hour
	for _, tt := range []struct {
		name   string
		policy kv.Policy
		member int
		hit    kv.Source
	}{
		{"entry of a dataset with a feed", feed, 0, kv.SourceHit},
		{"copy", copies, 1, kv.SourceLocalHit},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newSleeper(t, tt.policy)
			d := s.members[tt.member]
			s.origin.Set("k", "old")
			get(t, d, "k")
			expect(t, get(t, d, "k"), "old", tt.hit)
			if s.proofs != 0 {
				t.Errorf("got %d proofs of a member that is awake", s.proofs)
			}
			s.sleep()
			if a, err := d.Get(t.Context(), "k", kv.ReadOptions{OnlyIfCached: true}); err != nil || string(a.Value) != "old" {
				t.Errorf("got %q, %v from memory after a proof, want the entry", a.Value, err)
			}
			s.sleep()
			if a := get(t, d, "k"); string(a.Value) != "old" || s.proofs != 2 {
				t.Errorf("got %q after %d proofs, want the entry after 2", a.Value, s.proofs)
			}
			expect(t, get(t, d, "k"), "old", tt.hit)
			s.sleep()
			s.origin.Set("k", "new")
			s.lost = true
			if a := get(t, d, "k"); string(a.Value) != "new" {
				t.Errorf("got %q, want the value that a lost invalidation was for", a.Value)
			}
		})
	}
}

// Entries that depend on no other member are fresh without a proof.
func TestOwnEntriesNeedNoProof(t *testing.T) {
	s := newSleeper(t, testPolicy())
	s.origin.Set("k", "v")
	get(t, s.members[0], "k")
	s.sleep()
	expect(t, get(t, s.members[0], "k"), "v", kv.SourceHit)
	if s.proofs != 0 {
		t.Errorf("got %d proofs, want none", s.proofs)
	}
}
