package mtls_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/mtls"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
)

// agent is a SPIFFE Workload API on a unix socket.
type agent struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	path string

	mu      sync.Mutex // guards the rest
	answer  *workload.X509SVIDResponse
	changed chan struct{} // closed when answer changes
	server  *grpc.Server
}

func startAgent(t *testing.T) *agent {
	t.Helper()
	a := &agent{path: filepath.Join(t.TempDir(), "agent.sock"), changed: make(chan struct{})}
	a.start(t)
	t.Cleanup(a.stop)
	return a
}

func (a *agent) start(t *testing.T) {
	t.Helper()
	ln, err := net.Listen("unix", a.path)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(server, a)
	a.mu.Lock()
	a.server = server
	a.mu.Unlock()
	go func() { _ = server.Serve(ln) }()
}

func (a *agent) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.server.Stop()
}

// offer answers with identities of an authority, to present and future streams.
func (a *agent) offer(t *testing.T, ca []byte, ids ...peertest.Identity) {
	t.Helper()
	answer := &workload.X509SVIDResponse{}
	for _, id := range ids {
		leaf := id.Parse(t)
		key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		answer.Svids = append(answer.Svids, &workload.X509SVID{
			SpiffeId: leaf.Leaf.URIs[0].String(), X509Svid: leaf.Certificate[0], X509SvidKey: key, Bundle: ders(ca),
		})
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
	close(a.changed)
	a.changed = make(chan struct{})
}

func ders(pems []byte) (all []byte) {
	for {
		block, rest := pem.Decode(pems)
		if block == nil {
			return all
		}
		all, pems = append(all, block.Bytes...), rest
	}
}

// FetchX509SVID implements the Workload API.
func (a *agent) FetchX509SVID(_ *workload.X509SVIDRequest, s workload.SpiffeWorkloadAPI_FetchX509SVIDServer) error {
	if md, _ := metadata.FromIncomingContext(s.Context()); len(md.Get("workload.spiffe.io")) != 1 {
		return status.Error(codes.InvalidArgument, "the security header is missing")
	}
	for {
		a.mu.Lock()
		answer, changed := a.answer, a.changed
		a.mu.Unlock()
		if answer == nil {
			return status.Error(codes.PermissionDenied, "no identity issued")
		}
		if err := s.Send(answer); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-s.Context().Done():
			return nil
		}
	}
}

func (a *agent) credentials(t *testing.T, self string) (*mtls.Credentials, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), peertest.Timeout)
	defer cancel()
	creds, err := mtls.New(ctx, mtls.Config{WorkloadAPI: "unix://" + a.path, Scheme: peertest.Scheme(t), Self: self})
	if err == nil {
		t.Cleanup(creds.Close)
	}
	return creds, err
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(peertest.Timeout); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestIdentityComesFromTheWorkloadAPI(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	a := startAgent(t)
	// The agent knows the workload by two identities, and the second one is that of the member.
	a.offer(t, ca.PEM(), ca.Issue(t, peertest.WithPath("/other")), ca.Issue(t, nil))
	creds, err := a.credentials(t, "m")
	if err != nil {
		t.Fatal(err)
	}
	m := peertest.StartMember(t, "m", peertest.ServerCredentials(creds))
	if err := peertest.Fetch(t, peertest.StartPool(t, peer.Config{Credentials: creds}, m), "m"); err != nil {
		t.Errorf("got %v, want a fetch between two members", err)
	}

	// A new certificate of another authority.
	ca = peertest.NewAuthority(t)
	a.offer(t, ca.PEM(), ca.Issue(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(10 * time.Minute) }))
	eventually(t, "the new certificate is used", func() bool { return time.Until(creds.Stats().Expires) < 11*time.Minute })
	other := peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM())
	if err := peertest.Fetch(t, peertest.StartPool(t, peer.Config{Credentials: other}, m), "m"); err != nil {
		t.Errorf("after a rotation: got %v, want a fetch with the new authority", err)
	}

	// Something that other members would reject changes nothing and is counted.
	a.offer(t, ca.PEM(), ca.Issue(t, peertest.AsMember("n")))
	eventually(t, "the wrong certificate is counted", func() bool { return creds.Stats().Failing })
	if err := peertest.Fetch(t, peertest.StartPool(t, peer.Config{Credentials: other}, m), "m"); err != nil {
		t.Errorf("after a wrong certificate: got %v, want the last one in use", err)
	}

	// The agent restarts.
	a.stop()
	a.offer(t, ca.PEM(), ca.Issue(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(20 * time.Minute) }))
	a.start(t)
	eventually(t, "the certificate of the restarted agent is used", func() bool {
		s := creds.Stats()
		return !s.Failing && time.Until(s.Expires) > 15*time.Minute
	})
}

func TestStartExplainsWhatTheWorkloadAPILacks(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	a := startAgent(t)
	start := func(self string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := mtls.New(ctx, mtls.Config{WorkloadAPI: "unix://" + a.path, Scheme: peertest.Scheme(t), Self: self})
		return err
	}
	want := func(err error, parts ...string) {
		t.Helper()
		for _, part := range append(parts, "unix://"+a.path) {
			if err == nil || !strings.Contains(err.Error(), part) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want an error with %q", err, part)
			}
		}
	}
	want(start("m"), "no identity issued", "is this workload registered?")
	a.offer(t, ca.PEM(), ca.Issue(t, nil))
	want(start("n"), `member "m", but this member is "n" on the ring`)
	a.stop()
	want(start("m"), "is the agent running")
	if _, err := mtls.New(t.Context(), mtls.Config{WorkloadAPI: "http://x", Scheme: peertest.Scheme(t)}); err == nil {
		t.Error("got no error for an address that is not a socket")
	}
}
