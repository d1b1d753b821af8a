//go:build !noxds

package publisher

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // for clients that compress
	grpcstatus "google.golang.org/grpc/status"
)

const (
	// maxTypes limits the resource types that one stream may request; there are about ten. The library waits for all of them
	// with one reflect.Select, which panics at 65 536.
	maxTypes = 32
	// maxNames limits the resource names of a stream; each type has one. In the incremental protocol the names of all
	// requests add up, and the stream ends at the limit.
	maxNames = 4096
)

// Register adds the service to a server.
func (p *Publisher) Register(server grpc.ServiceRegistrar) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, &ads{publisher: p})
}

// recovered ends the stream of a client whose message causes a panic, instead of the process.
func (p *Publisher) recovered(stream func() error) (err error) {
	defer func() {
		if v := recover(); v != nil { //guard:panic-of-xds-client-ends-process
			p.config.Defect(fmt.Errorf("panic in the stream of an xDS client: %v\n%s", v, debug.Stack()))
			err = grpcstatus.Error(codes.Internal, "the publisher has a defect; see its log")
		}
	}()
	return stream()
}

// Stop ends all streams, and new ones at once. Clients keep their ring and try again until there is a publisher.
func (p *Publisher) Stop() {
	p.mu.Lock()
	p.stopped = true
	if p.delay != nil {
		p.delay.Stop()
	}
	p.mu.Unlock()
	p.cancel()
}

// enter counts a new stream.
func (p *Publisher) enter() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.status.Clients >= p.config.MaxStreams {
		p.status.ClientsRefused++
		return grpcstatus.Errorf(codes.ResourceExhausted, "the limit of %d clients is reached", p.config.MaxStreams)
	}
	p.status.Clients++
	return nil
}

func (p *Publisher) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Clients--
}

func (p *Publisher) refusedClient() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.ClientsRefused++
}

// awaitRing waits for the first list of members. Clients would take a response without endpoints for an empty ring.
func (p *Publisher) awaitRing(ctx context.Context) error {
	select {
	case <-p.known:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-p.ctx.Done():
		return errStopped
	}
}

// errStopped lets clients try again.
var errStopped = grpcstatus.Error(codes.Unavailable, "the publisher is stopping")

// ads is the service. The library's own server would link the services and messages of every resource type.
type ads struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	publisher *Publisher
}

// StreamAggregatedResources implements the state-of-the-world protocol.
func (a *ads) StreamAggregatedResources(
	raw discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer,
) error {
	s := &sotwStream{AggregatedDiscoveryService_StreamAggregatedResourcesServer: raw, guard: guard{publisher: a.publisher}}
	return s.guard.run(raw.Context(), func() error { return a.publisher.sotw.StreamHandler(s, resource.AnyType) })
}

// DeltaAggregatedResources implements the incremental protocol.
func (a *ads) DeltaAggregatedResources(
	raw discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer,
) error {
	s := &deltaStream{AggregatedDiscoveryService_DeltaAggregatedResourcesServer: raw, guard: guard{publisher: a.publisher}}
	return s.guard.run(raw.Context(), func() error { return a.publisher.delta.DeltaStreamHandler(s, resource.AnyType) })
}

// sotwStream checks each request before the library gets it.
type sotwStream struct {
	discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer
	guard guard
}

// Recv implements stream.Stream.
func (s *sotwStream) Recv() (*discoveryv3.DiscoveryRequest, error) {
	q, err := s.AggregatedDiscoveryService_StreamAggregatedResourcesServer.Recv()
	if err != nil {
		return nil, err
	}
	if err := s.guard.check(q.GetNode(), q.GetTypeUrl(), len(q.GetResourceNames()), q.GetErrorDetail()); err != nil {
		return nil, err
	}
	if q.GetErrorDetail() != nil {
		// A NACK has the version that the client keeps: "" or that of another process when it has none of this one. The
		// cache would respond to that with the rejected update, the client would reject it again, and so on without end.
		q.VersionInfo = s.guard.publisher.prefix
	}
	return q, nil
}

// deltaStream is the same for the incremental protocol.
type deltaStream struct {
	discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	guard guard
	named int // resource names in all requests so far
}

// Recv implements stream.DeltaStream.
func (s *deltaStream) Recv() (*discoveryv3.DeltaDiscoveryRequest, error) {
	q, err := s.AggregatedDiscoveryService_DeltaAggregatedResourcesServer.Recv()
	if err != nil {
		return nil, err
	}
	s.named += len(q.GetResourceNamesSubscribe()) + len(q.GetResourceNamesUnsubscribe()) + len(q.GetInitialResourceVersions())
	if err := s.guard.check(q.GetNode(), q.GetTypeUrl(), s.named, q.GetErrorDetail()); err != nil {
		return nil, err
	}
	return q, nil
}

// guard enforces the limits of one stream.
type guard struct {
	publisher *Publisher
	node      *corev3.Node    // of the first request; clients need not repeat it
	types     map[string]bool // requested so far

	mu  sync.Mutex // guards err: the library receives in its own goroutine
	err error      // why the stream ends; the library would end it without an error
}

func (g *guard) run(ctx context.Context, stream func() error) error {
	if err := g.publisher.enter(); err != nil {
		return err
	}
	defer g.publisher.leave()
	if err := g.publisher.awaitRing(ctx); err != nil {
		return err
	}
	if err := g.publisher.recovered(stream); err != nil {
		return err
	}
	if g.publisher.ctx.Err() != nil {
		return errStopped
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// check records a NACK, and ends a stream that exceeds a limit.
func (g *guard) check(node *corev3.Node, typeURL string, names int, nack *status.Status) error {
	if node != nil {
		g.node = node
	}
	if g.types == nil {
		g.types = make(map[string]bool)
	}
	g.types[typeURL] = true
	if len(g.types) > maxTypes || names > maxNames {
		g.publisher.refusedClient()
		return g.fail(grpcstatus.Errorf(codes.ResourceExhausted,
			"the limit of a stream is %d types and %d resource names", maxTypes, maxNames))
	}
	if nack != nil {
		g.publisher.nacked(g.node, typeURL, nack.GetMessage())
	}
	return nil
}

func (g *guard) fail(err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = err
	return err
}
