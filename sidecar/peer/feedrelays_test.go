package peer_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
	"github.com/ringside-cache/ringside/sidecar/peer/server"
	"github.com/ringside-cache/ringside/sidecar/peer/service"
)

// feeds are the datasets with a feed in these tests.
var feeds = []string{"metrics"}

// onRing returns a pool whose ring has the members, to which it belongs or not.
func onRing(t *testing.T, self string, sink peer.Sink, members ...ring.Member) *peer.Pool {
	t.Helper()
	p := peer.NewPool(peer.Config{Self: self, Sink: sink, Feeds: feeds, PingAfter: 200 * time.Millisecond})
	t.Cleanup(p.Close)
	p.SetRing(peertest.NewRing(t, members...), nil)
	return p
}

// chain is a reader of the feed, a member that subscribes to it through a link, and what a client gets from that member.
type chain struct {
	reader, relay *peer.Pool
	link          *peertest.Proxy
	member        *peertest.Member // the relay
	client        *sink
}

// newChain returns a chain without a client, whose relay hears the live feed.
func newChain(t *testing.T) *chain {
	t.Helper()
	c := &chain{client: newSink(t)}
	reader, r := peertest.StartWriter(t, "r", peer.Config{})
	c.reader, c.link = reader, peertest.StartProxy(t, r.Addr)
	heard := newSink(t)
	heard.several = true
	c.relay = onRing(t, "m", heard, memberAt("m", "127.0.0.1:1"), c.link.Through(r).Member)
	c.member = peertest.StartMember(t, "m", peertest.Logging(c.relay))
	reader.SetLiveFeeds(feeds)
	for heard.next() != "live r [metrics]" {
	}
	return c
}

func (c *chain) startClient(t *testing.T) {
	t.Helper()
	onRing(t, "client", c.client, c.member.Member)
}

func TestRelayPassesOnTheFeedsOfItsReaders(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	c.startClient(t)
	c.client.expect("missed m", "live m [metrics]")
	c.reader.Publish(kv.Invalidation{Dataset: "without a feed", Key: "k"})
	c.reader.Publish(kv.Invalidation{Dataset: "metrics", Key: "k", Version: 2, Age: time.Hour})
	c.client.expect("drop metrics/k@2")
	if age := <-c.client.ages; age < time.Hour {
		t.Errorf("got age %v; want that which the reader sent", age)
	}
	c.relay.Publish(peertest.Drop("k", 3)) // the relay's own, as for any client
	c.client.expect("drop metrics/k@3")
	c.reader.SetLiveFeeds(nil)
	c.client.expect("live m []")
}

// The relay continues where its stream ended, and its clients must not notice less than the relay.
func TestGapAtARelayIsOneForItsClients(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	c.startClient(t)
	c.client.expect("missed m", "live m [metrics]")
	c.link.Cut()
	c.client.expect("live m []", "live m [metrics]")
	c.reader.Publish(peertest.Drop("k", 2))
	c.client.expect("drop metrics/k@2")
}

// A reader that is silent is found by the relay, which is read from by nobody: its clients rely on it.
func TestRelayDoesNotSleep(t *testing.T) {
	t.Parallel()
	c := newChain(t)
	c.relay.Sleep()
	c.link.Freeze()
	c.startClient(t)
	c.client.expect("missed m")
	c.relay.Publish(peertest.Drop("k", 1))
	c.client.expect("drop metrics/k@1") // and no live feed before it
	c.link.Thaw()
	c.client.expect("live m [metrics]")
	c.relay.Sleep()
	c.link.Freeze()
	c.client.expect("live m []")
}

// Each of many clients has two of the members that have room, and no reader of a feed has more streams than others.
func TestClientsLeaveRelaysThatRefuse(t *testing.T) {
	t.Parallel()
	full := func(_ *peertest.Member, s *service.Config, _ *server.Config) { s.MaxSubscribers = -1 }
	var members []ring.Member
	for i := range 4 {
		p, m := peertest.StartWriter(t, fmt.Sprint("m", i), peer.Config{})
		if i < 2 {
			m = peertest.StartMember(t, m.ID, peertest.Logging(p), full)
		}
		p.SetLiveFeeds(feeds)
		members = append(members, m.Member)
	}
	var all sync.WaitGroup
	for range 6 {
		s := newSink(t)
		s.several = true
		all.Go(func() {
			onRing(t, "", s, members...)
			for want := []string{"live m2 [metrics]", "live m3 [metrics]"}; len(want) > 0; {
				call := s.next()
				want = slices.DeleteFunc(want, func(w string) bool { return w == call })
			}
		})
	}
	all.Wait()
}

// Members of older releases relay nothing: the client subscribes to the readers, as its own release did before.
func TestClientOfOlderMembersSubscribesToReaders(t *testing.T) {
	t.Parallel()
	older := func(_ *peertest.Member, s *service.Config, _ *server.Config) { s.RelayFeeds = nil }
	var members []ring.Member
	var pools []*peer.Pool
	for i := range 8 {
		p := peer.NewPool(peer.Config{Self: fmt.Sprint("m", i)})
		t.Cleanup(p.Close)
		members = append(members, peertest.StartMember(t, fmt.Sprint("m", i), peertest.Logging(p), older).Member)
		pools = append(pools, p)
	}
	r := peertest.NewRing(t, members...)
	for _, p := range pools {
		p.SetRing(r, nil)
		if p.Elected("metrics") {
			p.SetLiveFeeds(feeds)
		}
	}
	s := newSink(t)
	s.several = true
	onRing(t, "client", s, members...)
	live := map[string]bool{}
	for len(live) < 2 {
		var id, list string
		if n, _ := fmt.Sscanf(s.next(), "live %s %s", &id, &list); n == 2 && list == "[metrics]" {
			live[id] = true
		}
	}
}

// A client that becomes a member goes on with streams of a member, and relays what they bring.
func TestClientThatBecomesAMemberRelays(t *testing.T) {
	t.Parallel()
	reader, r := peertest.StartWriter(t, "r", peer.Config{})
	reader.SetLiveFeeds(feeds)
	heard, s := newSink(t), newSink(t)
	heard.several = true
	promoted := onRing(t, "x", heard, r.Member)
	heard.expect("missed r", "live r [metrics]")
	x := peertest.StartMember(t, "x", peertest.Logging(promoted))
	promoted.SetRing(peertest.NewRing(t, r.Member, x.Member), nil)
	onRing(t, "client", s, x.Member)
	for s.next() != "live x [metrics]" {
	}
	reader.Publish(peertest.Drop("k", 2))
	s.expect("drop metrics/k@2")
}
