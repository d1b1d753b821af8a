//go:build !noxds

package publisher

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/xds/resources"
)

// Publisher serves a ring to proxies. Clients wait for the first Publish and meanwhile keep their configuration.
type Publisher struct {
	config    Config
	prefix    string // of versions; differs between processes
	endpoints *cache.LinearCache
	sotw      sotw.Server
	delta     delta.Server
	ctx       context.Context // canceled by Stop, which ends all streams
	cancel    context.CancelFunc
	known     chan struct{} // closed when there is a first list of members

	mu      sync.Mutex // guards the rest
	pending []ring.Member
	delay   *time.Timer // runs while there are pending changes
	stopped bool
	sent    []byte    // the endpoints as published
	called  time.Time // when OnNACK was last called
	status  Status
}

// New returns a Publisher that has nothing to publish yet.
func New(c Config) *Publisher {
	p := &Publisher{config: c.withDefaults(), prefix: strings.ToLower(rand.Text()[:8]) + "-", known: make(chan struct{})}
	p.status.MaxClients = p.config.MaxStreams
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.endpoints = cache.NewLinearCache(resource.EndpointType, cache.WithVersionPrefix(p.prefix))
	resources := &cache.MuxCache{
		Classify:      func(q *cache.Request) string { return served(q.GetTypeUrl()) },
		ClassifyDelta: func(q *cache.DeltaRequest) string { return served(q.GetTypeUrl()) },
		Caches: map[string]cache.Cache{
			resource.EndpointType: p.endpoints,
			resource.ClusterType:  p.lazy(resource.ClusterType, func() types.Resource { return resources.Cluster(p.config.Size) }),
			resource.ListenerType: p.lazy(resource.ListenerType, func() types.Resource { return resources.Listener() }),
			resource.RouteType:    p.lazy(resource.RouteType, func() types.Resource { return resources.Routes() }),
			"":                    empty{},
		},
	}
	p.sotw = sotw.NewServer(p.ctx, resources, nil)
	p.delta = delta.NewServer(p.ctx, resources, nil)
	return p
}

// lazy is a cache of one constant resource that is built at the first request: Envoy makes none, and the first message of
// these types costs about 30 ms and a megabyte of descriptors.
type lazy func() *cache.LinearCache

func (p *Publisher) lazy(typeURL string, build func() types.Resource) lazy {
	return sync.OnceValue(func() *cache.LinearCache {
		return cache.NewLinearCache(typeURL, cache.WithVersionPrefix(p.prefix),
			cache.WithInitialResources(map[string]types.Resource{resources.Name: build()}))
	})
}

func (l lazy) CreateWatch(q *cache.Request, s cache.Subscription, to chan cache.Response) (func(), error) {
	return l().CreateWatch(q, s, to)
}

func (l lazy) CreateDeltaWatch(q *cache.DeltaRequest, s cache.Subscription, to chan cache.DeltaResponse) (func(), error) {
	return l().CreateDeltaWatch(q, s, to)
}

func (l lazy) Fetch(ctx context.Context, q *cache.Request) (cache.Response, error) {
	return l().Fetch(ctx, q)
}

// served is the key of the cache for a type. Types that only other servers have need a cache, too: without one, a request
// for them would end the stream.
func served(typeURL string) string {
	switch typeURL {
	case resource.EndpointType, resource.ClusterType, resource.ListenerType, resource.RouteType:
		return typeURL
	}
	return ""
}

// empty is a cache that never has a resource.
type empty struct{}

func (empty) CreateWatch(*cache.Request, cache.Subscription, chan cache.Response) (func(), error) {
	return nil, nil
}

func (empty) CreateDeltaWatch(*cache.DeltaRequest, cache.Subscription, chan cache.DeltaResponse) (func(), error) {
	return nil, nil
}

func (empty) Fetch(context.Context, *cache.Request) (cache.Response, error) {
	return nil, errors.New("unary requests are not supported: use a stream")
}

// Publish makes members the endpoints; see resources.Endpoints. It publishes the first list immediately, and later ones after
// Config.Delay unless they are equal to the last one. It does not publish an empty ring, and does not keep members.
func (p *Publisher) Publish(members []ring.Member) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	p.pending = append([]ring.Member(nil), members...)
	switch {
	case p.sent == nil:
		p.flushLocked()
	case p.delay == nil:
		p.delay = time.AfterFunc(p.config.Delay, p.flush)
	}
}

func (p *Publisher) flush() {
	defer func() {
		if v := recover(); v != nil { // it is on the goroutine of a timer, where it would end the process
			p.config.Defect(fmt.Errorf("panic while publishing the members: %v\n%s", v, debug.Stack()))
		}
	}()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = nil
	if !p.stopped {
		p.flushLocked()
	}
}

func (p *Publisher) flushLocked() {
	list, err := resources.Endpoints(p.pending)
	if list != nil {
		err = errors.Join(err, p.sendLocked(list))
	}
	if err != nil {
		p.config.OnUnpublishable(fmt.Errorf("publish %d members to xDS clients: %w", len(p.pending), err))
	}
}

func (p *Publisher) sendLocked(list *endpointv3.ClusterLoadAssignment) error {
	encoded, err := resources.Encode(list)
	if err != nil || bytes.Equal(encoded, p.sent) {
		return err
	}
	if err := p.endpoints.UpdateResource(resources.Name, list); err != nil {
		return err
	}
	if p.sent == nil {
		close(p.known)
	}
	p.sent = encoded
	p.status.Updates++
	// the same number that the cache uses
	p.status.Version = p.prefix + strconv.FormatInt(p.status.Updates, 10)
	p.status.Endpoints = len(list.GetEndpoints()[0].GetLbEndpoints())
	return nil
}

// Status returns a snapshot.
func (p *Publisher) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status
}

// nacked records a NACK.
func (p *Publisher) nacked(node *corev3.Node, typeURL, reason string) {
	n := NACK{At: time.Now(), Node: printable.Text(node.GetId()), Resource: shortName(typeURL), Reason: printable.Text(reason)}
	if p.record(n) {
		p.config.OnNACK(n)
	}
}

// callEvery keeps a client that sends NACKs continuously from filling the log.
const callEvery = time.Second

// record reports whether it is time to call OnNACK.
func (p *Publisher) record(n NACK) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.NACKs++
	p.status.LastNACK = &n
	if n.At.Sub(p.called) < callEvery {
		return false
	}
	p.called = n.At
	return true
}

// shortName is the last part of a type URL: ClusterLoadAssignment.
func shortName(typeURL string) string {
	return printable.Text(typeURL[strings.LastIndexByte(typeURL, '.')+1:])
}
