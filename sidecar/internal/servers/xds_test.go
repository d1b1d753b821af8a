package servers

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"go.uber.org/zap"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ringside-cache/ringside/e2e/attack"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
	"github.com/ringside-cache/ringside/sidecar/peer/mtls"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
	"github.com/ringside-cache/ringside/xds/publisher"
	"github.com/ringside-cache/ringside/xds/resources"
)

// xdsListener is a Publisher on a listener, with a ring of one member.
type xdsListener struct {
	*Publisher
	addr          string
	budget        *budget.Budget
	running, most atomic.Int64 // handshakes
}

// serveXDS serves with TLS if there is an identity.
func serveXDS(t *testing.T, identity *mtls.Credentials) *xdsListener {
	t.Helper()
	x := &xdsListener{budget: budget.New(8 << 20)}
	at := "127.0.0.1:0"
	if identity != nil {
		x.budget, at = budget.New(128<<20), "0.0.0.0:0" // for more connections than there may be handshakes
	}
	group := task.NewGroup(func(err error) { t.Error(err) })
	listeners, err := Bind(t.Context(), []config.Address{{Name: "xds", Addr: at}}, nil, Limits{Files: 1 << 20, Budget: x.budget}, zap.NewNop(), group)
	if err != nil {
		t.Fatal(err)
	}
	x.Publisher = NewPublisher(listeners, ring.Size{}, identity, func(err error) { t.Error(err) }, zap.NewNop())
	if handshake := x.handshake; handshake != nil {
		x.handshake = func(c net.Conn) (net.Conn, error) {
			x.most.Store(max(x.most.Load(), x.running.Add(1)))
			defer x.running.Add(-1)
			return handshake(c)
		}
	}
	self := ring.Member{ID: "self", Addr: "10.0.0.1:7072"}
	x.Publish([]ring.Member{self})
	if err := x.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		x.Stop(context.Background())
		listeners.Close()
	})
	x.addr = strings.Replace(listeners.Addr("xds").String(), "[::]", "127.0.0.1", 1)
	return x
}

// stream opens a stream and returns it after its first response.
func (x *xdsListener) stream(t *testing.T) discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient {
	t.Helper()
	conn, err := grpc.NewClient(x.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	q := &discoveryv3.DiscoveryRequest{TypeUrl: resource.EndpointType, ResourceNames: []string{resources.Name}}
	if err := stream.Send(q); err != nil {
		t.Fatal(err)
	}
	if a, err := stream.Recv(); err != nil || len(a.GetResources()) != 1 {
		t.Fatalf("got %v, %v; want the ring", a, err)
	}
	return stream
}

// Before, one connection with 200 requests that lack their last byte took all that they announce.
func TestIncompleteXDSRequestsAreLimitedByTheBudget(t *testing.T) {
	x := serveXDS(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	path := discoveryv3.AggregatedDiscoveryService_StreamAggregatedResources_FullMethodName
	go attack.LastByteMissing(2, 200, publisher.MaxRequestBytes, path)(ctx, attack.TCP(x.addr))
	peertest.Eventually(t, "requests are refused", func() bool { return x.budget.Stats()[budget.Requests].Refused > 0 })
	x.stream(t)
	for _, u := range x.budget.Stats() {
		if u.Used > u.Limit {
			t.Errorf("%v: %d bytes are used, want at most %d", u.Use, u.Used, u.Limit)
		}
	}
}

func TestXDSHandshakesAreLimited(t *testing.T) {
	ca := peertest.NewAuthority(t)
	x := serveXDS(t, peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM()))
	var conns []net.Conn
	for range 2 * 64 {
		c, err := net.Dial("tcp", x.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	peertest.Eventually(t, "64 handshakes are running", func() bool { return x.running.Load() == 64 })
	x.Stop(t.Context())
	for _, c := range conns {
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := c.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
			t.Fatalf("after Stop: got %v, want a closed connection", err)
		}
	}
	if n := x.most.Load(); n != 64 {
		t.Errorf("%d handshakes ran at once, want 64", n)
	}
}

// The client reconnects because of GOAWAY, before its certificate ends the connection.
func TestXDSConnectionsEndBeforeTheCertificateOfTheirClient(t *testing.T) {
	ca := peertest.NewAuthority(t)
	x := serveXDS(t, peertest.NewCredentials(t, ca.Issue(t, nil), ca.PEM()))
	mine := ca.Issue(t, func(c *x509.Certificate) {
		peertest.AsClient("envoy")(c)
		c.NotAfter = time.Now().Add(4 * time.Second)
	}).Parse(t)
	c, err := tls.Dial("tcp", x.addr, &tls.Config{Certificates: []tls.Certificate{mine}, InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if p := c.ConnectionState().NegotiatedProtocol; p != "h2" {
		t.Fatalf("got the protocol %q, want h2", p)
	}
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(c, c)
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	warned := false
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			break
		}
		switch f := f.(type) {
		case *http2.GoAwayFrame:
			warned = f.ErrCode == http2.ErrCodeNo
		case *http2.SettingsFrame:
			if !f.IsAck() {
				err = framer.WriteSettingsAck()
			}
		case *http2.PingFrame:
			err = framer.WritePing(true, f.Data)
		}
		if err != nil {
			break
		}
	}
	if !warned {
		t.Error("got no GOAWAY before the end of the connection")
	}
}

func TestStopEndsXDSStreams(t *testing.T) {
	x := serveXDS(t, nil)
	stream := x.stream(t)
	x.Stop(t.Context())
	if _, err := stream.Recv(); err == nil {
		t.Error("the stream is open after Stop")
	}
	if n := x.Status().Clients; n != 0 {
		t.Errorf("got %d clients, want 0", n)
	}
	if n := x.listener.Conns.Open.Load(); n != 0 {
		t.Errorf("%d connections are open, want 0", n)
	}
}
