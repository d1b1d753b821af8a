package peer_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/routekey"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
)

func named(ids ...string) []ring.Member {
	members := make([]ring.Member, len(ids))
	for i, id := range ids {
		members[i] = ring.Member{ID: id, Addr: "127.0.0.1:1", HashKey: id}
	}
	return members
}

func idOf(p kv.Peer) string {
	if p == nil {
		return "self"
	}
	return p.ID()
}

func TestRouteEqualsTheWalkOfTheRing(t *testing.T) {
	r := peertest.NewRing(t, named("self", "a", "b", "c")...)
	p := peer.NewPool(peer.Config{Self: "self"})
	defer p.Close()
	p.SetRing(r, nil)
	for i := range 1000 {
		key := fmt.Sprint("key ", i)
		var walk []string
		for m := range r.Successors(routekey.Format("metrics", key)) {
			walk = append(walk, m.ID)
		}
		route := p.Route("metrics", key)
		if got := idOf(route.Owner); got != walk[0] {
			t.Fatalf("%s: owner %s, want %s", key, got, walk[0])
		}
		if got := idOf(route.Successor); walk[0] != "self" && got != walk[1] {
			t.Fatalf("%s: successor %s, want %s", key, got, walk[1])
		}
		if route.Previous != nil {
			t.Fatalf("%s: previous owner %s, though there was no ring before", key, idOf(route.Previous))
		}
		if p.Owns("metrics", key) != (walk[0] == "self") {
			t.Fatalf("%s: owns %v", key, p.Owns("metrics", key))
		}
	}
}

func TestEmptyRingOwnsEverything(t *testing.T) {
	p := peer.NewPool(peer.Config{Self: "self"})
	defer p.Close()
	if r := p.Route("metrics", "k"); r != (kv.Route{}) || !p.Owns("metrics", "k") || p.RingID() != 0 {
		t.Errorf("got route %+v on an empty ring", r)
	}
}

func TestRingWithoutSelf(t *testing.T) {
	p := peer.NewPool(peer.Config{Self: "self"})
	defer p.Close()
	p.SetRing(peertest.NewRing(t, named("a")...), nil)
	if r := p.Route("metrics", "k"); idOf(r.Owner) != "a" || r.Successor != nil || p.Owns("metrics", "k") {
		t.Errorf("got route %+v, want owner a and no successor", r)
	}
}

func TestPreviousOwnerIsPartOfRouteDuringWarmUpOnly(t *testing.T) {
	before, after := peertest.NewRing(t, named("a", "b")...), peertest.NewRing(t, named("a", "b", "self")...)
	synctest.Test(t, func(t *testing.T) {
		p := peer.NewPool(peer.Config{Self: "self"})
		defer p.Close()
		p.SetRing(after, before)
		gained := peertest.KeyWith(t, p, func(r kv.Route) bool { return r.Owner == nil })
		want := before.Owner(routekey.Format("metrics", gained)).ID
		if r := p.Route("metrics", gained); idOf(r.Previous) != want {
			t.Errorf("got previous %s, want %s", idOf(r.Previous), want)
		}
		other := peertest.KeyWith(t, p, func(r kv.Route) bool { return r.Owner != nil })
		if r := p.Route("metrics", other); r.Previous != nil {
			t.Errorf("got previous %s of a key that another member owns", idOf(r.Previous))
		}
		time.Sleep(6 * time.Second)
		p.SetRing(after, before) // the same ring again does not extend the window
		time.Sleep(6 * time.Second)
		if r := p.Route("metrics", gained); r.Previous != nil {
			t.Errorf("got previous %s after the warm-up window", idOf(r.Previous))
		}
	})
}

func TestPreviouslyOwnedKeyHasNoPreviousOwner(t *testing.T) {
	before, after := peertest.NewRing(t, named("a", "b", "self")...), peertest.NewRing(t, named("a", "self")...)
	p := peer.NewPool(peer.Config{Self: "self"})
	defer p.Close()
	p.SetRing(after, before)
	for i := range 1000 {
		key := fmt.Sprint(i)
		previous := before.Owner(routekey.Format("metrics", key)).ID
		r := p.Route("metrics", key)
		if r.Owner == nil && idOf(r.Previous) != previous {
			t.Fatalf("%s: previous %s, want %s", key, idOf(r.Previous), previous)
		}
	}
}

