package mtls_test

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/mtls"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
)

// forged presents a certificate that a member would not present.
func forged(ca *peertest.Authority, certs ...tls.Certificate) credentials.TransportCredentials {
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	return credentials.NewTLS(&tls.Config{Certificates: certs, RootCAs: roots, ServerName: "ringside", InsecureSkipVerify: true})
}

func only(usage x509.ExtKeyUsage) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{usage} }
}

func expired(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }

func TestServerRejectsInvalidCallers(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	m := peertest.StartMember(t, "m", peertest.ServerCredentials(peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM())),
		peertest.Serving(func(context.Context, kv.Query) (kv.Answer, error) {
			t.Error("an invalid caller was served")
			return kv.Answer{}, nil
		}))
	for name, creds := range badCallers(t, ca) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := peertest.StartPool(t, peer.Config{Credentials: creds}, m)
			if err := peertest.Fetch(t, p, "m"); !errors.Is(err, kv.ErrUnreachable) {
				t.Errorf("got error %v, want unreachable", err)
			}
		})
	}
}

func badCallers(t *testing.T, ca *peertest.Authority) map[string]credentials.TransportCredentials {
	callers := map[string]credentials.TransportCredentials{
		"plain text": nil,
		"a client":   forged(ca, ca.Issue(t, peertest.AsClient("envoy")).Parse(t)),
	}
	for _, bad := range peertest.BadIdentities(t, ca, x509.ExtKeyUsageClientAuth) {
		callers[bad.Name] = credentials.NewTLS(bad.Config())
	}
	return callers
}

// Every method of the service, including future ones, requires the handshake.
func TestInvalidCallersReachNoMethod(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	good := peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM())
	m := peertest.StartMember(t, "m", peertest.ServerCredentials(good))
	for name, creds := range badCallers(t, ca) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := peertest.StartPool(t, peer.Config{
				Credentials: creds, Sink: peertest.DiscardSink{}, Feeds: []string{"metrics"}, PingAfter: 50 * time.Millisecond,
			}, m)
			if err := peertest.Write(t, p, "m"); !errors.Is(err, kv.ErrUnreachable) {
				t.Errorf("write: %v, want unreachable", err)
			}
			if n, _ := p.Broadcast(context.Background(), []kv.Invalidation{peertest.Drop("k", 1)}); n != 0 {
				t.Error("the member accepted an invalidation")
			}
			for method, err := range everyMethod(t, m, cmp.Or(creds, insecure.NewCredentials()), time.Second) {
				if code := status.Code(err); code != codes.Unavailable && code != codes.DeadlineExceeded {
					t.Errorf("%s: %v", method, err)
				}
			}
			if f, w, s := m.Dataset.Fetches.Load(), m.Dataset.Writes.Load(), m.Service.Stats(); f+w+s.Subscribers != 0 {
				t.Errorf("got %d fetches, %d writes, stats %+v: want no method reached", f, w, s)
			}
		})
	}
	t.Run("a valid caller reaches all", func(t *testing.T) {
		m := peertest.StartMember(t, "m", peertest.ServerCredentials(good))
		for method, err := range everyMethod(t, m, good, peertest.Timeout) {
			if code := status.Code(err); code == codes.Unavailable || code == codes.DeadlineExceeded {
				t.Errorf("%s: %v", method, err)
			}
		}
	})
}

// everyMethod calls each method of the service with an empty request, for at most limit in all, and returns the errors.
func everyMethod(
	t *testing.T, m *peertest.Member, creds credentials.TransportCredentials, limit time.Duration,
) map[string]error {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+m.Addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	came := make(map[string]error)
	service := peerv1.Peer_ServiceDesc
	for _, method := range service.Methods {
		name := "/" + service.ServiceName + "/" + method.MethodName
		came[name] = conn.Invoke(ctx, name, &emptypb.Empty{}, &emptypb.Empty{})
	}
	for i := range service.Streams {
		name := "/" + service.ServiceName + "/" + service.Streams[i].StreamName
		stream, err := conn.NewStream(ctx, &service.Streams[i], name)
		if err == nil {
			err = errors.Join(stream.SendMsg(&emptypb.Empty{}), stream.CloseSend())
		}
		if err == nil {
			err = stream.RecvMsg(&emptypb.Empty{})
		}
		came[name] = err
	}
	return came
}

