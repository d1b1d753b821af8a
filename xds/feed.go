// Package xds publishes the ring as xDS resources, so that an Envoy or a gRPC client beside an application sends each
// request to the member that owns its key. Endpoints, Cluster, Listener and Routes say what is published; a Feed serves
// that over ADS, as state of the world and as increments, and a Follower is a sidecar's client of it. DESIGN.md has the decisions and figures.
package xds

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
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
	"google.golang.org/grpc"

	"github.com/ringside-cache/ringside/ring"
)

// Config is what a Feed is made of. Every field may be left zero.
type Config struct {
	// Size is that of the ring.
	Size ring.Size
	// Gather is how long changes are gathered before clients are told of the last of them; 100 ms by default.
	Gather time.Duration
	// MaxStreams bounds the clients at once; 256 by default. A feed is for the proxies of one pod.
	MaxStreams int
	// OnRefusal is told when a client refuses an update, at most once a second. It must be quick. May be nil.
	OnRefusal func(Refusal)
	// OnUnpublishable is told which members cannot be published, and why. It must be quick and not call the Feed. May be
	// nil.
	OnUnpublishable func(error)
}

func (c Config) withDefaults() Config {
	size := ring.DefaultSize()
	c.Size = ring.Size{Min: cmp.Or(c.Size.Min, size.Min), Max: cmp.Or(c.Size.Max, size.Max)}
	c.Gather = cmp.Or(c.Gather, 100*time.Millisecond)
	c.MaxStreams = cmp.Or(c.MaxStreams, 256)
	if c.OnRefusal == nil {
		c.OnRefusal = func(Refusal) {}
	}
	if c.OnUnpublishable == nil {
		c.OnUnpublishable = func(error) {}
	}
	return c
}

// Refusal is an update that a client did not take: a NACK.
type Refusal struct {
	At time.Time
	// Node is how the client names itself, Resource the type that it refused, and Reason are its own words. All are
	// printable and bounded, whatever the client sent.
	Node, Resource, Reason string
}

// Status is a snapshot of a Feed.
type Status struct {
	// Version is that of the endpoints, as clients are told; empty before the first list of members.
	Version string
	// Endpoints are the members in it, those that are leaving included.
	Endpoints int
	// Subscribers are the streams of clients that are open, and MaxSubscribers their bound.
	Subscribers, MaxSubscribers int
	// Updates counts versions; Refusals, what clients refused; Turned, streams that were turned away or ended because
	// their client went over a bound.
	Updates, Refusals, Turned int64
	// LastRefusal is nil when there was none.
	LastRefusal *Refusal
}

// Feed serves a ring to proxies. It answers nobody before the first Publish: a client that waits keeps what it has.
type Feed struct {
	config    Config
	prefix    string // of versions: those of another process differ
	endpoints *cache.LinearCache
	sotw      sotw.Server
	delta     delta.Server
	grpc      *grpc.Server
	ctx       context.Context // ends all streams
	end       context.CancelFunc
	known     chan struct{} // closed when there is a first list of members

	mu      sync.Mutex // guards the rest
	pending []ring.Member
	gather  *time.Timer // runs while there is something pending
	stopped bool
	sent    []byte    // the endpoints as published
	told    time.Time // when OnRefusal was told last
	status  Status
}

// NewFeed returns a Feed that serves nothing yet.
func NewFeed(c Config) *Feed {
	f := &Feed{config: c.withDefaults(), prefix: strings.ToLower(rand.Text()[:8]) + "-", known: make(chan struct{})}
	f.status.MaxSubscribers = f.config.MaxStreams
	f.ctx, f.end = context.WithCancel(context.Background())
	f.endpoints = cache.NewLinearCache(resource.EndpointType, cache.WithVersionPrefix(f.prefix))
	resources := &cache.MuxCache{
		Classify:      func(q *cache.Request) string { return served(q.GetTypeUrl()) },
		ClassifyDelta: func(q *cache.DeltaRequest) string { return served(q.GetTypeUrl()) },
		Caches: map[string]cache.Cache{
			resource.EndpointType: f.endpoints,
			resource.ClusterType:  f.lazy(resource.ClusterType, func() types.Resource { return Cluster(f.config.Size) }),
			resource.ListenerType: f.lazy(resource.ListenerType, func() types.Resource { return Listener() }),
			resource.RouteType:    f.lazy(resource.RouteType, func() types.Resource { return Routes() }),
			"":                    silent{},
		},
	}
	f.sotw = sotw.NewServer(f.ctx, resources, nil)
	f.delta = delta.NewServer(f.ctx, resources, nil)
	f.grpc = f.newGRPC()
	return f
}

