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
)

const (
	// breakAfter failures in a row open the breaker: one alone may be a connection that a restart has cut.
	breakAfter = 3
	// breakFor is how long an open breaker waits before each ping, give or take a fifth, so that those who lost the
	// same member do not come back to it in step.
	breakFor = time.Second
	// pingTimeout bounds a Ping whose caller sets no deadline.
	pingTimeout = time.Second
)

// attempt makes one call and has it watched: an owner that waits for a slow database and one that is gone look the same
// until somebody asks.
func attempt[Req, Resp any](
	ctx context.Context, p *peer, call func(context.Context, Req, ...grpc.CallOption) (Resp, error), req Req,
	options ...grpc.CallOption,
) (Resp, error) {
	ctx, cancel := context.WithTimeout(ctx, p.pool.config.AttemptTimeout)
	defer cancel()
	silences := p.silences.Load()
	watch := time.AfterFunc(p.pool.config.SilenceAfter, func() {
		p.pool.spawn(func() { p.watch(ctx, cancel, silences) })
	})
	defer watch.Stop()
	return call(ctx, req, options...)
}

// watch cancels a call when its member turns out to be silent. It ends with the call.
func (p *peer) watch(ctx context.Context, cancel func(), silences int64) {
	for ctx.Err() == nil {
		if p.silences.Load() != silences {
			cancel()
			return
		}
		quiet := p.pool.now() - time.Duration(p.heard.Load())
		if left := p.pool.config.SilenceAfter - quiet; left > 0 {
			sleep(ctx, left)
			continue
		}
		select {
		case <-p.probe():
		case <-ctx.Done():
		}
	}
}

// hear notes a sign of life.
func (p *peer) hear() {
	p.heard.Store(int64(p.pool.now()))
	p.failures.Store(0)
}

// probe returns a channel that is closed when the ping under way, which it starts if there is none, has ended: then the
// member was either heard or counted as silent. The ping outlives the calls that wait for it, so that one of them with
// a short deadline finds out for the next.
func (p *peer) probe() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.probing != nil {
		return p.probing
	}
	done := make(chan struct{})
	if !p.pool.spawn(func() { p.settle(done) }) {
		close(done)
		return done
	}
	p.probing = done
	return done
}

func (p *peer) settle(done chan struct{}) {
	defer close(done)
	ctx, cancel := context.WithTimeout(p.ctx, p.pool.config.SilenceAfter)
	defer cancel()
	if _, err := p.ping(ctx); err != nil && p.ctx.Err() == nil {
		p.pool.counters.silences.Add(1)
		p.open()
		p.silences.Add(1)
		p.cut()
	}
	p.mu.Lock()
	p.probing = nil
	p.mu.Unlock()
}

// ping asks for a sign of life. It waits for a connection until ctx is done, even after failures to connect.
func (p *peer) ping(ctx context.Context) (*peerv1.PingResponse, error) {
	conn, err := p.connection()
	if err != nil {
		return nil, err
	}
	conn.ResetConnectBackoff()
	pong, err := peerv1.NewPeerClient(conn).Ping(ctx, &peerv1.PingRequest{}, grpc.WaitForReady(true))
	if err == nil {
		p.hear()
	}
	return pong, err
}

// fail counts a call that found the member away.
func (p *peer) fail() {
	if p.failures.Add(1) >= breakAfter {
		p.open()
	}
}

// open opens the breaker until a ping is answered. No fetch is ever the one that finds out.
func (p *peer) open() {
	if !p.broken.CompareAndSwap(false, true) {
		return
	}
	p.pool.counters.broken.Add(1)
	p.pool.spawn(p.mend)
}

func (p *peer) mend() {
	for sleep(p.ctx, breakFor*4/5+rand.N(breakFor*2/5)) {
		ctx, cancel := context.WithTimeout(p.ctx, p.pool.config.SilenceAfter)
		_, err := p.ping(ctx)
		cancel()
		if err == nil {
			p.broken.Store(false)
			return
		}
	}
}

// ErrLeaving says that a member answers but has said goodbye.
var ErrLeaving = errors.New("the member is leaving")

// Ping reports whether the member answers and means to stay. It waits a second when ctx has no deadline. The member
// need not be on the ring; an answer by another node at its address is an error.
func (p *Pool) Ping(ctx context.Context, m ring.Member) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, pingTimeout)
		defer cancel()
	}
	to := p.view.Load().peers[m.ID]
	if to == nil || to.member.Addr != m.Addr {
		to = newPeer(p, m)
		defer to.close()
	}
	pong, err := to.ping(ctx)
	switch {
	case err != nil:
		return to.about(fmt.Errorf("ping: %w", err))
	case pong.GetNode() != m.ID:
		return to.about(fmt.Errorf("ping: node %q answers there", pong.GetNode()))
	case pong.GetLeaving():
		return to.about(ErrLeaving)
	}
	return nil
}