func TestPoolRejectsInvalidServers(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	mine := peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM())
	servers := map[string]credentials.TransportCredentials{
		"plain text":     nil,
		"a client":       forged(ca, ca.Issue(t, peertest.AsClient("m")).Parse(t)),
		"another member": forged(ca, ca.Issue(t, peertest.AsMember("n")).Parse(t)),
	}
	for _, bad := range peertest.BadIdentities(t, ca, x509.ExtKeyUsageServerAuth) {
		if len(bad.Certificates) > 0 { // a server needs one
			servers[bad.Name] = credentials.NewTLS(bad.Config())
		}
	}
	for name, creds := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := peertest.StartMember(t, "m", peertest.ServerCredentials(creds), peertest.Serving(func(context.Context, kv.Query) (kv.Answer, error) {
				t.Error("an invalid server received a fetch")
				return kv.Answer{}, nil
			}))
			p := peertest.StartPool(t, peer.Config{Credentials: mine}, m)
			if err := peertest.Fetch(t, p, "m"); !errors.Is(err, kv.ErrUnreachable) {
				t.Errorf("got error %v, want unreachable", err)
			}
		})
	}
}

// TestForgedCredentialsWorkWithAValidCertificate shows that the clients and servers of the tests above work.
func TestForgedCredentialsWorkWithAValidCertificate(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	good := peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM())
	well := forged(ca, ca.Issue(t, nil).Parse(t))
	for name, pair := range map[string][2]credentials.TransportCredentials{
		"members":       {good, good},
		"forged caller": {good, well},
		"forged server": {well, good},
	} {
		m := peertest.StartMember(t, "m", peertest.ServerCredentials(pair[0]))
		if err := peertest.Fetch(t, peertest.StartPool(t, peer.Config{Credentials: pair[1]}, m), "m"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Certificates with a DNS name instead of a SPIFFE id are accepted only where the name is configured.
func TestDNSNamesAreAcceptedOnlyIfConfigured(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	f := peertest.WriteFiles(t, ca.Issue(t, peertest.Named("cache.prod.example")), ca.PEM())
	if _, err := mtls.New(t.Context(), f.Config); err == nil || !strings.Contains(err.Error(), "no valid SPIFFE id") {
		t.Errorf("without a configured name: got %v, want an error about the SPIFFE id", err)
	}
	f.Name = "cache.prod.example"
	prod, err := mtls.New(t.Context(), f.Config)
	if err != nil {
		t.Fatal(err)
	}
	m := peertest.StartMember(t, "m", peertest.ServerCredentials(prod))
	for name, test := range map[string]struct {
		creds credentials.TransportCredentials
		want  bool
	}{
		"the name":                        {prod, true},
		"another name":                    {forged(ca, ca.Issue(t, peertest.Named("ringside")).Parse(t)), false},
		"a part of the name":              {forged(ca, ca.Issue(t, peertest.Named("cache.prod", "x.cache.prod.example")).Parse(t)), false},
		"a wildcard for the name's label": {forged(ca, ca.Issue(t, peertest.Named("*.prod.example")).Parse(t)), true},
		"common name only": {forged(ca, ca.Issue(t, func(c *x509.Certificate) {
			c.URIs, c.Subject.CommonName = nil, "cache.prod.example"
		}).Parse(t)), false},
		"no name": {forged(ca, ca.Issue(t, peertest.Named()).Parse(t)), false},
		// Without this rule, a client whose issuer adds DNS names would be a member.
		"a client's SPIFFE id and the name": {forged(ca, ca.Issue(t, func(c *x509.Certificate) {
			peertest.AsClient("envoy")(c)
			c.DNSNames = []string{"cache.prod.example"}
		}).Parse(t)), false},
	} {
		err := peertest.Fetch(t, peertest.StartPool(t, peer.Config{Credentials: test.creds}, m), "m")
		if (err == nil) != test.want {
			t.Errorf("%s: got %v, want accepted: %v", name, err, test.want)
		}
	}
}

func TestSessionIsNotResumed(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	m := peertest.StartMember(t, "m", peertest.ServerCredentials(peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM())))
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	config := &tls.Config{
		Certificates: []tls.Certificate{ca.Issue(t, nil).Parse(t)}, RootCAs: roots, ServerName: "ringside", InsecureSkipVerify: true,
		NextProtos: []string{"h2"}, ClientSessionCache: tls.NewLRUClientSessionCache(8), MaxVersion: tls.VersionTLS12,
	}
	for range 2 {
		c, err := tls.Dial("tcp", m.Addr, config)
		if err != nil {
			t.Fatal(err)
		}
		if c.ConnectionState().DidResume {
			t.Error("the session was resumed with a ticket")
		}
		c.Close()
	}
}

func TestNewExplainsInvalidFiles(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	good := ca.Issue(t, nil)
	cases := map[string]struct {
		id   peertest.Identity
		ca   []byte
		want string
	}{
		"no CA":       {good, []byte("garbage"), "ca.crt contains no certificate"},
		"wrong CA":    {good, peertest.NewAuthority(t).PEM(), "unknown authority"},
		"wrong key":   {peertest.Identity{Cert: good.Cert, Key: ca.Issue(t, nil).Key}, ca.PEM(), "does not match"},
		"empty files": {peertest.Identity{}, nil, "tls.crt"},
		"no PEM":      {peertest.Identity{Cert: []byte("x"), Key: []byte("y")}, ca.PEM(), "tls.crt"},
		"client only": {ca.Issue(t, only(x509.ExtKeyUsageClientAuth)), ca.PEM(), "key usage"},
		"server only": {ca.Issue(t, only(x509.ExtKeyUsageServerAuth)), ca.PEM(), "key usage"},
		"DNS name":    {ca.Issue(t, peertest.Named("ringside")), ca.PEM(), "no URI SAN; want one URI SAN of the form"},
		"a client":    {ca.Issue(t, peertest.AsClient("m")), ca.PEM(), "a sidecar needs the certificate of a member: spiffe://example.org/ringside/default/member/"},
		"other cluster": {
			ca.Issue(t, peertest.WithPath("/ringside/other/member/m")), ca.PEM(),
			"spiffe://example.org/ringside/other/member/m is neither a member nor a client of this cluster: want spiffe://example.org/ringside/default/member/{id}",
		},
		"expired": {ca.Issue(t, expired), ca.PEM(), "expired"},
	}
	for name, tc := range cases {
		_, err := mtls.New(t.Context(), peertest.WriteFiles(t, tc.id, tc.ca).Config)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, tc.want)
			continue
		}
		if strings.Contains(err.Error(), "PRIVATE") || strings.Contains(err.Error(), "MHcC") {
			t.Errorf("%s: error %v contains the key", name, err)
		}
	}
	_, err := mtls.New(t.Context(), mtls.Config{CertFile: "/nowhere/tls.crt"})
	if err == nil || !strings.Contains(err.Error(), "/nowhere/tls.crt") {
		t.Errorf("missing file: error %v", err)
	}
}

