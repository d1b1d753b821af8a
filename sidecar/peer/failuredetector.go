package peer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/peer/wire"
)

const (
	// breakAfter consecutive failures open the breaker. A single failure may be a connection cut by a restart.
	breakAfter = 3
	// reconnectEvery is how long an open breaker waits before each ping, plus or minus a fifth, so that the members that
	// lost the same member do not return to it at the same time.
	reconnectEvery = time.Second
	// pingTimeout limits a Ping whose caller sets no deadline.
	pingTimeout = time.Second
)

// attempt makes one call and supervises it: only a ping distinguishes an owner that waits for a slow database from one
// that is gone.
func attempt[Resp any](ctx context.Context, p *peer, call func(context.Context) (Resp, error)) (Resp, error) {
	ctx, cancel := context.WithTimeout(ctx, p.pool.config.AttemptTimeout)
	defer cancel()
	timeouts := p.pingTimeouts.Load()
	timer := time.AfterFunc(p.pool.config.PingAfter, func() {
		p.pool.spawn(func() { p.supervise(ctx, cancel, timeouts) })
	})
	defer timer.Stop()
	return call(ctx)
}

// supervise cancels a call when a ping of its member times out. It ends with the call.
func (p *peer) supervise(ctx context.Context, cancel func(), timeouts int64) {
	for ctx.Err() == nil {
		if p.pingTimeouts.Load() != timeouts {
			cancel()
			return
		}
		silent := p.pool.now() - time.Duration(p.heard.Load())
		if left := p.pool.config.PingAfter - silent; left > 0 {
			backoff.Sleep(ctx, left)
			continue
		}
		select {
		case <-p.detect():
		case <-ctx.Done():
		}
	}
}

// hear records a sign of life.
func (p *peer) hear() {
	p.heard.Store(int64(p.pool.now()))
	p.failures.Store(0)
}

// detect starts a ping unless one is running, and returns a channel that is closed when it ends. By then the member has
// answered, or its breaker is open. The ping outlives the calls that wait for it, so that the ping of a call with a short
// deadline serves the next call.
func (p *peer) detect() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pinging != nil {
		return p.pinging
	}
	done := make(chan struct{})
	if !p.pool.spawn(func() { p.pingOrBreak(done) }) {
		close(done)
		return done
	}
	p.pinging = done
	return done
}

func (p *peer) pingOrBreak(done chan struct{}) {
	defer close(done)
	ctx, cancel := context.WithTimeout(p.ctx, p.pool.config.PingAfter)
	defer cancel()
	if _, err := p.ping(ctx, &peerv1.PingRequest{}); err != nil && p.ctx.Err() == nil {
		p.pool.counters.pingTimeouts.Add(1)
		p.openBreaker()
		p.pingTimeouts.Add(1)
		p.closeSocket()
	}
	p.mu.Lock()
	p.pinging = nil
	p.mu.Unlock()
}

// ping waits for a connection until ctx is done, even after failures to connect, and ends the wait between two attempts.
func (p *peer) ping(ctx context.Context, req *peerv1.PingRequest) (*peerv1.PingResponse, error) {
	conn, err := p.connection()
	if err != nil {
		return nil, err
	}
	stream, sent := p.stream.Load(), p.pool.now()
	req.Client = stream != nil && stream.client //guard:pong-has-the-position-of-another-log
	req.Feeds = stream != nil && stream.feeds
	pong, err := peerv1.NewPeerClient(conn).Ping(ctx, req, grpc.WaitForReady(true),
		limitOf(peerv1.Peer_Ping_FullMethodName))
	if err == nil {
		err = wire.CheckPong(pong)
	}
	if err == nil {
		p.hear()
		if stream != nil {
			stream.prove(sent, pong)
		}
	}
	return pong, err
}

// countFailure counts a call that failed with UNAVAILABLE.
func (p *peer) countFailure() {
	if p.failures.Add(1) >= breakAfter {
		p.openBreaker()
	}
}

// openBreaker opens the breaker until the member answers a ping. Reads never test a member whose breaker is open.
func (p *peer) openBreaker() {
	if !p.open.CompareAndSwap(false, true) {
		return
	}
	p.pool.counters.breakersOpened.Add(1)
	p.pool.spawn(p.reconnect)
}

func (p *peer) reconnect() {
	for backoff.Sleep(p.ctx, reconnectEvery*4/5+rand.N(reconnectEvery*2/5)) {
		ctx, cancel := context.WithTimeout(p.ctx, p.pool.config.PingAfter)
		_, err := p.ping(ctx, &peerv1.PingRequest{})
		cancel()
		if err == nil {
			p.open.Store(false)
			return
		}
	}
}

// ErrLeaving says that a member answers and is leaving the ring.
var ErrLeaving = errors.New("the member is leaving")

// Ping returns nil when the member answers and is not leaving. It waits a second when ctx has no deadline. The member need
// not be on the ring. An answer by another node at its address is an error.
func (p *Pool) Ping(ctx context.Context, m ring.Member) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, pingTimeout)
		defer cancel()
	}
	pong, err := p.pingMember(ctx, m, &peerv1.PingRequest{})
	switch {
	case err != nil:
		return err
	case pong.GetNode() != m.ID:
		return annotate(m, fmt.Errorf("ping: node %q answers at this address", pong.GetNode()))
	case pong.GetLeaving():
		return annotate(m, ErrLeaving)
	}
	return nil
}