func TestDeadSuccessorIsSkipped(t *testing.T) {
	t.Parallel()
	owner, dead, alive := peertest.StartMember(t, "owner"), peertest.StartMember(t, "dead"), peertest.StartMember(t, "alive")
	p := peertest.StartPool(t, peer.Config{}, owner, dead, alive)
	key := peertest.KeyWith(t, p, func(r kv.Route) bool { return peertest.OwnedBy("owner")(r) && idOf(r.Successor) == "dead" })
	dead.Kill(t)
	for range 3 {
		_, err := p.Route("metrics", key).Successor.Fetch(context.Background(), peertest.Get(key))
		if !errors.Is(err, kv.ErrUnreachable) {
			t.Fatalf("got error %v, want unreachable", err)
		}
	}
	if r := p.Route("metrics", key); idOf(r.Owner) != "owner" || idOf(r.Successor) == "dead" {
		t.Errorf("got owner %s, successor %s: want the next member on the ring", idOf(r.Owner), idOf(r.Successor))
	}
}

func TestRouteAllocatesTheRouteKeyOnly(t *testing.T) {
	p := peer.NewPool(peer.Config{Self: "self"})
	defer p.Close()
	p.SetRing(peertest.NewRing(t, named("self", "a", "b", "c")...), peertest.NewRing(t, named("a", "b", "c")...))
	if n := testing.AllocsPerRun(100, func() { p.Route("metrics", "interface/eth0/rx") }); n > 1 {
		t.Errorf("got %v allocations, want 1", n)
	}
}

func TestMemberThatLeftIsDisconnected(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m")
	p := peertest.StartPool(t, peer.Config{AttemptTimeout: 2 * time.Second}, m) // also for the fetches below
	to := peertest.PeerTo(t, p, "m")
	if _, err := to.Fetch(context.Background(), peertest.Get("k")); err != nil {
		t.Fatal(err)
	}
	with := peertest.NewRing(t, ring.Member{ID: "self", Addr: "127.0.0.1:1"}, m.Member)
	without := peertest.NewRing(t, ring.Member{ID: "self", Addr: "127.0.0.1:1"})
	p.SetRing(without, with)
	if _, err := to.Fetch(context.Background(), peertest.Get("k")); err != nil {
		t.Errorf("the member of the previous ring: %v", err)
	}
	p.SetRing(without, without)
	peertest.Eventually(t, "the connection is closed", func() bool { return m.Server.Stats().Conns == 0 })
	if _, err := to.Fetch(context.Background(), peertest.Get("k")); !errors.Is(err, kv.ErrUnreachable) {
		t.Errorf("got error %v, want unreachable", err)
	}
}

func TestMemberWithNewAddressIsAnotherPeer(t *testing.T) {
	t.Parallel()
	m, moved := peertest.StartMember(t, "m"), peertest.StartMember(t, "m")
	p := peertest.StartPool(t, peer.Config{}, m)
	old := peertest.NewRing(t, ring.Member{ID: "self", Addr: "127.0.0.1:1"}, m.Member)
	p.SetRing(peertest.NewRing(t, ring.Member{ID: "self", Addr: "127.0.0.1:1"}, moved.Member), old)
	if err := peertest.Fetch(t, p, "m"); err != nil {
		t.Fatal(err)
	}
	if n := moved.Dataset.Fetches.Load(); n != 1 {
		t.Errorf("got %d fetches at the new address, want 1", n)
	}
}

func TestPing(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m")
	p := peertest.StartPool(t, peer.Config{}, m)
	gone := peertest.StartMember(t, "gone")
	gone.Kill(t)
	unlisted := peertest.StartMember(t, "unlisted")
	leaving := peertest.StartMember(t, "leaving")
	leaving.Service.Leave()
	cases := []struct {
		name   string
		member ring.Member
		want   bool
	}{
		{"on the ring", m.Member, true},
		{"not on the ring", unlisted.Member, true},
		{"gone", gone.Member, false},
		{"another node at the address", ring.Member{ID: "other", Addr: unlisted.Addr}, false},
		{"leaving", leaving.Member, false},
	}
	for _, tc := range cases {
		err := p.Ping(context.Background(), tc.member) // for a second at most
		if tc.want {
			err = peertest.Ping(t, p, tc.member)
		}
		if (err == nil) != tc.want {
			t.Errorf("%s: error %v, want answered: %v", tc.name, err, tc.want)
		}
	}
	if err := peertest.Ping(t, p, leaving.Member); !errors.Is(err, peer.ErrLeaving) {
		t.Errorf("got error %v, want ErrLeaving", err)
	}
}

