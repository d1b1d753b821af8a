package peer

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/client"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer/peererror"
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

// WriteMany implements kv.Peer. It sends a batch at most once, and only on a connection that is ready.
func (p *peer) WriteMany(ctx context.Context, cs []kv.Change) []kv.Outcome {
	resp, err := p.writeBatch(ctx, cs)
	if err != nil {
		return slices.Repeat([]kv.Outcome{{Err: err, Alone: errors.Is(err, errUnimplemented)}}, len(cs)) //guard:batch-for-an-older-release-fails
	}
	outcomes := make([]kv.Outcome, len(cs))
	for i := range cs {
		outcomes[i] = p.written(resp, i)
	}
	return outcomes
}

func (p *peer) writeBatch(ctx context.Context, cs []kv.Change) (*peerv1.WriteBatchResponse, error) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.exit()
	conn, err := p.ready(ctx)
	if err != nil {
		return nil, p.unreachable(err)
	}
	req := wire.WriteBatchRequest(cs, p.pool.RingID())
	var receiver grpcpeer.Peer // set when the request may have been sent
	resp, err := attempt(ctx, p, func(ctx context.Context) (*peerv1.WriteBatchResponse, error) {
		return peerv1.NewPeerClient(conn).WriteBatch(ctx, req, grpc.Peer(&receiver), limitOf(peerv1.Peer_WriteBatch_FullMethodName))
	})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return nil, p.unreachable(errUnimplemented)
	case err != nil:
		return nil, p.writeError(err, receiver.Addr != nil)
	}
	p.answered()
	if resp.GetRingId() != req.GetRingId() {
		p.pool.counters.disagreements.Add(1)
	}
	return resp, nil
}

// written converts the outcome of one change of a batch.
func (p *peer) written(resp *peerv1.WriteBatchResponse, i int) kv.Outcome {
	if i >= len(resp.GetOutcomes()) { //guard:missing-outcome-counts-as-written
		return kv.Outcome{Err: peererror.UnknownOutcome(p.annotate(errors.New("it sent too few outcomes")))}
	}
	o := resp.GetOutcomes()[i]
	if len(o.GetStatus()) == 0 {
		return kv.Outcome{Answer: wire.Written(o, p.member.ID)}
	}
	return kv.Outcome{Err: p.writeError(peererror.Decode(o.GetStatus()), true)}
}
