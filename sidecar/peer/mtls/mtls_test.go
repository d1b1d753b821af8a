package mtls_test

import (
	"cmp"
	"context"
	"crypto/ecdsa"
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
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/mtls"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
)

// forged presents a certificate that a member would not present.
func forged(ca *peertest.Authority, certs ...tls.Certificate) credentials.TransportCredentials {
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	return credentials.NewTLS(&tls.Config{Certificates: certs, RootCAs: roots, ServerName: mtls.DefaultName})
}

type badIdentity struct {
	name   string
	change func(*x509.Certificate)
}

func only(usage x509.ExtKeyUsage) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{usage} }
}

func expired(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }

func called(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = names }
}

// badIdentities are issued by the right CA and must be rejected.
func badIdentities() []badIdentity {
	return []badIdentity{
		{"expired", expired},
		{"not yet valid", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }},
		{"for code signing", only(x509.ExtKeyUsageCodeSigning)},
		{"other name", called("app.example")},
		{"name as a part", called("ringside.example", "xringside")},
		{"no name", called()},
		{"common name only", func(c *x509.Certificate) { c.DNSNames, c.Subject.CommonName = nil, mtls.DefaultName }},
		{"address only", func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, []net.IP{net.IPv4(127, 0, 0, 1)} }},
	}
}

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
	otherCA := peertest.NewAuthority(t)
	callers := map[string]credentials.TransportCredentials{
		"plain text":         nil,
		"no certificate":     forged(ca),
		"wrong CA":           forged(ca, otherCA.Issue(t, nil).Parse(t)),
		"self-signed":        forged(ca, selfSigned(t).Parse(t)),
		"for servers":        forged(ca, ca.Issue(t, only(x509.ExtKeyUsageServerAuth)).Parse(t)),
		"key of another":     forged(ca, mismatched(ca.Issue(t, nil).Parse(t), peertest.NewKey(t))),
		"issued by a member": forged(ca, chained(t, ca).Parse(t)),
		"TLS 1.1":            outdated(t, ca),
	}
	for _, bad := range badIdentities() {
		callers[bad.name] = forged(ca, ca.Issue(t, bad.change).Parse(t))
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
	ca, otherCA := peertest.NewAuthority(t), peertest.NewAuthority(t)
	mine := peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM())
	servers := map[string]credentials.TransportCredentials{
		"plain text":         nil,
		"wrong CA":           forged(ca, otherCA.Issue(t, nil).Parse(t)),
		"self-signed":        forged(ca, selfSigned(t).Parse(t)),
		"for clients":        forged(ca, ca.Issue(t, only(x509.ExtKeyUsageClientAuth)).Parse(t)),
		"key of another":     forged(ca, mismatched(ca.Issue(t, nil).Parse(t), peertest.NewKey(t))),
		"issued by a member": forged(ca, chained(t, ca).Parse(t)),
	}
	for _, bad := range badIdentities() {
		servers[bad.name] = forged(ca, ca.Issue(t, bad.change).Parse(t))
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

func selfSigned(t testing.TB) peertest.Identity {
	t.Helper()
	self := peertest.NewAuthority(t)
	return self.Issue(t, nil)
}

// mismatched presents a certificate with another key.
func mismatched(c tls.Certificate, key *ecdsa.PrivateKey) tls.Certificate {
	c.PrivateKey = key
	return c
}

// chained is issued by the certificate of a member, which is not a CA.
func chained(t testing.TB, ca *peertest.Authority) peertest.Identity {
	t.Helper()
	member := ca.Issue(t, nil)
	parsed := member.Parse(t)
	id := (&peertest.Authority{Cert: parsed.Leaf, Key: parsed.PrivateKey.(*ecdsa.PrivateKey)}).Issue(t, nil)
	id.Cert = append(id.Cert, member.Cert...)
	return id
}

func outdated(t testing.TB, ca *peertest.Authority) credentials.TransportCredentials {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	return credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{ca.Issue(t, nil).Parse(t)}, RootCAs: roots, ServerName: mtls.DefaultName,
		MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11,
	})
}

func TestNameOfMembersIsConfigurable(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	f := peertest.WriteFiles(t, ca.Issue(t, called("cache.prod.example")), ca.PEM())
	f.Name = "cache.prod.example"
	prod, err := mtls.New(f.Config)
	if err != nil {
		t.Fatal(err)
	}
	m := peertest.StartMember(t, "m", peertest.ServerCredentials(prod))
	if err := peertest.Fetch(t, peertest.StartPool(t, peer.Config{Credentials: prod}, m), "m"); err != nil {
		t.Error(err)
	}
	other := peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM())
	if err := peertest.Fetch(t, peertest.StartPool(t, peer.Config{Credentials: other}, m), "m"); err == nil {
		t.Error("a member with another name was accepted")
	}
}

