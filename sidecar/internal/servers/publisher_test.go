package servers

import (
	"net"
	"testing"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/peer/mtls"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
)

func TestPublisherThatIsOffDoesNothing(t *testing.T) {
	none := NewPublisher(&Listeners{}, ring.Size{}, nil, nil, nil)
	none.Publish(nil)
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
