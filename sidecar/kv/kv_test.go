package kv

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/internal/flight"
)

func TestKindOf(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want Kind
	}{
		{&Error{Kind: KindVersion, Err: errors.New("old")}, KindVersion},
		{origin.ErrInvalidKey, KindInvalidKey},
		{origin.ErrOverloaded, KindOverloaded},
		{flight.ErrFull, KindOverloaded},
		{context.DeadlineExceeded, KindDeadline},
		{context.Canceled, KindCanceled},
		{errors.New("a bug"), KindInternal},
	} {
		if got := KindOf(fmt.Errorf("wrapped: %w", tt.err)); got != tt.want {
			t.Errorf("KindOf(%v) = %v; want %v", tt.err, got, tt.want)
		}
	}
}

type peer struct {
	Peer
	id string
}

func TestAttempts(t *testing.T) {
	owner, successor := peer{id: "owner"}, peer{id: "successor"}
	for _, tt := range []struct {
		route Route
		want  []Attempt
	}{
		{Route{}, []Attempt{{}}},
		{Route{Owner: owner}, []Attempt{{Peer: owner}, {Failover: true}}},
		{Route{Owner: owner, Successor: successor}, []Attempt{
			{Peer: owner}, {Peer: successor, Failover: true}, {Failover: true, Last: true},
		}},
		{Route{Owner: owner, Successor: successor, Relay: peer{id: "relay"}}, []Attempt{
			{Peer: peer{id: "relay"}, Relay: true}, {Peer: owner}, {Peer: successor, Failover: true}, {Failover: true, Last: true},
		}},
		{Route{Owner: owner, Successor: successor, Zone: peer{id: "zone"}}, []Attempt{
			{Peer: peer{id: "zone"}, Zone: true}, {Peer: owner}, {Failover: true, Last: true},
		}},
		{Route{Owner: owner, Successor: successor, InZone: true}, []Attempt{
			{Peer: owner}, {Peer: successor, Failover: true}, {Failover: true, Last: true},
		}},
		{Route{Owner: owner, Successor: successor, InZone: true, Once: true}, []Attempt{{Peer: owner}, {Failover: true}}},
		{Route{Owner: owner, Successor: successor, OwnerDown: true, Once: true}, []Attempt{{Peer: successor, Failover: true}, {Failover: true}}},
		{Route{Owner: owner, OwnerDown: true, Once: true}, []Attempt{{Peer: owner}, {Failover: true}}},
	} {
		if got := tt.route.Attempts(); !slices.Equal(got, tt.want) {
			t.Errorf("Attempts of %v = %v; want %v", tt.route, got, tt.want)
		}
	}
}

func TestCheckKey(t *testing.T) {
	for key, want := range map[string]bool{
		"k": true, strings.Repeat("k", MaxKeyBytes): true,
		"": false, strings.Repeat("k", MaxKeyBytes+1): false, "\xff": false, "a\x00b": false,
	} {
		if err := CheckKey(key); (err == nil) != want {
			t.Errorf("CheckKey(%.10q) = %v; want valid: %t", key, err, want)
		}
	}
}

func TestPolicyIsBounded(t *testing.T) {
	p := Policy{TTL: math.MaxInt64, StaleIfError: -1, LocalTTL: time.Second}.Bounded()
	if p.TTL != longest || p.StaleIfError != 0 || p.LocalTTL != time.Second {
		t.Errorf("got %v, %v, %v; want %v, 0s, 1s", p.TTL, p.StaleIfError, p.LocalTTL, longest)
	}
}

func TestCounter(t *testing.T) {
	var c Counter
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			for range 1000 {
				c.Add(1)
			}
		})
	}
	all.Wait()
	if n := c.Load(); n != 100_000 {
		t.Errorf("counted %d; want 100000", n)
	}
}

func TestDigestDistinguishesWritesOfOneID(t *testing.T) {
	seen := map[uint64]Change{}
	for _, c := range []Change{
		{Key: "k", Value: []byte("v")}, {Key: "k", Value: []byte("w")}, {Key: "k", Value: []byte("vv")}, {Key: "k"},
		{Key: "kv"}, {Key: "k", Delete: true}, {Key: "k", Value: []byte("v"), If: Condition{Absent: true}},
		{Key: "k", Value: []byte("v"), If: Condition{Present: true}}, {Key: "k", Value: []byte("v"), If: Condition{Version: 1}},
		{Key: "k", Value: []byte("v"), If: Condition{ETag: "v"}}, {Key: "k", Value: []byte("v} v"), If: Condition{ETag: ""}},
	} {
		c.ID = "id"
		digest := c.Digest()
		if other, ok := seen[digest]; ok || digest == 0 {
			t.Errorf("%+v and %+v have the digest %d", c, other, digest)
		}
		if seen[digest] = c; c.Digest() != digest {
			t.Errorf("%+v has another digest at the second time", c)
		}
	}
}

func TestMergedInvalidationsSelectTheSameKeys(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	word := func(n int) string {
		b := make([]byte, random.IntN(n+1))
		for i := range b {
			b[i] = "ab/"[random.IntN(3)]
		}
		return string(b)
	}
	selects := func(list []Invalidation, key string) bool {
		return slices.ContainsFunc(list, func(i Invalidation) bool {
			return i.Key == key || i.Prefix && strings.HasPrefix(key, i.Key)
		})
	}
	for range 2000 {
		var list []Invalidation
		for range random.IntN(12) {
			list = append(list, Invalidation{Dataset: "d", Key: word(4), Prefix: random.IntN(3) == 0})
		}
		before := slices.Clone(list)
		merged := MergeInvalidations(list)
		if !slices.Equal(list, before) {
			t.Fatal("the list was modified")
		}
		for range 50 {
			if key := word(6); selects(merged, key) != selects(list, key) {
				t.Fatalf("%+v is merged to %+v, which differs for %q", list, merged, key)
			}
		}
		for i, one := range merged {
			others := append(slices.Clone(merged[:i]), merged[i+1:]...)
			if slices.ContainsFunc(others, func(o Invalidation) bool { return o.Prefix && strings.HasPrefix(one.Key, o.Key) }) {
				t.Fatalf("%+v is merged to %+v, which is not the shortest", list, merged)
			}
		}
	}
	if got := MergeInvalidations([]Invalidation{{Key: "a"}, {Prefix: true}, {Key: "b", Prefix: true}}); len(got) != 1 || !got[0].Prefix || got[0].Key != "" {
		t.Errorf("with everything: %+v", got)
	}
}

func TestCopiesOfHotKeysLiveLonger(t *testing.T) {
	for _, tt := range []struct{ local, want time.Duration }{
		{0, 0}, {100 * time.Millisecond, 400 * time.Millisecond}, {time.Second, HotCopyTTL}, {10 * time.Second, 10 * time.Second},
	} {
		if got := (Policy{LocalTTL: tt.local}).CopyTTL(true); got != tt.want {
			t.Errorf("local_ttl %v: got %v, want %v", tt.local, got, tt.want)
		}
		if got := (Policy{LocalTTL: tt.local}).CopyTTL(false); got != tt.local {
			t.Errorf("local_ttl %v: got %v for a key that is not hot", tt.local, got)
		}
	}
}
