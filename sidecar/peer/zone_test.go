package peer_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/routekey"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
)

// zoned returns members named by zone and number: a0, a1 and so on. The address of none answers.
func zoned(zones string, each int) (members []ring.Member) {
	for _, z := range zones {
		for i := range each {
			id := fmt.Sprintf("%c%d", z, i)
			members = append(members, ring.Member{ID: id, Addr: fmt.Sprintf("127.0.%d.%d:1", z, i), HashKey: id, Zone: string(z)})
		}
	}
	return members
}

func zonePool(t *testing.T, self, zone string, r *ring.Ring) *peer.Pool {
	p := peer.NewPool(peer.Config{Self: self, Zone: zone, Zones: true})
	t.Cleanup(p.Close)
	p.SetRing(r, nil)
	return p
}

// All members of a zone, and its clients, agree on the zone owner of a key, and share the keys of other zones evenly.
func TestMembersOfAZoneAgreeOnZoneOwners(t *testing.T) {
	r := peertest.NewRing(t, zoned("abc", 4)...)
	pools := map[string]*peer.Pool{"": zonePool(t, "", "b", r)} // a client
	for i := range 4 {
		id := fmt.Sprint("b", i)
		pools[id] = zonePool(t, id, "b", r)
	}
	const keys = 4000
	shares := map[string]int{}
	for i := range keys {
		key := fmt.Sprint("key ", i)
		inZone := r.Owner(routekey.Format("metrics", key)).Zone == "b"
		client, _ := pools[""].ZoneOwner("metrics", key)
		if inZone != (client == nil) {
			t.Fatalf("%s: got zone owner %s, though that the owner is in the zone is %v", key, idOf(client), inZone)
		}
		for id, p := range pools {
			m, self := p.ZoneOwner("metrics", key)
			switch {
			case inZone && (m != nil || self), !inZone && self && client.ID() != id, !inZone && !self && idOf(m) != client.ID():
				t.Fatalf("%s: member %q has zone owner %s, self %v; the client has %s", key, id, idOf(m), self, idOf(client))
			}
		}
		if !inZone {
			shares[client.ID()]++
		}
	}
	for id, n := range shares {
		if n < keys*2/3/4/2 {
			t.Errorf("zone owner %s has %d of %d keys; got shares %v", id, n, keys, shares)
		}
	}
	if len(shares) != 4 {
		t.Errorf("got the zone owners %v, want all four members of the zone", shares)
	}
}

func TestZonesHaveNoEffectUnlessThereAreSeveral(t *testing.T) {
	key := func(i int) string { return fmt.Sprint("key ", i) }
	for name, p := range map[string]*peer.Pool{
		"one zone":                 zonePool(t, "a0", "a", peertest.NewRing(t, zoned("a", 4)...)),
		"empty ring":               peer.NewPool(peer.Config{Self: "a0", Zone: "a", Zones: true}),
		"a zone of a client alone": zonePool(t, "", "z", peertest.NewRing(t, zoned("ab", 2)...)),
		"zones off": func() *peer.Pool {
			p := peer.NewPool(peer.Config{Self: "a0", Zone: "a"})
			p.SetRing(peertest.NewRing(t, zoned("ab", 2)...), nil)
			return p
		}(),
	} {
		for i := range 100 {
			if m, self := p.ZoneOwner("metrics", key(i)); m != nil || self {
				t.Errorf("%s: got zone owner %s, self %v; want none", name, idOf(m), self)
			}
		}
		p.Close()
	}
}

// startZones starts the owner of keys in zone b, and a member of zone a that answers for it.
func startZones(t *testing.T, answer func(context.Context, kv.Query) (kv.Answer, error)) (p *peer.Pool, near *peertest.Member, key string) {
	owner, near := peertest.StartMember(t, "owner"), peertest.StartMember(t, "near", peertest.Serving(answer))
	owner.Zone, near.Zone = "b", "a"
	p = peertest.StartConnected(t, peer.Config{Zone: "a", Zones: true, CopyLife: time.Second, Sink: peertest.DiscardSink{}}, owner, near)
	key = peertest.KeyWith(t, p, peertest.OwnedBy("owner"))
	if m, _ := p.ZoneOwner("metrics", key); idOf(m) != "near" {
		t.Fatalf("got zone owner %s, want near", idOf(m))
	}
	return p, near, key
}

