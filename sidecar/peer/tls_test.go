package peer_test

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
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
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/peer"
)

// authority issues certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key := newKey(t)
	return &authority{cert: sign(t, template, template, key, key), key: key}
}

func (a *authority) pem() []byte { return certPEM(a.cert) }

// identity is a certificate with its key, as PEM.
type identity struct{ cert, key []byte }

// issue makes an identity that every member accepts, but for what change makes of it.
func (a *authority) issue(t testing.TB, change func(*x509.Certificate)) identity {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: serial(t), DNSNames: []string{peer.DefaultName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	key := newKey(t)
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return identity{
		cert: certPEM(sign(t, template, a.cert, key, a.key)),
		key:  pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}),
	}
}

func (i identity) parse(t testing.TB) tls.Certificate {
	t.Helper()
	c, err := tls.X509KeyPair(i.cert, i.key)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func sign(t testing.TB, template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func certPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// files are an identity on disk.
type files struct{ peer.TLSConfig }

func writeFiles(t testing.TB, id identity, ca []byte) files {
	t.Helper()
	dir := t.TempDir()
	f := files{peer.TLSConfig{
		CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key"), CAFile: filepath.Join(dir, "ca.crt"),
	}}
	f.write(t, id, ca)
	return f
}

// write replaces the files one by one, as careless tools do.
func (f files) write(t testing.TB, id identity, ca []byte) {
	t.Helper()
	for name, content := range map[string][]byte{f.CertFile: id.cert, f.KeyFile: id.key, f.CAFile: ca} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func newTLS(t testing.TB, id identity, ca []byte) *peer.TLS {
	t.Helper()
	creds, err := peer.NewTLS(writeFiles(t, id, ca).TLSConfig)
	if err != nil {
		t.Fatal(err)
	}
	return creds
}

// forged presents a certificate that a member would not present, as whoever is not a member may.
func forged(ca *authority, certs ...tls.Certificate) credentials.TransportCredentials {
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	return credentials.NewTLS(&tls.Config{Certificates: certs, RootCAs: roots, ServerName: peer.DefaultName})
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

// badIdentities are signed by the right CA and must be refused all the same.
func badIdentities() []badIdentity {
	return []badIdentity{
		{"expired", expired},
		{"not yet valid", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }},
		{"for code signing", only(x509.ExtKeyUsageCodeSigning)},
		{"other name", called("app.example")},
		{"name as a part", called("ringside.example", "xringside")},
		{"no name", called()},
		{"common name only", func(c *x509.Certificate) { c.DNSNames, c.Subject.CommonName = nil, peer.DefaultName }},
		{"address only", func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, []net.IP{net.IPv4(127, 0, 0, 1)} }},
	}
}

func TestServerRefusesBadCallers(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	m := startMember(t, "m", serverCreds(newTLS(t, ca.issue(t, nil), ca.pem())),
		serving(func(context.Context, cache.Query) (cache.Answer, error) {
			t.Error("a bad caller was served")
			return cache.Answer{}, nil
		}))
	for name, creds := range badCallers(t, ca) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startPool(t, peer.Config{Credentials: creds}, m)
			if err := fetch(t, p, "m"); !errors.Is(err, cache.ErrUnreachable) {
				t.Errorf("error %v, want unreachable", err)
			}
		})
	}
}

func badCallers(t *testing.T, ca *authority) map[string]credentials.TransportCredentials {
	otherCA := newAuthority(t)
	callers := map[string]credentials.TransportCredentials{
		"plain text":         nil,
		"no certificate":     forged(ca),
		"wrong CA":           forged(ca, otherCA.issue(t, nil).parse(t)),
		"self-signed":        forged(ca, selfSigned(t).parse(t)),
		"for servers":        forged(ca, ca.issue(t, only(x509.ExtKeyUsageServerAuth)).parse(t)),
		"key of another":     forged(ca, mismatched(ca.issue(t, nil).parse(t), newKey(t))),
		"issued by a member": forged(ca, chained(t, ca).parse(t)),
		"TLS 1.1":            outdated(t, ca),
	}
	for _, bad := range badIdentities() {
		callers[bad.name] = forged(ca, ca.issue(t, bad.change).parse(t))
	}
	return callers
}