func TestRotationFailsNoCall(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	bundle := ca.PEM()
	server, client := peertest.WriteFiles(t, ca.Issue(t, nil), bundle), peertest.WriteFiles(t, ca.Issue(t, nil), bundle)
	serverTLS, err := mtls.New(t.Context(), server.Config)
	if err != nil {
		t.Fatal(err)
	}
	clientTLS, err := mtls.New(t.Context(), client.Config)
	if err != nil {
		t.Fatal(err)
	}
	m := peertest.StartMember(t, "m", peertest.ServerCredentials(serverTLS))
	to := peertest.PeerTo(t, peertest.StartPool(t, peer.Config{Credentials: clientTLS}, m), "m")
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var calls int
	wg.Go(func() {
		for ; ctx.Err() == nil; calls++ {
			if _, err := to.Fetch(context.Background(), peertest.Get("k")); err != nil {
				t.Errorf("call %d on the old connection: %v", calls, err)
			}
		}
	})
	const rotations = 20
	for i := range rotations {
		if i%5 == 4 { // a new CA: first both are trusted, then the certificates change, then the old CA is removed
			ca = peertest.NewAuthority(t)
			bundle = append(ca.PEM(), bundle...)
			rewriteCA(t, server, bundle)
			rewriteCA(t, client, bundle)
		}
		server.Write(t, ca.Issue(t, nil), bundle)
		client.Write(t, ca.Issue(t, nil), bundle)
		if i%5 == 4 {
			bundle = ca.PEM()
			rewriteCA(t, server, bundle)
			rewriteCA(t, client, bundle)
		}
		fresh := peertest.PeerTo(t, peertest.StartPool(t, peer.Config{Credentials: clientTLS}, m), "m")
		if _, err := fresh.Fetch(context.Background(), peertest.Get("k")); err != nil {
			t.Errorf("rotation %d: a new connection: %v", i, err)
		}
	}
	cancel()
	wg.Wait()
	if calls == 0 {
		t.Error("no call was made during the rotations")
	}
	// A handshake between the writes of two files uses the previous identity, but only until the next handshake.
	if s := serverTLS.Stats(); s.Failing {
		t.Errorf("the last of %d failed reloads was not followed by a good one", s.ReloadFailures)
	}
}

