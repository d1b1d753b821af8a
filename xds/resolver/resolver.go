//go:build !noxds

package resolver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/xds/resources"
)

const (
	// maxListBytes limits one response: about 20 000 members.
	maxListBytes = 4 << 20
	// connectTimeout limits one attempt to connect.
	connectTimeout = 2 * time.Second
	// minWait and maxWait limit the wait before the next publisher is tried; it doubles. Thousands of clients may lose the
	// same publisher at once, and can wait: the last list stays in use.
	minWait, maxWait = 500 * time.Millisecond, 10 * time.Second
	// pingEvery and pongTimeout find a publisher that is gone without closing the connection. It allows a ping every 10 s.
	pingEvery, pongTimeout = 15 * time.Second, 5 * time.Second
)

// Resolver is the ring.Directory of a sidecar that receives the ring from publishers and is not on the ring itself.
type Resolver struct {
	config Config

	mu       sync.Mutex // guards the rest
	status   Status
	reported bool      // OnEvent was called for the present outage
	since    time.Time // beginning of the present outage
}

var _ ring.Directory = (*Resolver)(nil)

// New returns a Resolver. It needs at least one address.
func New(c Config) (*Resolver, error) {
	if len(c.Addresses) == 0 {
		return nil, errors.New("xds: no address of a publisher")
	}
	return &Resolver{config: c.withDefaults(), since: time.Now()}, nil
}

// Status returns a snapshot.
func (r *Resolver) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	if s.Publisher == "" {
		s.ContactAge = time.Since(r.since)
	}
	return s
}

// Register implements ring.Directory. It only waits for ctx: a Resolver is not on the ring.
func (r *Resolver) Register(ctx context.Context, _ ring.Member) error {
	<-ctx.Done()
	return nil
}

// Resolve implements ring.Directory. It tries one publisher after the other, beginning with a random one so that clients
// spread. It applies nothing while there is no publisher, nor a list with an empty ring.
func (r *Resolver) Resolve(ctx context.Context, apply func([]ring.Member)) error {
	wait := backoff.Backoff{First: minWait, Longest: maxWait}
	for turn := rand.IntN(len(r.config.Addresses)); ; turn++ {
		addr := r.config.Addresses[turn%len(r.config.Addresses)]
		useful, err := r.session(ctx, addr, apply)
		if ctx.Err() != nil {
			return nil
		}
		if r.lost(err) {
			r.config.OnEvent("no connection to an xDS publisher; the last list of members stays in use",
				fmt.Errorf("publisher at %s: %w", addr, err))
		}
		if useful {
			wait.Reset()
		}
		if !wait.Wait(ctx) {
			return nil
		}
	}
}

// errNoList: a publisher that does not know the ring yet makes its clients wait, and another one may know it.
var errNoList = errors.New("no valid list of members in time")

// session receives lists from one publisher until an error. useful: it sent a valid list.
func (r *Resolver) session(ctx context.Context, addr string, apply func([]ring.Member)) (useful bool, err error) {
	conn, err := grpc.NewClient("passthrough:///"+addr, r.dialOptions(addr)...)
	if err != nil {
		return false, fmt.Errorf("create a gRPC client: %w", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timeout := time.AfterFunc(r.config.AnswerTimeout, func() { cancel(errNoList) })
	defer timeout.Stop()
	err = r.receive(ctx, conn, addr, func(members []ring.Member) {
		timeout.Stop()
		useful = true
		apply(members)
	})
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return useful, err
}

// receive applies each valid list until the stream ends.
func (r *Resolver) receive(ctx context.Context, conn *grpc.ClientConn, addr string, apply func([]ring.Member)) error {
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	if err != nil {
		return err
	}
	s := adsStream{stream: stream, node: r.config.Node}
	if err := s.answer(nil); err != nil {
		return err
	}
	for {
		members, err := s.next()
		switch {
		case err != nil:
			return err
		case s.rejected != nil:
			r.reject(addr, s.rejected)
		default:
			r.accept(addr, len(members))
			apply(members)
		}
	}
}

// credentials returns those for a publisher.
func (r *Resolver) credentials(addr string) credentials.TransportCredentials {
	if r.config.Credentials == nil || isLoopback(addr) {
		return insecure.NewCredentials()
	}
	return r.config.Credentials //guard:ring-from-unauthenticated-publisher
}

func isLoopback(addr string) bool {
	host, _, _ := net.SplitHostPort(addr)
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

func (r *Resolver) dialOptions(addr string) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(r.credentials(addr)),
		grpc.WithNoProxy(), // the proxy of the environment is for destinations outside of the cluster
		grpc.WithDisableServiceConfig(),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: connectTimeout}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery, Timeout: pongTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxListBytes)),
	}
}

