package peer_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/memberlist"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
	"github.com/ringside-cache/ringside/sidecar/peer/server"
	"github.com/ringside-cache/ringside/sidecar/peer/service"
)

// startClient returns a pool that is not on its ring, and has an answer and a stream of m.
func startClient(t *testing.T, s *sink, m *peertest.Member) *peer.Pool {
	t.Helper()
	p := peer.NewPool(peer.Config{Self: "client", Sink: s, PingAfter: peertest.Timeout, FanOutTimeout: peertest.Timeout})
	p.SetRing(peertest.NewRing(t, m.Member), nil)
	t.Cleanup(p.Close)
	if err := peertest.Ping(t, p, m.Member); err != nil {
		t.Fatal(err)
	}
	if err := peertest.Fetch(t, p, m.ID); err != nil {
		t.Fatal(err)
	}
	s.expect("missed " + m.ID)
	return p
}

// A client gets what is invalidated by calls of Invalidate, which nobody sends to it, from the member whose entries it has.
func TestClientGetsBroadcasts(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	relaying := func(m *peertest.Member, c *service.Config, _ *server.Config) {
		c.Invalidate = func([]kv.Invalidation) {}
	}
	writer, m := peertest.StartWriter(t, "m", peer.Config{}, relaying)
	client := startClient(t, s, m)
	other := peertest.StartConnected(t, peer.Config{}, m)
	if n, unreached := other.Broadcast(t.Context(), []kv.Invalidation{peertest.Drop("by-another", 1)}); n != 1 {
		t.Fatalf("got %d reached, unreached %v", n, unreached)
	}
	writer.Broadcast(t.Context(), []kv.Invalidation{peertest.Drop("by-the-member", 2)})
	writer.Publish(peertest.Drop("written", 3))
	var got []string
	for call := s.next(); call != "drop metrics/written@3" && call != ""; call = s.next() {
		got = append(got, call)
	}
	if want := []string{"drop metrics/by-another@1", "drop metrics/by-the-member@2"}; !slices.Equal(got, want) {
		t.Fatalf("got the calls %q before the last one, want %q", got, want)
	}

	// The positions in pongs are those of the stream of clients: it proves that nothing is missing, and does not end.
	client.Sleep()
	client.Prove(t.Context())
	writer.Publish(peertest.Drop("later", 4))
	s.expect("drop metrics/later@4")
	if st := client.Stats(); st.Gaps != 0 {
		t.Errorf("got %d gaps, want none", st.Gaps)
	}
}

func TestPoolReceivesTheListOfAMember(t *testing.T) {
	t.Parallel()
	var feed memberlist.Feed
	feed.Set([]ring.Member{{ID: "m", Addr: "10.0.0.1:1"}, {ID: "n", Addr: "10.0.0.2:1"}})
	m := peertest.StartMember(t, "m", func(_ *peertest.Member, c *service.Config, _ *server.Config) { c.Members = &feed })
	p := peertest.StartPool(t, peer.Config{})
	var table memberlist.Table
	stop := errors.New("enough")
	err := p.Members(t.Context(), ring.Member{Addr: m.Addr}, "client", func(r *peerv1.MembersResponse) error {
		if err := table.Apply(r); err != nil {
			return err
		}
		return stop
	})
	if !errors.Is(err, stop) || len(table.Members()) != 2 {
		t.Errorf("got %v, %v; want two members", table.Members(), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Members(ctx, ring.Member{Addr: m.Addr}, "client", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the end of the context", err)
	}
}