// Every method is behind the handshake, those of later versions among them.
func TestBadCallersReachNoMethod(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	good := newTLS(t, ca.issue(t, nil), ca.pem())
	m := startMember(t, "m", serverCreds(good))
	for name, creds := range badCallers(t, ca) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startPool(t, peer.Config{
				Credentials: creds, Sink: newSink(t), Feeds: []string{"metrics"}, SilenceAfter: 50 * time.Millisecond,
			}, m)
			if err := write(t, p, "m"); !errors.Is(err, cache.ErrUnreachable) {
				t.Errorf("write: %v, want unreachable", err)
			}
			if n, _ := p.Broadcast(context.Background(), []cache.Invalidation{drop("k", 1)}); n != 0 {
				t.Error("the member was told")
			}
			for method, err := range everyMethod(t, m, cmp.Or(creds, insecure.NewCredentials())) {
				if code := status.Code(err); code != codes.Unavailable && code != codes.DeadlineExceeded {
					t.Errorf("%s: %v", method, err)
				}
			}
			if s := m.service.Stats(); s.Fetches+s.Writes+s.Invalidated+s.Followers != 0 {
				t.Errorf("stats %+v: a method was reached", s)
			}
		})
	}
	t.Run("a good one reaches all", func(t *testing.T) {
		m := startMember(t, "m", serverCreds(good))
		for method, err := range everyMethod(t, m, good) {
			if code := status.Code(err); code == codes.Unavailable || code == codes.DeadlineExceeded {
				t.Errorf("%s: %v", method, err)
			}
		}
	})
}

// everyMethod calls each method of the service with an empty request, and returns what came of it.
func everyMethod(t *testing.T, m *member, creds credentials.TransportCredentials) map[string]error {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+m.Addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
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

func TestPoolRefusesBadServers(t *testing.T) {
	t.Parallel()
	ca, otherCA := newAuthority(t), newAuthority(t)
	mine := newTLS(t, ca.issue(t, nil), ca.pem())
	servers := map[string]credentials.TransportCredentials{
		"plain text":         nil,
		"wrong CA":           forged(ca, otherCA.issue(t, nil).parse(t)),
		"self-signed":        forged(ca, selfSigned(t).parse(t)),
		"for clients":        forged(ca, ca.issue(t, only(x509.ExtKeyUsageClientAuth)).parse(t)),
		"key of another":     forged(ca, mismatched(ca.issue(t, nil).parse(t), newKey(t))),
		"issued by a member": forged(ca, chained(t, ca).parse(t)),
	}
	for _, bad := range badIdentities() {
		servers[bad.name] = forged(ca, ca.issue(t, bad.change).parse(t))
	}
	for name, creds := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := startMember(t, "m", serverCreds(creds), serving(func(context.Context, cache.Query) (cache.Answer, error) {
				t.Error("a bad server was asked")
				return cache.Answer{}, nil
			}))
			p := startPool(t, peer.Config{Credentials: mine}, m)
			if err := fetch(t, p, "m"); !errors.Is(err, cache.ErrUnreachable) {
				t.Errorf("error %v, want unreachable", err)
			}
		})
	}
}