// lazy is a cache of one resource that never changes, made when a client first asks: an Envoy never does, and the first
// message of these types costs some 30 ms and a megabyte of descriptors.
type lazy func() *cache.LinearCache

func (f *Feed) lazy(typeURL string, build func() types.Resource) lazy {
	return sync.OnceValue(func() *cache.LinearCache {
		return cache.NewLinearCache(typeURL, cache.WithVersionPrefix(f.prefix),
			cache.WithInitialResources(map[string]types.Resource{Name: build()}))
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

// served is the key of the cache for a type. A type that is not served must have a cache, too: without one the stream
// would end, and clients ask for types that only other servers have.
func served(typeURL string) string {
	switch typeURL {
	case resource.EndpointType, resource.ClusterType, resource.ListenerType, resource.RouteType:
		return typeURL
	}
	return ""
}

// silent has nothing and never will.
type silent struct{}

func (silent) CreateWatch(*cache.Request, cache.Subscription, chan cache.Response) (func(), error) {
	return nil, nil
}

func (silent) CreateDeltaWatch(*cache.DeltaRequest, cache.Subscription, chan cache.DeltaResponse) (func(), error) {
	return nil, nil
}

func (silent) Fetch(context.Context, *cache.Request) (cache.Response, error) {
	return nil, errors.New("the feed is a stream")
}

// Publish makes members the endpoints; see Endpoints. The first list is published at once. After that changes are
// gathered, and a list that says the same as the last one is no change. An empty ring is not published. Publish does
// not keep members.
func (f *Feed) Publish(members []ring.Member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped {
		return
	}
	f.pending = append([]ring.Member(nil), members...)
	switch {
	case f.sent == nil:
		f.flushLocked()
	case f.gather == nil:
		f.gather = time.AfterFunc(f.config.Gather, f.flush)
	}
}

func (f *Feed) flush() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gather = nil
	if !f.stopped {
		f.flushLocked()
	}
}

func (f *Feed) flushLocked() {
	list, err := Endpoints(f.pending)
	if list != nil {
		err = errors.Join(err, f.sendLocked(list))
	}
	if err != nil {
		f.config.OnUnpublishable(fmt.Errorf("publish %d members to proxies: %w", len(f.pending), err))
	}
}

func (f *Feed) sendLocked(list *endpointv3.ClusterLoadAssignment) error {
	encoded, err := encode(list)
	if err != nil || bytes.Equal(encoded, f.sent) {
		return err
	}
	if err := f.endpoints.UpdateResource(Name, list); err != nil {
		return err
	}
	if f.sent == nil {
		close(f.known)
	}
	f.sent = encoded
	f.status.Updates++
	// The cache counts its updates in the same way.
	f.status.Version = f.prefix + strconv.FormatInt(f.status.Updates, 10)
	f.status.Endpoints = len(list.GetEndpoints()[0].GetLbEndpoints())
	return nil
}

// Status returns a snapshot.
func (f *Feed) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

// refused notes a NACK.
func (f *Feed) refused(node *corev3.Node, typeURL, reason string) {
	r := Refusal{At: time.Now(), Node: printable(node.GetId()), Resource: shortName(typeURL), Reason: printable(reason)}
	if f.note(r) {
		f.config.OnRefusal(r)
	}
}

// tellEvery keeps a client that refuses without pause from filling the log.
const tellEvery = time.Second

// note reports whether it is time to tell of a refusal.
func (f *Feed) note(r Refusal) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Refusals++
	f.status.LastRefusal = &r
	if r.At.Sub(f.told) < tellEvery {
		return false
	}
	f.told = r.At
	return true
}

// shortName is the last part of a type URL: ClusterLoadAssignment.
func shortName(typeURL string) string {
	return printable(typeURL[strings.LastIndexByte(typeURL, '.')+1:])
}

// maxWords bounds each text of a client that is kept.
const maxWords = 512

// printable bounds what a client said, and makes it safe for a log and a terminal.
func printable(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), maxWords)], "?")
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
}
