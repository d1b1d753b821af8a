package peer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer/grant"
	"github.com/ringside-cache/ringside/sidecar/peer/peererror"
	"github.com/ringside-cache/ringside/sidecar/peer/wire"
)

// Fetch implements kv.Peer. The remaining time until the deadline of ctx is sent with the request.
func (p *peer) Fetch(ctx context.Context, q kv.Query) (kv.Answer, error) {
	return p.pool.grants.Fetch(ctx, p, q)
}

// FetchWithin implements grant.Requester.
func (p *peer) FetchWithin(ctx context.Context, q kv.Query, g *grant.Grant) (a kv.Answer, omitted int64, err error) {
	req := wire.FetchRequest(q, p.pool.RingID())
	req.MaxBytes = g.Values
	resp, err := fetch(ctx, p, 1, peerv1.PeerClient.Fetch, req, g.Option(p.pool.limits.answer))
	if err != nil {
		return kv.Answer{}, 0, err
	}
	a, err = p.answer(q, req.GetRingId(), resp)
	return a, resp.GetOmittedBytes(), err
}

// FetchBatch implements kv.Peer. A batch counts as one running call.
func (p *peer) FetchBatch(ctx context.Context, qs []kv.Query) []kv.Outcome {
	outcomes, err := p.pool.grants.FetchBatch(ctx, p, qs, wire.MaxBatchResponseBytes)
	if err != nil {
		return slices.Repeat([]kv.Outcome{{Err: err, Alone: errors.Is(err, errUnimplemented)}}, len(qs)) //guard:older-release-treated-as-dead
	}
	return outcomes
}

// FetchBatchWithin implements grant.Requester.
func (p *peer) FetchBatchWithin(ctx context.Context, qs []kv.Query, g *grant.Grant) ([]kv.Outcome, error) {
	req := &peerv1.FetchBatchRequest{Requests: make([]*peerv1.FetchRequest, len(qs)), MaxBytes: g.Values}
	for i, q := range qs {
		req.Requests[i] = wire.FetchRequest(q, p.pool.RingID())
	}
	resp, err := fetch(ctx, p, len(qs), peerv1.PeerClient.FetchBatch, req, g.Option(p.pool.limits.batch))
	if err != nil {
		return nil, err
	}
	if len(resp.GetOutcomes()) != len(qs) {
		return nil, p.unreachable(fmt.Errorf("it sent %d outcomes for %d keys", len(resp.GetOutcomes()), len(qs)))
	}
	outcomes := make([]kv.Outcome, len(qs))
	for i, o := range resp.GetOutcomes() {
		outcomes[i] = p.outcome(ctx, qs[i], req.Requests[i].GetRingId(), o)
	}
	return outcomes, nil
}

// outcome converts one outcome of a batch.
func (p *peer) outcome(ctx context.Context, q kv.Query, ringID uint64, o *peerv1.FetchOutcome) kv.Outcome {
	switch {
	case o.GetResponse() != nil:
		a, err := p.answer(q, ringID, o.GetResponse())
		return kv.Outcome{Answer: a, Err: err}
	case o.GetError() != nil:
		return kv.Outcome{Err: p.fetchError(ctx, peererror.FromFetchError(o.GetError()))}
	}
	return kv.Outcome{Alone: true}
}

// fetch makes a Fetch or FetchBatch call for a number of keys within the limits of the pool. The error is already
// classified.
func fetch[Req, Resp any](
	ctx context.Context, p *peer, keys int,
	call func(peerv1.PeerClient, context.Context, Req, ...grpc.CallOption) (Resp, error), req Req, limit grpc.CallOption,
) (resp Resp, err error) {
	if err := p.enter(); err != nil {
		return resp, err
	}
	defer p.exit()
	conn, err := p.connection()
	if err != nil {
		return resp, p.unreachable(err)
	}
	p.pool.countZone(p.member.Zone, keys)
	resp, err = attempt(ctx, p, func(ctx context.Context) (Resp, error) {
		return call(peerv1.NewPeerClient(conn), ctx, req, limit)
	})
	if err != nil {
		return resp, p.fetchError(ctx, err)
	}
	p.answered()
	return resp, nil
}

// countZone counts the keys that a member of a zone is asked for.
func (p *Pool) countZone(zone string, keys int) {
	switch p.config.Zone {
	case "":
	case zone:
		p.counters.sameZone.Add(int64(keys))
	default:
		p.counters.otherZone.Add(int64(keys))
	}
}

// answer converts the answer to q, which was sent with the given ring id. A successor and a previous owner need not own the
// key. A member that answers for the owner must do so for the owner that this one knows, whose invalidations it receives.
func (p *peer) answer(q kv.Query, ringID uint64, resp *peerv1.FetchResponse) (kv.Answer, error) {
	p.compareRings(ringID, resp, q.Failover || q.MemoryOnly || q.Relay || q.Zone)
	if q.Relay && (!resp.GetRelayed() || resp.GetRingId() != ringID) { //guard:relay-of-another-ring-is-believed
		return kv.Answer{}, p.unreachable(errNotRelayed)
	}
	a := wire.Answer(resp, p.member.ID)
	if q.Zone {
		return p.answerForZone(a, resp.GetEntryOf())
	}
	return a, nil
}

// answerForZone returns the answer of a zone owner, with the member that loaded the entry. A copy would miss invalidations unless this
// member receives those of that one, to which it subscribes if it does not.
func (p *peer) answerForZone(a kv.Answer, entryOf string) (kv.Answer, error) {
	if entryOf == "" { //guard:answer-of-an-older-release-counts-for-a-zone
		return kv.Answer{}, p.unreachable(errNoZones)
	}
	loader := p.pool.view.Load().peers[entryOf]
	if loader == nil {
		a.Fresh = 0 //guard:copy-of-a-stranger-is-kept
		return a, nil
	}
	a.Owner = entryOf
	if o := loader.stream.Load(); o == nil || o.epoch.Load() == 0 {
		a.Fresh = 0 //guard:copy-of-another-zone-misses-invalidations
	}
	loader.keep()
	return a, nil
}

var errNoZones = errors.New("it is of a release without zones")

var errNotRelayed = errors.New("it does not answer for the owner of a hot key, or has another ring")

// compareRings counts an answer of a member with another ring.
func (p *peer) compareRings(ringID uint64, resp *peerv1.FetchResponse, mayNotOwn bool) {
	if resp.GetRingId() != ringID || resp.GetNotOwner() && !mayNotOwn {
		p.pool.counters.disagreements.Add(1)
	}
}
