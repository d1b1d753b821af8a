package peer

import (
	"cmp"
	"context"
	"errors"

	"google.golang.org/grpc"
	grpcpeer "google.golang.org/grpc/peer"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/client"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer/wire"
)

var errNotReady = errors.New("no connection to it could be made")

// Write implements kv.Peer. It sends a write at most once, and only on a connection that is ready.
func (p *peer) Write(ctx context.Context, c kv.Change) (kv.Answer, error) {
	if err := wire.CheckValue(c.Value); err != nil {
		return kv.Answer{}, err
	}
	if err := p.enter(); err != nil {
		return kv.Answer{}, err
	}
	defer p.exit()
	conn, err := p.ready(ctx)
	if err != nil {
		return kv.Answer{}, p.unreachable(err)
	}
	return p.send(ctx, conn, c)
}

// ready waits for a connection, at most PingAfter. If the call itself waited for one, an error would not tell whether the
// write was sent.
func (p *peer) ready(ctx context.Context) (*client.Client, error) {
	conn, err := p.connection()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.pool.config.PingAfter, errNotReady)
	defer cancel()
	if err := conn.Connect(ctx); err != nil {
		return nil, p.notReady(cmp.Or(context.Cause(ctx), err))
	}
	return conn, nil
}

// notReady counts a failure of the member, unless the caller's context ended first.
func (p *peer) notReady(why error) error {
	if errors.Is(why, errNotReady) {
		p.countFailure()
	}
	return why
}

func (p *peer) send(ctx context.Context, conn *client.Client, c kv.Change) (kv.Answer, error) {
	req := wire.WriteRequest(c, p.pool.RingID())
	var receiver grpcpeer.Peer // set when the request may have been sent
	resp, err := attempt(ctx, p, func(ctx context.Context) (*peerv1.WriteResponse, error) {
		return peerv1.NewPeerClient(conn).Write(ctx, req, grpc.Peer(&receiver), p.pool.limits.answer)
	})
	if err != nil {
		return kv.Answer{}, p.writeError(err, receiver.Addr != nil)
	}
	p.answered()
	p.compareRings(req.GetRingId(), resp.GetEntry(), c.Failover)
	return wire.Answer(resp.GetEntry(), p.member.ID), nil
}
