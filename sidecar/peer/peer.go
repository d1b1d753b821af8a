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
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

// peer is another member. It implements cache.Peer.
type peer struct {
	pool   *Pool
	member ring.Member
	ctx    context.Context // done when the peer is closed
	cancel context.CancelFunc
	onRing context.Context // done when the member has left the ring
	leave  context.CancelFunc
	turn   *sync.Mutex // of the goroutine that follows; shared by all peers of one member

	heard    atomic.Int64 // pool.now of the last sign of life
	asked    atomic.Int64 // pool.now of the last answer
	calls    atomic.Int64 // fetches and writes under way
	failures atomic.Int32 // calls in a row that found the member away
	broken   atomic.Bool  // the breaker is open
	silences atomic.Int64 // times that the member was found silent

	following atomic.Bool // a goroutine follows the member, or has done so until it left the ring

	mu      sync.Mutex // guards the rest; locked before Pool.mu
	conn    *grpc.ClientConn
	socket  net.Conn      // the latest one below conn
	probing chan struct{} // closed when the ping has ended that all silent calls wait for; nil when there is none
	closed  bool
}

func newPeer(p *Pool, m ring.Member) *peer {
	peer := &peer{pool: p, member: m, turn: new(sync.Mutex)}
	peer.ctx, peer.cancel = context.WithCancel(p.ctx)
	peer.onRing, peer.leave = context.WithCancel(peer.ctx)
	return peer
}

// ID implements cache.Peer.
func (p *peer) ID() string { return p.member.ID }

var (
	errClosed   = errors.New("it has left the ring, or this member is stopping")
	errConns    = errors.New("the bound of connections is reached")
	errBroken   = errors.New("its breaker is open")
	errOverload = errors.New("the bound of calls under way is reached")
)

// Fetch implements cache.Peer. The deadline of ctx travels with the request, less the time that has passed.
func (p *peer) Fetch(ctx context.Context, q cache.Query) (cache.Answer, error) {
	p.pool.counters.fetches.Add(1)
	if err := p.enter(); err != nil {
		return cache.Answer{}, err
	}
	defer p.calls.Add(-1)
	conn, err := p.connection()
	if err != nil {
		return cache.Answer{}, p.unreachable(err)
	}
	began := p.pool.now()
	req := p.request(q)
	resp, err := attempt(ctx, p, peerv1.NewPeerClient(conn).Fetch, req)
	if err != nil {
		return cache.Answer{}, p.failure(ctx, began, err)
	}
	p.answered()
	p.compare(req.GetRingId(), resp, q.Failover || q.MemoryOnly)
	return p.answer(resp), nil
}

// enter counts a call as under way, unless the member is not to be asked or is asked enough already.
func (p *peer) enter() error {
	if p.broken.Load() {
		return p.unreachable(errBroken)
	}
	if p.calls.Add(1) > p.pool.config.MaxCalls { //guard:fetches-one-member-without-bound
		p.calls.Add(-1)
		p.pool.counters.refused.Add(1)
		return &cache.Error{Kind: cache.KindOverloaded, RetryAfter: retryAfter, Err: p.about(errOverload)}
	}
	return nil
}

func (p *peer) request(q cache.Query) *peerv1.FetchRequest {
	return &peerv1.FetchRequest{
		Dataset:    q.Dataset,
		Key:        q.Key,
		RingId:     p.pool.RingID(),
		Failover:   q.Failover,
		NoCache:    q.NoCache,
		MemoryOnly: q.MemoryOnly,
		MinVersion: q.MinVersion,
		MaxAgeNs:   int64(q.MaxAge),
		Tag:        q.Tag,
	}
}

func (p *peer) answer(r *peerv1.FetchResponse) cache.Answer {
	source := cache.SourceLoad
	if r.GetFromMemory() {
		source = cache.SourcePeerHit
	}
	return cache.Answer{
		Value:    r.GetValue(),
		NotFound: r.GetAbsent(),
		Version:  r.GetVersion(),
		Age:      time.Duration(r.GetAgeNs()),
		Fresh:    time.Duration(r.GetFreshNs()),
		Stale:    r.GetStale(),
		Source:   source,
		Took:     time.Duration(max(0, r.GetTookNs())),
		Owner:    p.member.ID,
		Detail:   r.GetDetail(),
	}
}

// compare notices that the member has another ring. A successor and a previous owner are asked for keys that are not
// theirs: from them, elsewhere is set, "not owner" is no disagreement.
func (p *peer) compare(ringID uint64, resp *peerv1.FetchResponse, elsewhere bool) {
	if resp.GetRingId() != ringID || resp.GetNotOwner() && !elsewhere {
		p.pool.counters.disagreements.Add(1)
	}
}

// connection makes the member's connection at the first call. grpc connects it, and connects it again, on its own.
func (p *peer) connection() (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	if p.conn == nil {
		if err := p.openLocked(); err != nil {
			return nil, err
		}
	}
	return p.conn, nil
}

func (p *peer) openLocked() error {
	if p.pool.conns.Add(1) > p.pool.config.MaxConns {
		p.pool.conns.Add(-1)
		p.pool.counters.connsRefused.Add(1)
		return errConns
	}
	// passthrough: the directory has resolved the address already, and nobody's DNS may add a service config.
	conn, err := grpc.NewClient("passthrough:///"+p.member.Addr, p.dialOptions()...)
	if err != nil {
		p.pool.conns.Add(-1)
		return fmt.Errorf("make a client for %q: %w", p.member.Addr, err)
	}
	p.conn = conn
	return nil
}

const (
	// connectTimeout bounds one try to connect, TLS included. Backoff stays below it, so that a member that is back is
	// found within about a second.
	connectTimeout = time.Second
	// idleTimeout closes a connection that nobody uses.
	idleTimeout = 5 * time.Minute
	// bufferBytes is that of grpc's read and write buffers: values are small, and connections are many.
	bufferBytes = 4 << 10
	// maxHeaderBytes bounds the header list of a request or an answer, error texts included.
	maxHeaderBytes = 16 << 10
)

func (p *peer) dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(p.pool.config.Credentials),
		grpc.WithContextDialer(p.dial), // it also keeps grpc from using a proxy named in the environment
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithDisableHealthCheck(),
		grpc.WithIdleTimeout(idleTimeout),
		grpc.WithConnectParams(grpc.ConnectParams{
			MinConnectTimeout: connectTimeout,
			Backoff: backoff.Config{
				BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: connectTimeout,
			},
		}),
		// A net below the silence rule: it finds what died while no call was waiting.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 5 * time.Second}),
		grpc.WithReadBufferSize(bufferBytes),
		grpc.WithWriteBufferSize(bufferBytes),
		grpc.WithMaxHeaderListSize(maxHeaderBytes),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(p.pool.config.MaxAnswerBytes)),
	}
}

// dial says hello on a new socket and remembers it, so that silence can cut it.
func (p *peer) dial(ctx context.Context, addr string) (net.Conn, error) {
	var dialer net.Dialer
	socket, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if _, err := socket.Write([]byte(hello)); err != nil { // a few bytes fit into the buffer of a new socket
		_ = socket.Close()
		return nil, fmt.Errorf("say hello: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.socket = socket
	return socket, nil
}

// cut closes the socket, which ends every call on it at once. grpc.ClientConn.Close would first wait, for a second or
// more, for a member that is silent to take its GOAWAY.
func (p *peer) cut() {
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

// about says which member err is about.
func (p *peer) about(err error) error {
	return fmt.Errorf("member %s at %s: %w", p.member.ID, p.member.Addr, err)
}