func rewriteCA(t testing.TB, f peertest.Files, ca []byte) {
	t.Helper()
	if err := os.WriteFile(f.CAFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRotationAppliesToTheNextHandshake(t *testing.T) {
	t.Parallel()
	before, after := peertest.NewAuthority(t), peertest.NewAuthority(t)
	server := peertest.WriteFiles(t, before.Issue(t, nil), before.PEM())
	serverTLS, err := mtls.New(t.Context(), server.Config)
	if err != nil {
		t.Fatal(err)
	}
	m := peertest.StartMember(t, "m", peertest.ServerCredentials(serverTLS))
	server.Write(t, after.Issue(t, nil), after.PEM())
	for name, tc := range map[string]struct {
		creds *mtls.Credentials
		want  bool
	}{
		"old CA": {peertest.NewCredentials(t, before.Issue(t, nil), before.PEM()), false},
		"new CA": {peertest.NewCredentials(t, after.Issue(t, nil), after.PEM()), true},
	} {
		err := peertest.Fetch(t, peertest.StartPool(t, peer.Config{Credentials: tc.creds}, m), "m")
		if (err == nil) != tc.want {
			t.Errorf("%s: error %v, want accepted: %v", name, err, tc.want)
		}
	}
}

func TestPartialRotationKeepsTheLastValidFiles(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	good := ca.Issue(t, nil)
	breakages := map[string]func(t *testing.T, f peertest.Files){
		"key not yet there": func(t *testing.T, f peertest.Files) {
			f.Write(t, peertest.Identity{Cert: ca.Issue(t, nil).Cert, Key: good.Key}, ca.PEM())
		},
		"file truncated": func(t *testing.T, f peertest.Files) {
			f.Write(t, peertest.Identity{Cert: good.Cert[:40], Key: good.Key}, ca.PEM())
		},
		"CA empty":     func(t *testing.T, f peertest.Files) { f.Write(t, good, nil) },
		"CA of others": func(t *testing.T, f peertest.Files) { f.Write(t, good, peertest.NewAuthority(t).PEM()) },
		"name of others": func(t *testing.T, f peertest.Files) {
			f.Write(t, ca.Issue(t, peertest.WithPath("/ringside/other/member/m")), ca.PEM())
		},
		"file gone": func(t *testing.T, f peertest.Files) {
			if err := os.Remove(f.CertFile); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, breakIt := range breakages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := peertest.WriteFiles(t, good, ca.PEM())
			creds, err := mtls.New(t.Context(), f.Config)
			if err != nil {
				t.Fatal(err)
			}
			m := peertest.StartMember(t, "m", peertest.ServerCredentials(creds))
			breakIt(t, f)
			caller := peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM())
			if err := peertest.Fetch(t, peertest.StartPool(t, peer.Config{Credentials: caller}, m), "m"); err != nil {
				t.Error(err)
			}
			if s := creds.Stats(); s.ReloadFailures == 0 || !s.Failing {
				t.Errorf("got %d failures, failing %v, want some and true", s.ReloadFailures, s.Failing)
			}
			f.Write(t, ca.Issue(t, nil), ca.PEM())
			if err := peertest.Fetch(t, peertest.StartPool(t, peer.Config{Credentials: caller}, m), "m"); err != nil {
				t.Errorf("after the repair: %v", err)
			}
			if creds.Stats().Failing {
				t.Error("still failing after the repair")
			}
		})
	}
}

