package peer

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

// FetchBatch implements cache.Peer. A batch counts as one call under way.
func (p *peer) FetchBatch(ctx context.Context, qs []cache.Query) []cache.Outcome {
	p.pool.counters.fetches.Add(int64(len(qs)))
	outcomes := make([]cache.Outcome, len(qs))
	if err := p.fetchBatch(ctx, qs, outcomes); err != nil {
		for i := range outcomes {
			outcomes[i] = cache.Outcome{Err: err, Alone: status.Code(err) == codes.Unimplemented} //guard:member-older-release-taken-dead
		}
	}
	return outcomes
}

func (p *peer) fetchBatch(ctx context.Context, qs []cache.Query, outcomes []cache.Outcome) error {
	if err := p.enter(); err != nil {
		return err
	}
	defer p.calls.Add(-1)
	conn, err := p.connection()
	if err != nil {
		return p.unreachable(err)
	}
	began := p.pool.now()
	req := &peerv1.FetchBatchRequest{Requests: make([]*peerv1.FetchRequest, len(qs))}
	for i, q := range qs {
		req.Requests[i] = p.request(q)
	}
	resp, err := attempt(ctx, p, peerv1.NewPeerClient(conn).FetchBatch, req)
	switch {
	case status.Code(err) == codes.Unimplemented: // it is of an older release
		return err
	case err != nil:
		return p.failure(ctx, began, err)
	case len(resp.GetOutcomes()) != len(qs):
		return p.unreachable(fmt.Errorf("it gave %d answers to %d questions", len(resp.GetOutcomes()), len(qs)))
	}
	p.answered()
	for i, o := range resp.GetOutcomes() {
		outcomes[i] = p.outcomeOf(ctx, began, req.Requests[i], o)
	}
	return nil
}

func (p *peer) outcomeOf(
	ctx context.Context, began time.Duration, req *peerv1.FetchRequest, o *peerv1.FetchOutcome,
) cache.Outcome {
	switch {
	case o.GetResponse() != nil:
		p.compare(req.GetRingId(), o.GetResponse(), req.GetFailover() || req.GetMemoryOnly())
		return cache.Outcome{Answer: p.answer(o.GetResponse())}
	case o.GetError() != nil:
		e := o.GetError()
		s := withRetry(status.New(codes.Code(e.GetCode()), cut(e.GetMessage())), time.Duration(e.GetRetryAfterNs()))
		return cache.Outcome{Err: p.failure(ctx, began, s.Err())}
	}
	return cache.Outcome{Alone: true}
}

// maxBatchAnswerBytes bounds the values of one answer to FetchBatch, a last one aside. It is well below what a Pool takes.
const maxBatchAnswerBytes = 4 << 20

// FetchBatch implements peerv1.PeerServer.
func (s *Service) FetchBatch(ctx context.Context, req *peerv1.FetchBatchRequest) (*peerv1.FetchBatchResponse, error) {
	requests := req.GetRequests()
	if len(requests) > cache.MaxBatchKeys {
		return nil, toStatus(&cache.Error{Kind: cache.KindInvalidKey, Err: fmt.Errorf(
			"%d keys in one request; at most %d are allowed", len(requests), cache.MaxBatchKeys)})
	}
	queries := s.prefetch(requests)
	outcomes := make([]*peerv1.FetchOutcome, len(requests))
	var bytes atomic.Int64
	var all sync.WaitGroup
	for i, r := range requests {
		all.Go(func() { outcomes[i] = s.outcome(ctx, r, queries[i], &bytes) })
	}
	all.Wait()
	return &peerv1.FetchBatchResponse{Outcomes: outcomes}, nil
}

// prefetch begins the loads for requests, which are of one dataset, or else are loaded one by one.
func (s *Service) prefetch(requests []*peerv1.FetchRequest) []cache.Query {
	queries := make([]cache.Query, len(requests))
	same := true
	for i, r := range requests {
		queries[i] = query(r)
		same = same && queries[i].Dataset == queries[0].Dataset
	}
	if !same || len(queries) == 0 {
		return queries
	}
	if dataset, ok := s.config.Datasets(queries[0].Dataset); ok {
		dataset.PrefetchServed(queries)
	}
	return queries
}

// outcome answers one request of a batch, of whose answer so many bytes are taken.
func (s *Service) outcome(
	ctx context.Context, req *peerv1.FetchRequest, q cache.Query, bytes *atomic.Int64,
) *peerv1.FetchOutcome {
	resp, err := s.serve(ctx, req, q)
	if err != nil {
		st := status.Convert(err)
		return &peerv1.FetchOutcome{Outcome: &peerv1.FetchOutcome_Error{Error: &peerv1.FetchError{
			Code: int32(st.Code()), Message: st.Message(), RetryAfterNs: int64(retryDelay(st)),
		}}}
	}
	size := int64(len(resp.GetValue()))
	if bytes.Add(size)-size > maxBatchAnswerBytes { //guard:answer-batch-outgrows-member-takes
		return &peerv1.FetchOutcome{Outcome: &peerv1.FetchOutcome_Alone{Alone: true}}
	}
	return &peerv1.FetchOutcome{Outcome: &peerv1.FetchOutcome_Response{Response: resp}}
}