// lost records that there is no publisher, and reports whether OnEvent must be called.
func (r *Resolver) lost(err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.status.Publisher != "" {
		r.since = time.Now()
	}
	r.status.Publisher, r.status.LastError = "", printable.Text(err.Error())
	r.status.Losses++
	report := !r.reported
	r.reported = true
	return report
}

func (r *Resolver) accept(addr string, members int) {
	r.mu.Lock()
	found := r.status.Publisher != addr
	r.status.Publisher, r.status.Members, r.status.LastError = addr, members, ""
	r.status.Updates++
	r.reported = false
	r.mu.Unlock()
	if found {
		r.config.OnEvent("connected to the xDS publisher at "+addr, nil)
	}
}

// reject calls OnEvent for the first rejected list only, until a list is accepted: a publisher that sends continuously must
// not fill the log.
func (r *Resolver) reject(addr string, err error) {
	r.mu.Lock()
	report := r.status.LastError == ""
	r.status.LastError = printable.Text(err.Error())
	r.status.NACKs++
	r.mu.Unlock()
	if report {
		r.config.OnEvent("rejected a list of members; the last one stays in use",
			fmt.Errorf("from the xDS publisher at %s: %w", addr, err))
	}
}

// adsStream is a stream of the endpoints in the state-of-the-world protocol.
type adsStream struct {
	stream   discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	node     string
	version  string // of the list in use
	rejected error  // why the last list is not valid
}

// next waits for the next list and acknowledges or rejects it. A rejected list is nil, and rejected says why.
func (s *adsStream) next() (members []ring.Member, err error) {
	r, err := s.stream.Recv()
	if err != nil {
		return nil, err
	}
	if members, s.rejected = membersIn(r); s.rejected == nil {
		s.version = r.GetVersionInfo()
	}
	return members, s.answer(r)
}

// answer requests the endpoints, and acknowledges or rejects the response r, which is nil at first.
func (s *adsStream) answer(r *discoveryv3.DiscoveryResponse) error {
	q := &discoveryv3.DiscoveryRequest{
		Node: &corev3.Node{Id: s.node}, TypeUrl: resource.EndpointType, ResourceNames: []string{resources.Name},
		VersionInfo: s.version, ResponseNonce: r.GetNonce(),
	}
	if s.rejected != nil {
		q.ErrorDetail = &status.Status{Code: int32(codes.InvalidArgument), Message: printable.Text(s.rejected.Error())}
	}
	if err := s.stream.Send(q); !errors.Is(err, io.EOF) {
		return err
	}
	return nil // the stream has ended, and the next Recv returns why
}

// membersIn finds the members in a response.
func membersIn(r *discoveryv3.DiscoveryResponse) ([]ring.Member, error) {
	if t := r.GetTypeUrl(); t != resource.EndpointType {
		return nil, fmt.Errorf("got the type %q, which was not requested", printable.Text(t))
	}
	for _, packed := range r.GetResources() {
		var list endpointv3.ClusterLoadAssignment
		if err := packed.UnmarshalTo(&list); err != nil {
			return nil, err
		}
		if list.GetClusterName() == resources.Name {
			return resources.Members(&list)
		}
	}
	return nil, fmt.Errorf("no resource is named %q", resources.Name)
}