// Clients may use the routed protocols, and nobody else except members.
func TestServerConfigAcceptsMembersAndClients(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	mine := peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM())
	ln, err := tls.Listen("tcp", "127.0.0.1:0", mine.ServerConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("!")) // after the handshake, so that a rejected client receives nothing
			_ = c.Close()
		}
	}()
	callers := []peertest.BadIdentity{
		{Name: "a member", Certificates: []tls.Certificate{ca.Issue(t, nil).Parse(t)}, Reason: accepted},
		{Name: "a client", Certificates: []tls.Certificate{ca.Issue(t, peertest.AsClient("envoy")).Parse(t)}, Reason: accepted},
	}
	for _, test := range append(callers, peertest.BadIdentities(t, ca, x509.ExtKeyUsageClientAuth)...) {
		before := mine.Stats().Rejected
		config := test.Config()
		config.NextProtos = []string{"h2"}
		c, err := tls.Dial("tcp", ln.Addr().String(), config)
		if err == nil {
			if c.ConnectionState().NegotiatedProtocol != "h2" {
				t.Errorf("%s: HTTP/2 is not offered", test.Name)
			}
			_, err = c.Read(make([]byte, 1))
			_ = c.Close()
		}
		if (err == nil) != (test.Reason == accepted) {
			t.Errorf("%s: got %v, want %q", test.Name, err, test.Reason)
		}
		if test.Reason == accepted || test.Reason == mtls.ReasonProtocol && config.MaxVersion == 0 { // counted by the server
			continue
		}
		if got := mine.Stats().Rejected[test.Reason] - before[test.Reason]; got != 1 {
			t.Errorf("%s: counted %d times as %s, want once: %v", test.Name, got, test.Reason, mine.Stats().Rejected)
		}
	}
}

const accepted = mtls.Reason("accepted")

// The own certificate must be that of this member on the ring.
func TestOwnCertificateMustHaveTheOwnID(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	for self, want := range map[string]string{
		"m": "", "": "",
		"n": `spiffe://example.org/ringside/default/member/m is the id of member "m", but this member is "n" on the ring: issue a certificate with the URI SAN spiffe://example.org/ringside/default/member/n, or correct node.id`,
	} {
		f := peertest.WriteFiles(t, ca.Issue(t, nil), ca.PEM())
		f.Self = self
		_, err := mtls.New(t.Context(), f.Config)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("member %q: got %v, want %q", self, err, want)
		}
	}
	static := peertest.WriteFiles(t, ca.Issue(t, peertest.AsMember("[fd00::1]:7072")), ca.PEM())
	static.Self = "[fd00::1]:7072"
	if _, err := mtls.New(t.Context(), static.Config); err != nil {
		t.Errorf("an address: %v", err)
	}
}

func TestExpiryIsThatOfTheWholeChain(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	soon := time.Now().Add(10 * time.Minute).Truncate(time.Second)
	between := ca.Intermediate(t, func(c *x509.Certificate) { c.NotAfter = soon })
	id := between.Issue(t, nil)
	id.Cert = append(id.Cert, between.PEM()...)
	creds := peertest.NewCredentials(t, id, ca.PEM())
	if got := creds.Stats().Expires; !got.Equal(soon) {
		t.Errorf("got %v, want %v, when the intermediate expires", got, soon)
	}
}

