package servers

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/record"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/datasets"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/memberlist"
	"github.com/ringside-cache/ringside/sidecar/peer/mtls"
	"github.com/ringside-cache/ringside/sidecar/peer/server"
	"github.com/ringside-cache/ringside/sidecar/peer/service"
)

// PeersConfig is what Peers are made of.
type PeersConfig struct {
	Self ring.Member // this member
	// Record returns its record while it is a member, else nothing.
	Record   func(record []byte) []byte
	Members  *memberlist.Feed  // for clients of the ring
	TLS      *mtls.Credentials // nil for plain text
	Pool     *peer.Pool
	Datasets *datasets.Set
	// Inspect describes this member to the consoles of other members.
	Inspect func() *peerv1.InspectResponse
	// Explain describes what this member has of a key.
	Explain func(dataset, key string) []byte
	// History returns what this member recorded after an interval, for the consoles of other members.
	History func(after int64) []byte
	// Tracer traces the calls; nil: none.
	Tracer *tracing.Tracer
	// Budget limits the bytes that callers make the process use.
	Budget *budget.Budget
	// Defect is called with each panic of a handler.
	Defect func(error)
	// Applications serves clients that route by the ring.
	Applications *local.Server
	// ReachBack pings the member with a node id; see service.Config.
	ReachBack func(ctx context.Context, node string) (known bool, err error)
	// Changed is called with the address of each member that announces that it has joined or is leaving; may be nil.
	Changed func(addr string)
}

// Peers serves the other members, and clients that route by the ring. It is nil if the peer listener is off.
type Peers struct {
	Service *service.Service
	Server  *server.Server

	listeners *Listeners
	datasets  *datasets.Set
	requests  atomic.Int64 // of other members, except handovers
}

// NewPeers returns a server on the peer listener, or nil if that is off. It fails if other members would reject this one.
func NewPeers(listeners *Listeners, c PeersConfig) (*Peers, error) {
	ln := listeners.Find("peer")
	if ln == nil {
		return nil, nil
	}
	description, _, err := record.Encode(c.Self)
	if err != nil {
		return nil, fmt.Errorf("describe this member to others: %w", err)
	}
	p := &Peers{listeners: listeners, datasets: c.Datasets}
	p.Service = service.New(service.Config{
		Node: c.Self.ID, Datasets: p.served, Ring: c.Pool, Inspect: c.Inspect, Explain: c.Explain, History: c.History,
		Record: func() []byte { return c.Record([]byte(description)) }, Changed: c.Changed, Members: c.Members, ReachBack: c.ReachBack,
		RelayFeeds: c.Pool.RelayFeeds,                                                                           //guard:members-relay-no-feeds
		Tracer:     c.Tracer.Followed(), Budget: c.Budget, Log: c.Pool.Log(), Invalidate: c.Datasets.Invalidate, //guard:invalidation-of-member-is-lost
	})
	sc := server.Config{
		Tracer: c.Tracer.Followed(),
		Fast:   p.Service.Fast(), MaxConns: ln.MaxConns, Budget: c.Budget, Defect: c.Defect, Caller: c.TLS.Caller, ConnShare: listeners.ConnShare("peer"),
	}
	var handshake func(net.Conn) (net.Conn, error)
	if c.TLS != nil {
		config := c.TLS.ServerConfig()
		sc.Credentials = c.TLS
		handshake = func(accepted net.Conn) (net.Conn, error) { return c.TLS.Handshake(accepted, config) }
	}
	sc.Direct = func(ln net.Listener) error { return c.Applications.ServeRouted(ln, handshake) }
	p.Server = server.New(sc)
	p.Service.Register(p.Server)
	return p, nil
}

// Start serves until Stop.
func (p *Peers) Start(context.Context) error {
	if p != nil {
		p.listeners.serve("peer", p.Server.Serve)
	}
	return nil
}

// Stop lets calls in flight end until ctx is done, and then cuts them off.
func (p *Peers) Stop(ctx context.Context) {
	if p != nil {
		p.Server.Stop(ctx)
	}
}

// Requests counts the requests of other members that a leaving member waits for. New owners of its keys request handovers for
// seconds afterwards; these do not count, because the new owner loads if it gets no answer.
func (p *Peers) Requests() int64 { return p.requests.Load() }

func (p *Peers) served(name string) (service.Dataset, bool) {
	d := p.datasets.Lookup(name)
	return counted{d, &p.requests}, d != nil
}

// counted turns a dataset into one that counts requests.
type counted struct {
	*cache.Dataset
	requests *atomic.Int64
}

// Serve implements service.Dataset.
func (c counted) Serve(ctx context.Context, q kv.Query) (kv.Answer, error) {
	if !q.MemoryOnly {
		c.requests.Add(1)
	}
	return c.Dataset.Serve(ctx, q)
}

// ServeHit implements service.Dataset.
func (c counted) ServeHit(q kv.Query, most int) (kv.Answer, bool) {
	a, ok := c.Dataset.ServeHit(q, most)
	if ok && !q.MemoryOnly {
		c.requests.Add(1)
	}
	return a, ok
}

// ServeWriteMany implements service.Dataset.
func (c counted) ServeWriteMany(ctx context.Context, changes []kv.Change) []kv.Result {
	c.requests.Add(int64(len(changes)))
	return c.Dataset.ServeWriteMany(ctx, changes)
}

// ServeWrite implements service.Dataset.
func (c counted) ServeWrite(ctx context.Context, change kv.Change) (kv.Answer, error) {
	c.requests.Add(1)
	return c.Dataset.ServeWrite(ctx, change)
}