// TestForgedCredentialsWouldDo shows that the refusals above are not for want of a working client or server.
func TestForgedCredentialsWouldDo(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	good := newTLS(t, ca.issue(t, nil), ca.pem())
	well := forged(ca, ca.issue(t, nil).parse(t))
	for name, pair := range map[string][2]credentials.TransportCredentials{
		"members":       {good, good},
		"forged caller": {good, well},
		"forged server": {well, good},
	} {
		m := startMember(t, "m", serverCreds(pair[0]))
		if err := fetch(t, startPool(t, peer.Config{Credentials: pair[1]}, m), "m"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func selfSigned(t testing.TB) identity {
	t.Helper()
	self := newAuthority(t)
	return self.issue(t, nil)
}

// mismatched presents a certificate without owning its key.
func mismatched(c tls.Certificate, key *ecdsa.PrivateKey) tls.Certificate {
	c.PrivateKey = key
	return c
}

// chained is issued by a member's certificate, which is no CA.
func chained(t testing.TB, ca *authority) identity {
	t.Helper()
	member := ca.issue(t, nil)
	parsed := member.parse(t)
	id := (&authority{cert: parsed.Leaf, key: parsed.PrivateKey.(*ecdsa.PrivateKey)}).issue(t, nil)
	id.cert = append(id.cert, member.cert...)
	return id
}

func outdated(t testing.TB, ca *authority) credentials.TransportCredentials {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	return credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{ca.issue(t, nil).parse(t)}, RootCAs: roots, ServerName: peer.DefaultName,
		MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11,
	})
}

func TestNameOfTheMembersIsConfigurable(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	f := writeFiles(t, ca.issue(t, called("cache.prod.example")), ca.pem())
	f.Name = "cache.prod.example"
	prod, err := peer.NewTLS(f.TLSConfig)
	if err != nil {
		t.Fatal(err)
	}
	m := startMember(t, "m", serverCreds(prod))
	if err := fetch(t, startPool(t, peer.Config{Credentials: prod}, m), "m"); err != nil {
		t.Error(err)
	}
	other := newTLS(t, ca.issue(t, nil), ca.pem())
	if err := fetch(t, startPool(t, peer.Config{Credentials: other}, m), "m"); err == nil {
		t.Error("a member of another name was accepted")
	}
}

func TestSessionIsNotResumed(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	m := startMember(t, "m", serverCreds(newTLS(t, ca.issue(t, nil), ca.pem())))
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	config := &tls.Config{
		Certificates: []tls.Certificate{ca.issue(t, nil).parse(t)}, RootCAs: roots, ServerName: peer.DefaultName,
		NextProtos: []string{"h2"}, ClientSessionCache: tls.NewLRUClientSessionCache(8), MaxVersion: tls.VersionTLS12,
	}
	for range 2 {
		c, err := tls.Dial("tcp", m.Addr, config)
		if err != nil {
			t.Fatal(err)
		}
		if c.ConnectionState().DidResume {
			t.Error("a ticket has replaced the certificate")
		}
		c.Close()
	}
}

func TestNewTLSSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	good := ca.issue(t, nil)
	cases := map[string]struct {
		id   identity
		ca   []byte
		want string
	}{
		"no CA":       {good, []byte("garbage"), "ca.crt holds no certificate"},
		"wrong CA":    {good, newAuthority(t).pem(), "unknown authority"},
		"wrong key":   {identity{good.cert, ca.issue(t, nil).key}, ca.pem(), "does not match"},
		"empty files": {identity{}, nil, "tls.crt"},
		"no PEM":      {identity{[]byte("x"), []byte("y")}, ca.pem(), "tls.crt"},
		"client only": {ca.issue(t, only(x509.ExtKeyUsageClientAuth)), ca.pem(), "key usage"},
		"server only": {ca.issue(t, only(x509.ExtKeyUsageServerAuth)), ca.pem(), "key usage"},
		"other name":  {ca.issue(t, called("app.example")), ca.pem(), "not ringside"},
		"expired":     {ca.issue(t, expired), ca.pem(), "expired"},
	}
	for name, tc := range cases {
		_, err := peer.NewTLS(writeFiles(t, tc.id, tc.ca).TLSConfig)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, tc.want)
			continue
		}
		if strings.Contains(err.Error(), "PRIVATE") || strings.Contains(err.Error(), "MHcC") {
			t.Errorf("%s: error %v shows the key", name, err)
		}
	}
	_, err := peer.NewTLS(peer.TLSConfig{CertFile: "/nowhere/tls.crt"})
	if err == nil || !strings.Contains(err.Error(), "/nowhere/tls.crt") {
		t.Errorf("missing file: error %v", err)
	}
}

func TestRotationFailsNoCall(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	bundle := ca.pem()
	server, client := writeFiles(t, ca.issue(t, nil), bundle), writeFiles(t, ca.issue(t, nil), bundle)
	serverTLS, err := peer.NewTLS(server.TLSConfig)
	if err != nil {
		t.Fatal(err)
	}
	clientTLS, err := peer.NewTLS(client.TLSConfig)
	if err != nil {
		t.Fatal(err)
	}
	m := startMember(t, "m", serverCreds(serverTLS))
	to := peerTo(t, startPool(t, peer.Config{Credentials: clientTLS}, m), "m")
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var calls int
	wg.Go(func() {
		for ; ctx.Err() == nil; calls++ {
			if _, err := to.Fetch(context.Background(), get("k")); err != nil {
				t.Errorf("call %d on the old connection: %v", calls, err)
			}
		}
	})
	const rotations = 20
	for i := range rotations {
		if i%5 == 4 { // a new CA: first everybody trusts both, then certificates change, then the old one goes
			ca = newAuthority(t)
			bundle = append(ca.pem(), bundle...)
			rewriteCA(t, server, bundle)
			rewriteCA(t, client, bundle)
		}
		server.write(t, ca.issue(t, nil), bundle)
		client.write(t, ca.issue(t, nil), bundle)
		if i%5 == 4 {
			bundle = ca.pem()
			rewriteCA(t, server, bundle)
			rewriteCA(t, client, bundle)
		}
		fresh := peerTo(t, startPool(t, peer.Config{Credentials: clientTLS}, m), "m")
		if _, err := fresh.Fetch(context.Background(), get("k")); err != nil {
			t.Errorf("rotation %d: a new connection: %v", i, err)
		}
	}
	cancel()
	wg.Wait()
	if calls == 0 {
		t.Error("no call was made meanwhile")
	}
	// A handshake that falls between two of the files goes on with the identity before; it may not be stuck with it.
	if n, failing := serverTLS.ReloadFailures(); failing {
		t.Errorf("the last of %d reloads failed", n)
	}
}

