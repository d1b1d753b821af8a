package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "modernc.org/sqlite"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin/sqldb/sqlite/sqlitetest"
	"github.com/ringside-cache/ringside/proto/groupcachepb"
	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/mtls"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
	"github.com/ringside-cache/ringside/sidecar/peer/wire"
	"github.com/ringside-cache/ringside/xds/publisher"
	"github.com/ringside-cache/ringside/xds/resolver"
	"github.com/ringside-cache/ringside/xds/xdstest"
)

// attempt is how long an attempt with an identity may take. A rejected one ends at once.
const attempt = 20 * time.Second

// tlsEntryPoint is a way to reach a sidecar with TLS, or for a sidecar to reach others.
type tlsEntryPoint struct {
	name string
	// try returns nil if the other side was accepted. A nil configuration means plain text.
	try func(t *testing.T, c *tls.Config) error
	// usage is the side of the connection on which the identity is.
	usage x509.ExtKeyUsage
	// members: only members are accepted.
	members bool
}

// tlsEntryPoints returns all of a sidecar, and those of connections that the member "m" of ca makes.
func tlsEntryPoints(s *rig.Sidecar, ca *peertest.Authority) []tlsEntryPoint {
	const incoming, outgoing = x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth
	get := func(protocols func(*http.Protocols)) func(*testing.T, *tls.Config) error {
		return func(_ *testing.T, c *tls.Config) error { return overHTTPS(s.Peer, c, protocols) }
	}
	call := func(addr string, f func(context.Context, *grpc.ClientConn) error, options ...grpc.DialOption) func(*testing.T, *tls.Config) error {
		return func(_ *testing.T, c *tls.Config) error { return overConn(addr, c, f, options...) }
	}
	return []tlsEntryPoint{
		{"peer.v1", call(s.Peer, ping, grpc.WithContextDialer(dialMember)), incoming, true},
		{"routed HTTP/1.1", get(func(p *http.Protocols) { p.SetHTTP1(true) }), incoming, false},
		{"routed HTTP/2", get(func(p *http.Protocols) { p.SetHTTP2(true) }), incoming, false},
		{"routed gRPC", call(s.Peer, getRow), incoming, false},
		{"old protocol", call(s.Peer, getOld), incoming, false},
		{"listen.xds", call(s.XDS, listMembers), incoming, false},
		{"fetch from a member", func(t *testing.T, c *tls.Config) error { return fetchFrom(t, ca, c) }, outgoing, true},
		{"membership.xds", func(t *testing.T, c *tls.Config) error { return resolveFrom(t, ca, c) }, outgoing, true},
	}
}

func overHTTPS(addr string, c *tls.Config, protocols func(*http.Protocols)) error {
	transport := &http.Transport{TLSClientConfig: c, Protocols: new(http.Protocols), DisableKeepAlives: true}
	protocols(transport.Protocols)
	scheme := "https"
	if c == nil {
		scheme = "http"
		if transport.Protocols.HTTP2() {
			transport.Protocols.SetUnencryptedHTTP2(true)
		}
	}
	client := http.Client{Transport: transport, Timeout: attempt}
	response, err := client.Get(scheme + "://" + addr + "/v1/rows/a")
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if c == nil && response.StatusCode == http.StatusBadRequest {
		return errors.New(response.Status) // to plain text, not from the cache
	}
	return nil
}

func overConn(addr string, c *tls.Config, f func(context.Context, *grpc.ClientConn) error, options ...grpc.DialOption) error {
	creds := insecure.NewCredentials()
	if c != nil {
		creds = credentials.NewTLS(c)
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, append(options, grpc.WithTransportCredentials(creds))...)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), attempt)
	defer cancel()
	return f(ctx, conn)
}

func dialMember(ctx context.Context, addr string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	_, err = c.Write([]byte(wire.Preface))
	return c, err
}

func ping(ctx context.Context, conn *grpc.ClientConn) error {
	_, err := peerv1.NewPeerClient(conn).Ping(ctx, &peerv1.PingRequest{})
	return err
}

func getRow(ctx context.Context, conn *grpc.ClientConn) error {
	_, err := ringsidev1.NewCacheClient(conn).Get(ctx, &ringsidev1.GetRequest{Dataset: "rows", Key: "a"})
	return err
}

func getOld(ctx context.Context, conn *grpc.ClientConn) error {
	_, err := groupcachepb.NewGroupCacheClient(conn).Get(ctx, &groupcachepb.GetRequest{Group: "rows", Key: "a"})
	return err
}

func listMembers(ctx context.Context, conn *grpc.ClientConn) error {
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&discoveryv3.DiscoveryRequest{TypeUrl: resource.EndpointType, ResourceNames: []string{"ringside"}}); err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

func serverCredentials(c *tls.Config) credentials.TransportCredentials {
	if c == nil {
		return insecure.NewCredentials()
	}
	return credentials.NewTLS(c)
}

// fetchFrom fetches from a member "m" that has the configuration c.
func fetchFrom(t *testing.T, ca *peertest.Authority, c *tls.Config) error {
	m := peertest.StartMember(t, "m", peertest.ServerCredentials(serverCredentials(c)))
	mine := peertest.NewCredentials(t, ca.Issue(t, peertest.AsMember("n")), ca.PEM())
	return peertest.Fetch(t, peertest.StartPool(t, peer.Config{Credentials: mine}, m), "m")
}