func TestSessionIsNotResumed(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	m := peertest.StartMember(t, "m", peertest.ServerCredentials(peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM())))
	roots := x509.NewCertPool()
	roots.AddCert(ca.Cert)
	config := &tls.Config{
		Certificates: []tls.Certificate{ca.Issue(t, nil).Parse(t)}, RootCAs: roots, ServerName: mtls.DefaultName,
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
		"other name":  {ca.Issue(t, called("app.example")), ca.PEM(), "not ringside"},
		"expired":     {ca.Issue(t, expired), ca.PEM(), "expired"},
	}
	for name, tc := range cases {
		_, err := mtls.New(peertest.WriteFiles(t, tc.id, tc.ca).Config)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, tc.want)
			continue
		}
		if strings.Contains(err.Error(), "PRIVATE") || strings.Contains(err.Error(), "MHcC") {
			t.Errorf("%s: error %v contains the key", name, err)
		}
	}
	_, err := mtls.New(mtls.Config{CertFile: "/nowhere/tls.crt"})
	if err == nil || !strings.Contains(err.Error(), "/nowhere/tls.crt") {
		t.Errorf("missing file: error %v", err)
	}
}

func TestRotationFailsNoCall(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	bundle := ca.PEM()
	server, client := peertest.WriteFiles(t, ca.Issue(t, nil), bundle), peertest.WriteFiles(t, ca.Issue(t, nil), bundle)
	serverTLS, err := mtls.New(server.Config)
	if err != nil {
		t.Fatal(err)
	}
	clientTLS, err := mtls.New(client.Config)
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
	if n, failing := serverTLS.ReloadFailures(); failing {
		t.Errorf("the last of %d failed reloads was not followed by a good one", n)
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
	serverTLS, err := mtls.New(server.Config)
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
		"CA empty":       func(t *testing.T, f peertest.Files) { f.Write(t, good, nil) },
		"CA of others":   func(t *testing.T, f peertest.Files) { f.Write(t, good, peertest.NewAuthority(t).PEM()) },
		"name of others": func(t *testing.T, f peertest.Files) { f.Write(t, ca.Issue(t, called("app.example")), ca.PEM()) },
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
			creds, err := mtls.New(f.Config)
			if err != nil {
				t.Fatal(err)
			}
			m := peertest.StartMember(t, "m", peertest.ServerCredentials(creds))
			breakIt(t, f)
			caller := peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM())
			if err := peertest.Fetch(t, peertest.StartPool(t, peer.Config{Credentials: caller}, m), "m"); err != nil {
				t.Error(err)
			}
			if n, failing := creds.ReloadFailures(); n == 0 || !failing {
				t.Errorf("got %d failures, failing %v, want some and true", n, failing)
			}
			f.Write(t, ca.Issue(t, nil), ca.PEM())
			if err := peertest.Fetch(t, peertest.StartPool(t, peer.Config{Credentials: caller}, m), "m"); err != nil {
				t.Errorf("after the repair: %v", err)
			}
			if _, failing := creds.ReloadFailures(); failing {
				t.Error("still failing after the repair")
			}
		})
	}
}

// A client that routes by the ring needs a certificate like that of a member.
func TestServerConfigRequiresTheIdentityOfMembers(t *testing.T) {
	t.Parallel()
	ca, other := peertest.NewAuthority(t), peertest.NewAuthority(t)
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
	otherName := func(c *x509.Certificate) { c.DNSNames = []string{"somebody"} }
	for name, test := range map[string]struct {
		certificates []tls.Certificate
		accepted     bool
	}{
		"a member's certificate": {[]tls.Certificate{ca.Issue(t, nil).Parse(t)}, true},
		"none":                   {nil, false},
		"another CA's":           {[]tls.Certificate{other.Issue(t, nil).Parse(t)}, false},
		"another name":           {[]tls.Certificate{ca.Issue(t, otherName).Parse(t)}, false},
	} {
		roots := x509.NewCertPool()
		roots.AddCert(ca.Cert)
		config := &tls.Config{
			Certificates: test.certificates, RootCAs: roots, ServerName: mtls.DefaultName, NextProtos: []string{"h2"},
		}
		c, err := tls.Dial("tcp", ln.Addr().String(), config)
		if err == nil {
			if c.ConnectionState().NegotiatedProtocol != "h2" {
				t.Errorf("%s: HTTP/2 is not offered", name)
			}
			_, err = c.Read(make([]byte, 1))
			_ = c.Close()
		}
		if (err == nil) != test.accepted {
			t.Errorf("%s: %v", name, err)
		}
	}
}