func rewriteCA(t testing.TB, f files, ca []byte) {
	t.Helper()
	if err := os.WriteFile(f.CAFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRotationIsInForceAtTheNextHandshake(t *testing.T) {
	t.Parallel()
	before, after := newAuthority(t), newAuthority(t)
	server := writeFiles(t, before.issue(t, nil), before.pem())
	serverTLS, err := peer.NewTLS(server.TLSConfig)
	if err != nil {
		t.Fatal(err)
	}
	m := startMember(t, "m", serverCreds(serverTLS))
	server.write(t, after.issue(t, nil), after.pem())
	for name, tc := range map[string]struct {
		creds *peer.TLS
		want  bool
	}{
		"old CA": {newTLS(t, before.issue(t, nil), before.pem()), false},
		"new CA": {newTLS(t, after.issue(t, nil), after.pem()), true},
	} {
		err := fetch(t, startPool(t, peer.Config{Credentials: tc.creds}, m), "m")
		if (err == nil) != tc.want {
			t.Errorf("%s: error %v, want accepted: %v", name, err, tc.want)
		}
	}
}

func TestHalfARotationKeepsTheLastGoodFiles(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	good := ca.issue(t, nil)
	breakages := map[string]func(t *testing.T, f files){
		"key not yet there": func(t *testing.T, f files) { f.write(t, identity{ca.issue(t, nil).cert, good.key}, ca.pem()) },
		"file truncated":    func(t *testing.T, f files) { f.write(t, identity{good.cert[:40], good.key}, ca.pem()) },
		"CA empty":          func(t *testing.T, f files) { f.write(t, good, nil) },
		"CA of others":      func(t *testing.T, f files) { f.write(t, good, newAuthority(t).pem()) },
		"name of others":    func(t *testing.T, f files) { f.write(t, ca.issue(t, called("app.example")), ca.pem()) },
		"file gone": func(t *testing.T, f files) {
			if err := os.Remove(f.CertFile); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, breakIt := range breakages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := writeFiles(t, good, ca.pem())
			creds, err := peer.NewTLS(f.TLSConfig)
			if err != nil {
				t.Fatal(err)
			}
			m := startMember(t, "m", serverCreds(creds))
			breakIt(t, f)
			caller := newTLS(t, ca.issue(t, nil), ca.pem())
			if err := fetch(t, startPool(t, peer.Config{Credentials: caller}, m), "m"); err != nil {
				t.Error(err)
			}
			if n, failing := creds.ReloadFailures(); n == 0 || !failing {
				t.Errorf("%d failures counted, failing %v", n, failing)
			}
			f.write(t, ca.issue(t, nil), ca.pem())
			if err := fetch(t, startPool(t, peer.Config{Credentials: caller}, m), "m"); err != nil {
				t.Errorf("after the repair: %v", err)
			}
			if _, failing := creds.ReloadFailures(); failing {
				t.Error("still failing after the repair")
			}
		})
	}
}

// A client that routes by the ring proves who it is as a member does.
func TestConfigDemandsTheIdentityOfMembers(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	mine := newTLS(t, ca.issue(t, nil), ca.pem())
	ln, err := tls.Listen("tcp", "127.0.0.1:0", mine.Config())
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
			_, _ = c.Write([]byte("!")) // the handshake comes first; who fails it hears nothing
			_ = c.Close()
		}
	}()
	stranger := func(c *x509.Certificate) { c.DNSNames = []string{"somebody"} }
	for name, test := range map[string]struct {
		certificates []tls.Certificate
		accepted     bool
	}{
		"a member's certificate": {[]tls.Certificate{ca.issue(t, nil).parse(t)}, true},
		"none":                   {nil, false},
		"another CA's":           {[]tls.Certificate{other.issue(t, nil).parse(t)}, false},
		"another name":           {[]tls.Certificate{ca.issue(t, stranger).parse(t)}, false},
	} {
		roots := x509.NewCertPool()
		roots.AddCert(ca.cert)
		config := &tls.Config{
			Certificates: test.certificates, RootCAs: roots, ServerName: peer.DefaultName, NextProtos: []string{"h2"},
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