// resolveFrom gets the members from a publisher that has the configuration c.
func resolveFrom(t *testing.T, ca *peertest.Authority, c *tls.Config) error {
	ln, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	p := publisher.New(publisher.Config{Delay: time.Millisecond})
	p.Publish([]ring.Member{{ID: "m", Addr: "10.0.0.1:7072"}})
	defer xdstest.Serve(t, ln, p, grpc.Creds(serverCredentials(c)))()
	lost := make(chan error, 1)
	r, err := resolver.New(resolver.Config{
		Addresses:   []string{ln.Addr().String()},
		Credentials: peertest.NewCredentials(t, ca.Issue(t, peertest.AsMember("n")), ca.PEM()),
		OnEvent: func(_ string, err error) {
			if err != nil {
				lost <- err
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), attempt)
	listed, done := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(done)
		_ = r.Resolve(ctx, func([]ring.Member) { listed <- struct{}{} })
	}()
	defer func() {
		cancel()
		<-done
	}()
	select {
	case <-listed:
		return nil
	case err := <-lost:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hostAddress returns an IPv4 address of this host that is not loopback, because listeners there use TLS.
func hostAddress(t *testing.T) string {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	t.Fatal("this host has no address except loopback")
	return ""
}

// newSecureSidecar starts the member "m" of ca, with one row and all TLS listeners.
func newSecureSidecar(t *testing.T, files peertest.Files) *rig.Sidecar {
	t.Helper()
	path := sqlitetest.New(t, `CREATE TABLE rows (id TEXT PRIMARY KEY, v INTEGER); INSERT INTO rows VALUES ('a', 1)`)
	s := rig.NewSidecar(t, "m", fmt.Sprintf(`
origins: {db: {driver: sqlite, dsn: %q}}
datasets: {rows: {origin: db, table: rows, key: id}}
peer_tls: {cert_file: %q, key_file: %q, ca_file: %q}
`, path, files.CertFile, files.KeyFile, files.CAFile))
	s.PublishXDSAt(hostAddress(t))
	s.Start()
	return s
}

func TestPromiseE1NoBadIdentityIsAccepted(t *testing.T) {
	t.Parallel()
	ca, removed := peertest.NewAuthority(t), peertest.NewAuthority(t)
	files := peertest.WriteFiles(t, ca.Issue(t, nil), slices.Concat(ca.PEM(), removed.PEM()))
	s := newSecureSidecar(t, files)
	points := tlsEntryPoints(s, ca)
	revoked := peertest.BadIdentity{Certificates: []tls.Certificate{removed.Issue(t, nil).Parse(t)}}
	for _, p := range points {
		good := peertest.BadIdentity{Certificates: []tls.Certificate{ca.Issue(t, nil).Parse(t)}}
		if err := p.try(t, good.Config()); err != nil {
			t.Fatalf("%s: a member: %v", p.name, err)
		}
		if p.usage == x509.ExtKeyUsageClientAuth {
			if err := p.try(t, revoked.Config()); err != nil {
				t.Fatalf("%s: a member of an authority that will be removed: %v", p.name, err)
			}
		}
	}
	if err := os.WriteFile(files.CAFile, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	kinds, attempts, accepted := map[string]bool{}, 0, []string{}
	reject := func(p tlsEntryPoint, kind string, c *tls.Config) {
		kinds[kind] = true
		attempts++
		if p.try(t, c) == nil {
			accepted = append(accepted, p.name+": "+kind)
		}
	}
	for _, p := range points {
		bad := peertest.BadIdentities(t, ca, p.usage)
		bad = append(bad, peertest.BadIdentity{Name: "an authority that was removed", Certificates: revoked.Certificates})
		client := peertest.BadIdentity{Name: "a client", Certificates: []tls.Certificate{ca.Issue(t, peertest.AsClient("envoy")).Parse(t)}}
		if p.members {
			bad = append(bad, client)
		} else if err := p.try(t, client.Config()); err != nil {
			t.Errorf("%s: a client: %v", p.name, err)
		}
		if p.name == "fetch from a member" {
			bad = append(bad, peertest.BadIdentity{Name: "another member", Certificates: []tls.Certificate{ca.Issue(t, peertest.AsMember("o")).Parse(t)}})
		}
		for _, b := range bad {
			if p.usage == x509.ExtKeyUsageServerAuth && len(b.Certificates) == 0 {
				continue // a TLS server needs a certificate
			}
			reject(p, b.Name, b.Config())
		}
		reject(p, "plain text", nil)
	}
	for _, reason := range mtls.Reasons() {
		if got := s.Metric("ringside_peer_tls_rejected_total", fmt.Sprintf("reason=%q", reason)); got == 0 && reason != mtls.ReasonMember {
			t.Errorf("no rejection is counted as %s", reason)
		}
	}
	report(t, promise{
		number: "E1", n: attempts, held: len(accepted) == 0,
		done:   fmt.Sprintf("%d kinds of bad identity at the %d TLS entry points of a sidecar", len(kinds), len(points)),
		figure: fmt.Sprintf("%d of %d accepted%s", len(accepted), attempts, first(accepted)),
	})
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return ", such as " + list[0]
}