// A copy that came through the zone owner is kept only while this member receives the invalidations of the member that loaded it,
// to which it subscribes without fetching anything from it.
func TestAnswerOfAZoneOwnerNeedsTheInvalidationsOfTheOwner(t *testing.T) {
	t.Parallel()
	p, _, key := startZones(t, func(_ context.Context, q kv.Query) (kv.Answer, error) {
		if !q.Zone || q.MemoryOnly || q.Relay {
			return kv.Answer{}, fmt.Errorf("got the query %+v, want zone alone", q)
		}
		return kv.Answer{Value: []byte("v"), Owner: "owner", Fresh: time.Minute}, nil
	})
	q := peertest.Get(key)
	q.Zone = true
	a, err := peertest.PeerTo(t, p, "near").Fetch(t.Context(), q)
	if err != nil || a.Owner != "owner" || a.Fresh > 0 {
		t.Fatalf("got %+v, %v; want the entry of the owner, not to be kept yet", a, err)
	}
	peertest.Eventually(t, "answers are kept", func() bool {
		outcomes := peertest.PeerTo(t, p, "near").FetchBatch(t.Context(), []kv.Query{q, q})
		return outcomes[0].Err == nil && outcomes[0].Answer.Fresh > 0 && outcomes[1].Answer.Owner == "owner"
	})
	if s := p.Stats(); s.OtherZone != 0 || s.SameZone < 3 {
		t.Errorf("got %d keys from the own zone and %d from others, want all from the own one", s.SameZone, s.OtherZone)
	}
	if _, err := p.Route("metrics", key).Owner.Fetch(t.Context(), peertest.Get(key)); err != nil || p.Stats().OtherZone != 1 {
		t.Errorf("got %v and %d keys from other zones, want the one of the owner", err, p.Stats().OtherZone)
	}
}

func TestAnswerOfAZoneOwnerIsOfAMember(t *testing.T) {
	t.Parallel()
	p, _, key := startZones(t, func(context.Context, kv.Query) (kv.Answer, error) {
		return kv.Answer{Value: []byte("v"), Owner: "stranger", Fresh: time.Minute}, nil
	})
	q := peertest.Get(key)
	q.Zone = true
	for range 3 {
		if a, err := peertest.PeerTo(t, p, "near").Fetch(t.Context(), q); err != nil || string(a.Value) != "v" || a.Fresh > 0 || a.Owner != "near" {
			t.Errorf("got %+v, %v of an entry of a member that this one does not know; want an answer that is not kept", a, err)
		}
	}
}

// olderService answers from memory, and does not know zones.
type olderService struct{ peerv1.UnimplementedPeerServer }

func (olderService) Fetch(context.Context, *peerv1.FetchRequest) (*peerv1.FetchResponse, error) {
	return &peerv1.FetchResponse{Value: []byte("v"), FromMemory: true, FreshNs: 1e9}, nil
}

func TestAnswerOfAnOlderReleaseToAZoneIsDropped(t *testing.T) {
	t.Parallel()
	older := peertest.ServeRaw(t, olderService{})
	older.ID, older.Zone = "older", "a"
	p := peertest.StartPool(t, peer.Config{Zone: "a", Zones: true}, older)
	q := peertest.Get("k")
	q.Zone = true
	if a, err := peertest.PeerTo(t, p, "older").Fetch(t.Context(), q); !errors.Is(err, kv.ErrUnreachable) {
		t.Errorf("got %+v, %v; want unreachable", a, err)
	}
}

func TestDeadZoneOwnerIsSkipped(t *testing.T) {
	t.Parallel()
	p, near, key := startZones(t, peertest.Held)
	near.Kill(t)
	for range 3 {
		if _, err := peertest.PeerTo(t, p, "near").Fetch(t.Context(), peertest.Get(key)); !errors.Is(err, kv.ErrUnreachable) {
			t.Fatalf("got error %v, want unreachable", err)
		}
	}
	if m, self := p.ZoneOwner("metrics", key); m != nil || self {
		t.Errorf("got zone owner %s, self %v; want none, so that the owner is asked", idOf(m), self)
	}
}

// Hot keys of this zone are fetched through members of this zone only.
func TestRelayOfAZoneIsInIt(t *testing.T) {
	t.Parallel()
	var members []*peertest.Member
	for i := range 8 {
		m := peertest.StartMember(t, fmt.Sprint("m", i))
		m.Zone = string(rune('a' + i%2))
		members = append(members, m)
	}
	p := peertest.StartConnected(t, peer.Config{Zone: "a", Zones: true, CopyLife: time.Second, Sink: peertest.DiscardSink{}}, members...)
	for i := range 20 {
		key := fmt.Sprint("key ", i)
		owner := p.Route("metrics", key).Owner
		if owner == nil || owner.ID()[1]%2 != '0'%2 {
			continue // self, or a member of zone b
		}
		if _, err := owner.Fetch(t.Context(), peertest.Get(key)); err != nil {
			t.Fatal(err)
		}
		var relay kv.Peer
		peertest.Eventually(t, "there is a relay", func() bool { relay = p.Relay("metrics", key); return relay != nil })
		if id := relay.ID(); id[1]%2 != '0'%2 || id == owner.ID() {
			t.Errorf("%s: got relay %s of owner %s, want another member of zone a, which have even numbers", key, id, owner.ID())
		}
	}
}

func TestExplainAsksTheZoneOwner(t *testing.T) {
	t.Parallel()
	p, _, key := startZones(t, peertest.Held)
	reports := p.Explain(t.Context(), "metrics", key, 1)
	if len(reports) != 2 || reports[0].Member.ID != "owner" || reports[0].ZoneOwner || reports[1].Member.ID != "near" || !reports[1].ZoneOwner {
		t.Errorf("got %+v, want the owner and the zone owner", reports)
	}
	if reports = p.Explain(t.Context(), "metrics", key, 3); len(reports) != 3 {
		t.Errorf("got %d reports, want each member once", len(reports))
	}
}
