package servers

import (
	"net"
	"testing"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/peer/mtls"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
	"github.com/ringside-cache/ringside/xds/publisher"
)

func newPublisher(t *testing.T) *Publisher {
	t.Helper()
	f := &Publisher{publisher: publisher.New(publisher.Config{})}
	t.Cleanup(f.publisher.Stop)
	return f
}

func mustRing(t *testing.T, members ...ring.Member) *ring.Ring {
	t.Helper()
	r, err := ring.New(members, ring.Size{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A sidecar that restarts while the directory is down knows only itself. Its xDS clients still have the whole ring.
func TestNothingIsPublishedBeforeTheFirstList(t *testing.T) {
	f := newPublisher(t)
	self, other := ring.Member{ID: "self", Addr: "10.0.0.1:7072"}, ring.Member{ID: "other", Addr: "10.0.0.2:7072"}
	f.UseRing(mustRing(t, self))
	if s := f.Status(); s.Updates != 0 {
		t.Fatalf("got %+v, want no update before the first list", s)
	}
	f.UseRing(mustRing(t, self, other))
	f.UseList([]ring.Member{self, other})
	if s := f.Status(); s.Updates != 1 || s.Endpoints != 2 {
		t.Errorf("got %+v, want 1 update with 2 endpoints", s)
	}
}

func TestLeavingMembersArePublished(t *testing.T) {
	f := newPublisher(t)
	self, gone := ring.Member{ID: "self", Addr: "10.0.0.1:7072"}, ring.Member{ID: "gone", Addr: "10.0.0.2:7072"}
	gone.Leaving = true
	f.UseRing(mustRing(t, self))
	f.UseList([]ring.Member{self, gone})
	if s := f.Status(); s.Endpoints != 2 {
		t.Errorf("got %+v, want 2 endpoints: a member on the ring and one that is leaving", s)
	}
	none := NewPublisher(&Listeners{}, ring.Size{}, nil, nil, nil) // the listener is off
	none.UseRing(mustRing(t, self))
	none.UseList(nil)
	none.Stop(t.Context())
}

func TestRingIsPublishedWithTLSExceptOnLoopback(t *testing.T) {
	ca := peertest.NewAuthority(t)
	identity := peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM())
	for _, test := range []struct {
		bound    net.IP
		identity *mtls.Credentials
		tls      bool
	}{
		{net.IPv4(127, 0, 0, 1), identity, false}, {net.IPv6loopback, identity, false},
		{net.IPv4zero, identity, true}, {net.IPv6unspecified, identity, true}, {net.IPv4(10, 0, 0, 1), identity, true},
		{net.IPv4(10, 0, 0, 1), nil, false},
	} {
		if got := xdsHandshake(&net.TCPAddr{IP: test.bound}, test.identity) != nil; got != test.tls {
			t.Errorf("%s, identity %v: got TLS %v, want %v", test.bound, test.identity != nil, got, test.tls)
		}
	}
}
