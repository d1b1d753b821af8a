package xds

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	grpcstatus "google.golang.org/grpc/status"
)

const (
	// maxRequestBytes is above what an Envoy says of itself: its node lists every extension, some 100 KiB.
	maxRequestBytes = 1 << 20
	// maxTypes bounds the types that one stream may ask for; there are some ten. The library waits for all of them with
	// one reflect.Select, which panics at 65 536.
	maxTypes = 32
	// maxNames bounds the resources that a stream may have named; each type has one. A stream of increments, where the
	// names of all requests add up, starts anew after so many.
	maxNames = 4096
	// handshakeTimeout bounds the time from accept to the end of the HTTP/2 preface.
	handshakeTimeout = 5 * time.Second
)

func (f *Feed) newGRPC() *grpc.Server {
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxRequestBytes),
		grpc.MaxConcurrentStreams(uint32(f.config.MaxStreams)),
		grpc.ConnectionTimeout(handshakeTimeout),
		// A proxy that is gone without a goodbye is noticed, and does not count as a subscriber for ever.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, &ads{feed: f})
	return server
}

// Serve answers clients on ln until Stop; then it returns nil. It closes ln.
func (f *Feed) Serve(ln net.Listener) error {
	if err := f.grpc.Serve(ln); !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil // Stop came first
}

// Stop ends all streams. Clients keep the ring that they have, and look for a feed until there is one again.
func (f *Feed) Stop() {
	f.mu.Lock()
	f.stopped = true
	if f.gather != nil {
		f.gather.Stop()
	}
	f.mu.Unlock()
	f.end()
	f.grpc.Stop()
}

// enter counts a stream in.
func (f *Feed) enter() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.status.Subscribers >= f.config.MaxStreams {
		f.status.Turned++
		return grpcstatus.Errorf(codes.ResourceExhausted, "the feed has %d clients, as many as it may", f.config.MaxStreams)
	}
	f.status.Subscribers++
	return nil
}

func (f *Feed) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Subscribers--
}

func (f *Feed) turned() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Turned++
}

// awaitRing waits for the first list of members. An answer without endpoints would be taken as an empty ring.
func (f *Feed) awaitRing(ctx context.Context) error {
	select {
	case <-f.known:
		return nil
	case <-ctx.Done(): // Stop ends it, too
		return ctx.Err()
	}
}

// ads is the service. The library's own server would bring services for every type, and their messages, with it.
type ads struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	feed *Feed
}

// StreamAggregatedResources implements the state-of-the-world protocol.
func (a *ads) StreamAggregatedResources(
	raw discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer,
) error {
	s := &sotwStream{AggregatedDiscoveryService_StreamAggregatedResourcesServer: raw, guard: guard{feed: a.feed}}
	return s.guard.run(raw.Context(), func() error { return a.feed.sotw.StreamHandler(s, resource.AnyType) })
}

// DeltaAggregatedResources implements the incremental protocol.
func (a *ads) DeltaAggregatedResources(
	raw discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer,
) error {
	s := &deltaStream{AggregatedDiscoveryService_DeltaAggregatedResourcesServer: raw, guard: guard{feed: a.feed}}
	return s.guard.run(raw.Context(), func() error { return a.feed.delta.DeltaStreamHandler(s, resource.AnyType) })
}

// sotwStream is a stream whose requests are looked at before the library sees them.
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
		// A client that refuses says which version it keeps: "" or that of another process when it has none of ours. The
		// cache would then send the same once more, the client refuse it once more, and so on without pause.
		q.VersionInfo = s.guard.feed.prefix
	}
	return q, nil
}

// deltaStream is what sotwStream is, for increments.
type deltaStream struct {
	discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	guard guard
	named int // resources, by all requests so far
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

// guard keeps one stream within its bounds.
type guard struct {
	feed  *Feed
	node  *corev3.Node    // of the first request; clients need not repeat it
	types map[string]bool // that were asked for

	mu  sync.Mutex // guards err: the library receives in a goroutine of its own
	err error      // why the stream ends; the library would end it without a word
}

func (g *guard) run(ctx context.Context, stream func() error) error {
	if err := g.feed.enter(); err != nil {
		return err
	}
	defer g.feed.leave()
	if err := g.feed.awaitRing(ctx); err != nil {
		return err
	}
	if err := stream(); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

// check notes a refusal, and ends a stream that asks for too much.
func (g *guard) check(node *corev3.Node, typeURL string, names int, refusal *status.Status) error {
	if node != nil {
		g.node = node
	}
	if g.types == nil {
		g.types = make(map[string]bool)
	}
	g.types[typeURL] = true
	if len(g.types) > maxTypes || names > maxNames {
		g.feed.turned()
		return g.fail(grpcstatus.Errorf(codes.ResourceExhausted,
			"a stream may ask for %d types and name %d resources", maxTypes, maxNames))
	}
	if refusal != nil {
		g.feed.refused(g.node, typeURL, refusal.GetMessage())
	}
	return nil
}

func (g *guard) fail(err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = err
	return err
}
