package resolver

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
	"github.com/ringside-cache/ringside/xds/publisher"
	"github.com/ringside-cache/ringside/xds/xdstest"
)

// elsewhere returns an address of this host that is not a loopback address.
func elsewhere(addr string) string { return strings.Replace(addr, "127.0.0.1", "0.0.0.0", 1) }

func TestPublisherAndResolverAuthenticateEachOther(t *testing.T) {
	ca, other := peertest.NewAuthority(t), peertest.NewAuthority(t)
	member := peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM())
	client := credentials.NewTLS(peertest.BadIdentity{}.Config()) // without a certificate
	serve := func(c credentials.TransportCredentials) string {
		p := publisher.New(publisher.Config{Delay: time.Millisecond})
		p.Publish(xdstest.Three())
		addr, _ := publisherAt(t, "127.0.0.1:0", p, grpc.Creds(c))
		return elsewhere(addr)
	}
	good := serve(credentials.NewTLS(member.ClientsConfig()))

	d := resolve(t, Config{Addresses: []string{good}, Credentials: member})
	d.want(xdstest.Three())

	impostor := peertest.NewCredentials(t, ca.Issue(t, peertest.AsMember("x")), ca.PEM()) // its name does not matter: it is a member
	d = resolve(t, Config{Addresses: []string{serve(credentials.NewTLS(impostor.ClientsConfig()))}, Credentials: member})
	d.want(xdstest.Three())

	asClient := peertest.BadIdentity{Certificates: []tls.Certificate{ca.Issue(t, peertest.AsClient("envoy")).Parse(t)}}
	for name, c := range map[string]Config{
		"a publisher in plain text":              {Addresses: []string{serve(nil)}, Credentials: member},
		"a publisher with a client's identity":   {Addresses: []string{serve(credentials.NewTLS(asClient.Config()))}, Credentials: member},
		"a client in plain text":                 {Addresses: []string{good}},
		"a client without certificate":           {Addresses: []string{good}, Credentials: client},
		"a client of another authority":          {Addresses: []string{good}, Credentials: peertest.NewCredentials(t, other.Issue(t, nil), other.PEM())},
		"a publisher at loopback that needs TLS": {Addresses: []string{strings.Replace(good, "0.0.0.0", "127.0.0.1", 1)}, Credentials: member},
	} {
		d := resolve(t, c)
		for deadline := time.Now().Add(peertest.Timeout); d.Status().Losses+d.Status().Updates == 0; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: got no failure", name)
			}
		}
		if s := d.Status(); s.Updates != 0 {
			t.Errorf("%s: got %+v, want no list of members", name, s)
		}
	}
}

func TestPublisherAtLoopbackIsPlainText(t *testing.T) {
	ca := peertest.NewAuthority(t)
	_, addr, _ := newPublisherAt(t, "127.0.0.1:0", xdstest.Three())
	d := resolve(t, Config{Addresses: []string{addr}, Credentials: peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM())})
	d.want(xdstest.Three())
	for addr, want := range map[string]bool{
		"127.0.0.1:1": true, "[::1]:1": true, "[::ffff:127.0.0.1]:1": true, "localhost:1": true, "10.0.0.1:1": false, "publisher:1": false,
		"0.0.0.0:1": false, "127.0.0.1.example.org:1": false,
	} {
		if got := isLoopback(addr); got != want {
			t.Errorf("%s: got loopback %v, want %v", addr, got, want)
		}
	}
}
