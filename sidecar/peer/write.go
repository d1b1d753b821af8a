package peer

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

var errNotReady = errors.New("no connection to it could be made")

// Write implements cache.Peer. A write is sent at most once: on a connection that is there, or not at all.
func (p *peer) Write(ctx context.Context, c cache.Change) (cache.Answer, error) {
	p.pool.counters.writes.Add(1)
	if err := checkValue(c.Value); err != nil {
		return cache.Answer{}, err
	}
	if err := p.enter(); err != nil {
		return cache.Answer{}, err
	}
	defer p.calls.Add(-1)
	conn, err := p.ready(ctx)
	if err != nil {
		return cache.Answer{}, p.unreachable(err)
	}
	return p.send(ctx, conn, c)
}

// ready waits for a connection, for SilenceAfter at most: without it, a write would wait on a call of which nobody could
// tell whether it was sent.
func (p *peer) ready(ctx context.Context) (*grpc.ClientConn, error) {
	conn, err := p.connection()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.pool.config.SilenceAfter, errNotReady)
	defer cancel()
	if conn.GetState() == connectivity.TransientFailure {
		conn.ResetConnectBackoff()
	}
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if state == connectivity.Idle {
			conn.Connect()
		}
		if !conn.WaitForStateChange(ctx, state) {
			p.missing(context.Cause(ctx))
			return nil, context.Cause(ctx)
		}
	}
	return conn, nil
}

// missing counts a member that has no connection. A caller that went away first says nothing about it.
func (p *peer) missing(why error) {
	if errors.Is(why, errNotReady) {
		p.fail()
	}
}

func (p *peer) send(ctx context.Context, conn *grpc.ClientConn, c cache.Change) (cache.Answer, error) {
	req := p.writeRequest(c)
	var receiver grpcpeer.Peer // filled in once there is a stream to the member
	resp, err := attempt(ctx, p, peerv1.NewPeerClient(conn).Write, req, grpc.Peer(&receiver))
	if err != nil {
		return cache.Answer{}, p.outcome(err, receiver.Addr != nil)
	}
	p.answered()
	p.compare(req.GetRingId(), resp.GetEntry(), c.Failover)
	return p.answer(resp.GetEntry()), nil
}

// outcome classes what came of a write instead of an answer.
func (p *peer) outcome(err error, sent bool) error {
	s := status.Convert(err)
	if e := fromStatus(s, toWrite); e != nil {
		p.hear()
		e.Err = p.about(e.Err)
		return e
	}
	if s.Code() == codes.Unavailable {
		p.fail()
	}
	//guard:write-sent-made-elsewhere-too
	if !sent || s.Code() == codes.NotFound { // another member may have the dataset
		return p.unreachable(errors.New(s.Message()))
	}
	p.pool.counters.writesUnknown.Add(1)
	return &cache.Error{Kind: cache.KindUnknown, RetryAfter: retryAfter, Err: p.about(
		fmt.Errorf("the write was sent, and no answer says whether it was made: %s", s.Message()))}
}

func (p *peer) writeRequest(c cache.Change) *peerv1.WriteRequest {
	return &peerv1.WriteRequest{
		Dataset:       c.Dataset,
		Key:           c.Key,
		RingId:        p.pool.RingID(),
		Failover:      c.Failover,
		Delete:        c.Delete,
		Value:         c.Value,
		IfAbsent:      c.If.Absent,
		IfPresent:     c.If.Present,
		IfVersion:     c.If.Version,
		IfEtag:        c.If.ETag,
		IdempotencyId: c.ID,
	}
}

func change(req *peerv1.WriteRequest) cache.Change {
	return cache.Change{
		Dataset:  req.GetDataset(),
		Key:      req.GetKey(),
		Failover: req.GetFailover(),
		Delete:   req.GetDelete(),
		Value:    req.GetValue(),
		If: cache.Condition{
			Absent: req.GetIfAbsent(), Present: req.GetIfPresent(), Version: req.GetIfVersion(), ETag: req.GetIfEtag(),
		},
		ID: req.GetIdempotencyId(),
	}
}

// Write implements peerv1.PeerServer.
func (s *Service) Write(ctx context.Context, req *peerv1.WriteRequest) (*peerv1.WriteResponse, error) {
	s.writes.Add(1)
	defer s.writing.Add(-1)
	if s.writing.Add(1) > s.config.MaxWrites { //guard:writes-callers-without-bound
		s.writesRefused.Add(1)
		return nil, toStatus(&cache.Error{Kind: cache.KindOverloaded, RetryAfter: retryAfter, Err: errOverload})
	}
	if err := checkWrite(req); err != nil {
		return nil, toStatus(err)
	}
	dataset, err := s.dataset(req.GetDataset())
	if err != nil {
		return nil, err
	}
	owns := s.owns(req, dataset)
	a, err := dataset.ServeWrite(ctx, change(req))
	if err != nil {
		return nil, toStatus(err)
	}
	return &peerv1.WriteResponse{Entry: s.response(a, owns)}, nil
}