func TestCaller(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	creds := peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM())
	near, far := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1}
	with := func(change func(*x509.Certificate)) *tls.ConnectionState {
		return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{ca.Issue(t, change).Parse(t).Leaf}}
	}
	for name, test := range map[string]struct {
		creds *mtls.Credentials
		state *tls.ConnectionState
		addr  net.Addr
		want  caller.Caller
	}{
		"member":               {creds, with(nil), far, caller.Caller{Kind: caller.Member, ID: "spiffe://example.org/ringside/default/member/m", Addr: "10.0.0.1:1"}},
		"client":               {creds, with(peertest.AsClient("e")), near, caller.Caller{Kind: caller.Client, ID: "spiffe://example.org/ringside/default/client/e", Addr: "127.0.0.1:1"}},
		"plain text":           {nil, nil, far, caller.Caller{Addr: "10.0.0.1:1"}},
		"plain text, same pod": {nil, nil, near, caller.Caller{Kind: caller.Loopback, Addr: "127.0.0.1:1"}},
		"stranger":             {creds, with(peertest.WithPath("/other")), far, caller.Caller{Addr: "10.0.0.1:1"}},
		"no certificate":       {creds, &tls.ConnectionState{}, near, caller.Caller{Addr: "127.0.0.1:1"}},
	} {
		if got := test.creds.Caller(test.state, test.addr); got != test.want {
			t.Errorf("%s: got %+v, want %+v", name, got, test.want)
		}
	}
}

// The members' protocol rejects clients, and counts them by a reason of their own.
func TestClientsMayNotUseTheProtocolOfMembers(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	creds := peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM())
	m := peertest.StartMember(t, "m", peertest.ServerCredentials(creds))
	p := peertest.StartPool(t, peer.Config{Credentials: forged(ca, ca.Issue(t, peertest.AsClient("envoy")).Parse(t))}, m)
	if err := peertest.Fetch(t, p, "m"); !errors.Is(err, kv.ErrUnreachable) {
		t.Errorf("got %v, want unreachable", err)
	}
	if got := creds.Stats().Rejected[mtls.ReasonRole]; got == 0 {
		t.Errorf("got %v, want a rejection because of the role", creds.Stats().Rejected)
	}
}

func TestPoolRejectsAnotherMember(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	mine := peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM())
	n := peertest.StartMember(t, "n", peertest.ServerCredentials(peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM())))
	if err := peertest.Fetch(t, peertest.StartPool(t, peer.Config{Credentials: mine}, n), "n"); !errors.Is(err, kv.ErrUnreachable) {
		t.Errorf("got %v, want unreachable: the certificate is that of m", err)
	}
	if got := mine.Stats().Rejected[mtls.ReasonMember]; got == 0 {
		t.Errorf("got %v, want a rejection because of the member", mine.Stats().Rejected)
	}
}

func TestHandlersKnowTheCaller(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	creds := peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM())
	for name, test := range map[string]struct {
		creds *mtls.Credentials
		want  caller.Caller
	}{
		"TLS":        {creds, caller.Caller{Kind: caller.Member, ID: "spiffe://example.org/ringside/default/member/m"}},
		"plain text": {nil, caller.Caller{Kind: caller.Loopback}},
	} {
		var got caller.Caller
		options := []peertest.Option{
			peertest.Identifying(test.creds.Caller),
			peertest.Serving(func(ctx context.Context, q kv.Query) (kv.Answer, error) {
				got = caller.From(ctx)
				return peertest.Held(ctx, q)
			}),
		}
		var config peer.Config
		if test.creds != nil {
			options, config.Credentials = append(options, peertest.ServerCredentials(test.creds)), test.creds
		}
		m := peertest.StartMember(t, "m", options...)
		if err := peertest.Fetch(t, peertest.StartPool(t, config, m), "m"); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(got.Addr, "127.0.0.1:") {
			t.Errorf("%s: got the address %q", name, got.Addr)
		}
		got.Addr = ""
		if got != test.want {
			t.Errorf("%s: got %+v, want %+v", name, got, test.want)
		}
	}
}

// A connection on which its server does nothing ends when the certificate of its caller expires.
func TestConnectionEndsWithItsCertificate(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	creds := peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM())
	here, there := net.Pipe()
	defer here.Close()
	short := ca.Issue(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(2 * time.Second) }).Parse(t)
	client := tls.Client(here, &tls.Config{Certificates: []tls.Certificate{short}, InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	go func() { _ = client.Handshake() }()
	if _, _, err := creds.ServerHandshake(there); err != nil {
		t.Fatal(err)
	}
	if err := client.SetReadDeadline(time.Now().Add(peertest.Timeout)); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v, want the end of the connection", err)
	}
}