// stuckService never answers Inspect.
type stuckService struct{ peerv1.UnimplementedPeerServer }

func (stuckService) Inspect(ctx context.Context, _ *peerv1.InspectRequest) (*peerv1.InspectResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestInspectCallsEveryOtherMember(t *testing.T) {
	t.Parallel()
	var members []*peertest.Member
	for i := range 40 {
		members = append(members, peertest.StartMember(t, fmt.Sprintf("m%02d", i)))
	}
	stuck := peertest.ServeRaw(t, stuckService{})
	stuck.ID = "stuck"
	members = append(members, stuck)
	p := peertest.StartPool(t, peer.Config{FanOutTimeout: 5 * time.Second}, members...)
	for _, m := range members[:len(members)-1] { // so that no call waits for a connection
		if err := peertest.Ping(t, p, m.Member); err != nil {
			t.Fatal(err)
		}
	}
	found := inspect(context.Background(), p)
	if len(found) != len(members) {
		t.Fatalf("got %d inspections, want %d", len(found), len(members))
	}
	for _, one := range found {
		switch {
		case one.Member.ID == "stuck":
			if one.Err == nil || one.Report != nil {
				t.Errorf("stuck member: %+v", one)
			}
		case one.Err != nil:
			t.Errorf("%s: %v", one.Member.ID, one.Err)
		case one.Report.GetNode() != one.Member.ID || one.Report.GetVersion() != "v-"+one.Member.ID:
			t.Errorf("%s: report of %s", one.Member.ID, one.Report)
		}
	}
}

// A hot key is fetched through a member only while this one receives the invalidations of the owner.
func TestRelayNeedsTheInvalidationsOfTheOwner(t *testing.T) {
	t.Parallel()
	var members []*peertest.Member
	for i := range 7 {
		members = append(members, peertest.StartMember(t, fmt.Sprint("m", i)))
	}
	p := peertest.StartPool(t, peer.Config{CopyLife: time.Second, Sink: peertest.DiscardSink{}}, members...)
	all := []ring.Member{{ID: "self", Addr: "127.0.0.1:1"}}
	for _, m := range members {
		all = append(all, m.Member)
	}
	key := keyAt(t, peertest.NewRing(t, all...), "m0", 6) // the place of self in the walk of the ring
	near := keyAt(t, peertest.NewRing(t, all...), "m0", 3)
	owner := p.Route("metrics", key).Owner
	if got := p.Relay("metrics", key); got != nil {
		t.Fatalf("got %s before the owner has answered, want nil", got.ID())
	}
	if _, err := owner.Fetch(t.Context(), peertest.Get(key)); err != nil {
		t.Fatal(err)
	}
	var relay kv.Peer
	peertest.Eventually(t, "the relay is used", func() bool { relay = p.Relay("metrics", key); return relay != nil })
	if relay.ID() == owner.ID() {
		t.Errorf("got the owner %s", owner.ID())
	}
	for range 100 {
		if again := p.Relay("metrics", key); again == nil || again.ID() != relay.ID() {
			t.Fatalf("got %s, want %s every time", idOf(again), relay.ID())
		}
	}
	if got := p.Relay("metrics", near); got != nil {
		t.Errorf("got %s for a key of which this member is a successor, want the owner", got.ID())
	}
	q := peertest.Get(key)
	q.Relay = true
	if a, err := relay.Fetch(t.Context(), q); !errors.Is(err, kv.ErrUnreachable) {
		t.Errorf("got %+v, %v of a member that does not say that it answers for the owner; want unreachable", a, err)
	}
}

// keyAt returns a key of an owner, where self is at a place of the walk of the ring.
func keyAt(t *testing.T, r *ring.Ring, owner string, place int) string {
	t.Helper()
	for i := range 100_000 {
		key := fmt.Sprint("key-", i)
		if r.Owner(routekey.Format("metrics", key)).ID != owner {
			continue
		}
		at := 0
		for m := range r.Successors(routekey.Format("metrics", key)) {
			if m.ID == "self" && at == place {
				return key
			}
			at++
		}
	}
	t.Fatal("no such key")
	return ""
}
