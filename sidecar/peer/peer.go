package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/client"
	"github.com/ringside-cache/ringside/sidecar/peer/peererror"
	"github.com/ringside-cache/ringside/sidecar/peer/quota"
	"github.com/ringside-cache/ringside/sidecar/peer/wire"
)

// peer is another member, with at most one connection to it. It implements kv.Peer.
type peer struct {
	pool   *Pool
	member ring.Member
	ctx    context.Context // canceled when the peer is closed
	cancel context.CancelFunc
	onRing context.Context // canceled when the member leaves the ring
	leave  context.CancelFunc
	turn   *sync.Mutex   // held by the running subscription; shared by all peers of one member
	quota  *quota.Member // of its invalidations; likewise shared

	heard        atomic.Int64 // pool.now of the last sign of life
	answeredAt   atomic.Int64 // pool.now of the last answer to a fetch or a write, also of one that came through another member
	relayedAt    atomic.Int64 // pool.now of the last fetch that another member was to answer for it
	calls        atomic.Int64 // running fetches and writes
	failures     atomic.Int32 // consecutive calls that failed with UNAVAILABLE
	open         atomic.Bool  // the breaker is open
	pingTimeouts atomic.Int64
	relaysNone   atomic.Bool  // it is of a release that relays no feeds
	restsUntil   atomic.Int64 // pool.now until which others are preferred as feed relays

	stream      atomic.Pointer[openStream] // of the subscription; nil between two streams
	subscribing atomic.Bool                // a goroutine runs the subscription, or has run it until the member left the ring

	mu      sync.Mutex // guards the rest; locked before Pool.mu
	conn    *client.Client
	socket  net.Conn      // the latest one of conn
	pinging chan struct{} // closed when the ping that all waiting calls share ends; nil when none is running
	closed  bool
}

func newPeer(p *Pool, m ring.Member) *peer {
	peer := &peer{pool: p, member: m, turn: new(sync.Mutex), quota: quota.NewMember()}
	peer.ctx, peer.cancel = context.WithCancel(p.ctx)
	peer.onRing, peer.leave = context.WithCancel(peer.ctx)
	return peer
}

// ID implements kv.Peer.
func (p *peer) ID() string { return p.member.ID }

var (
	errClosed   = errors.New("the member has left the ring, or this member is stopping")
	errMaxConns = errors.New("the limit of connections to members is reached")
	errOpen     = errors.New("its circuit breaker is open")
	errMaxCalls = errors.New("the limit of concurrent calls to it is reached")
)

// enter counts a running call. It refuses one above MaxCalls, or to a member whose breaker is open.
func (p *peer) enter() error {
	if p.open.Load() {
		return p.unreachable(errOpen)
	}
	if p.calls.Add(1) > p.pool.config.MaxCalls { //guard:fetches-to-one-member-without-limit
		p.calls.Add(-1)
		p.pool.counters.refused.Add(1)
		return peererror.Overloaded(p.annotate(errMaxCalls))
	}
	return nil
}

func (p *peer) exit() { p.calls.Add(-1) }

// connection creates the member's connection at the first call. It connects, and reconnects, by itself.
func (p *peer) connection() (*client.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	if p.conn == nil {
		if p.pool.conns.Add(1) > p.pool.config.MaxConns {
			p.pool.conns.Add(-1)
			p.pool.counters.connsRefused.Add(1)
			return nil, errMaxConns
		}
		p.conn = client.New(p.clientConfig())
	}
	return p.conn, nil
}

// connectTimeout limits one attempt to connect, TLS included. The backoff is not longer, so that a restarted member is used
// again within about a second.
const connectTimeout = time.Second

func (p *peer) clientConfig() client.Config {
	creds := p.credentials()
	return client.Config{
		Dial:           func(ctx context.Context) (net.Conn, error) { return p.dial(ctx, creds) },
		ConnectTimeout: connectTimeout, FirstBackoff: 100 * time.Millisecond,
		Authority: p.member.Addr, Secure: creds.Info().SecurityProtocol == "tls",
		Codec:          wire.NewCodec(), //guard:responses-are-decoded-without-limits
		MaxHeaderBytes: wire.MaxHeaderBytes,
		IdleTimeout:    wire.IdleTimeout,
		// The failure detector needs a waiting call; pings find connections that die without one.
		PingInterval: 30 * time.Second, PingTimeout: 5 * time.Second,
		Budget: p.pool.config.Budget, Propagate: p.pool.config.Propagate,
		Spawn: p.pool.spawn,
	}
}

// credentials require that the other side is this member, if the pool's can (see Config.Credentials).
func (p *peer) credentials() credentials.TransportCredentials {
	if c, ok := p.pool.config.Credentials.(interface {
		ForMember(id string) credentials.TransportCredentials
	}); ok {
		return c.ForMember(p.member.ID) //guard:another-member-gets-requests
	}
	return p.pool.config.Credentials
}

// limits are those of the responses that have values.
type limits struct{ answer, batch grpc.CallOption }

func newLimits(most int) limits {
	return limits{
		answer: grpc.MaxCallRecvMsgSize(min(most, wire.MaxResponse(peerv1.Peer_Fetch_FullMethodName))),
		batch:  grpc.MaxCallRecvMsgSize(min(most, wire.MaxResponse(peerv1.Peer_FetchBatch_FullMethodName))),
	}
}

// limitOf limits the response of a method.
func limitOf(method string) grpc.CallOption { return grpc.MaxCallRecvMsgSize(wire.MaxResponse(method)) }

// dial sends the preface on a new socket and keeps the socket, so that the failure detector can close it, and authenticates.
func (p *peer) dial(ctx context.Context, creds credentials.TransportCredentials) (net.Conn, error) {
	var dialer net.Dialer
	socket, err := dialer.DialContext(ctx, "tcp", p.member.Addr)
	if err != nil {
		return nil, err
	}
	if _, err := socket.Write([]byte(wire.Preface)); err != nil { // a few bytes fit into the buffer of a new socket
		_ = socket.Close()
		return nil, fmt.Errorf("send the preface: %w", err)
	}
	p.keepSocket(socket)
	conn, _, err := creds.ClientHandshake(ctx, p.member.Addr, socket)
	if err != nil {
		_ = socket.Close()
		return nil, fmt.Errorf("authenticate: %w", err)
	}
	return conn, nil
}

func (p *peer) keepSocket(socket net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.socket = socket
}

// closeSocket ends every call on the connection immediately.
func (p *peer) closeSocket() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.socket != nil {
		p.socket.Close()
	}
}

// close ends all calls and waits for them.
func (p *peer) close() {
	p.cancel()
	p.mu.Lock()
	p.closed = true
	conn := p.conn
	p.conn = nil
	p.mu.Unlock()
	if conn != nil {
		conn.Close()
		p.pool.conns.Add(-1)
	}
}
