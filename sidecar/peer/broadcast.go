package peer

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer/wire"
)

// fanOut limits the members that one Broadcast or Inspect calls concurrently.
const fanOut = 16

// others returns all other members of the ring, in the order of the ring, and their peers.
func (p *Pool) others() (members []ring.Member, peers []*peer) {
	v := p.view.Load()
	for _, m := range v.cur.Members() {
		if m.ID != p.config.Self {
			members, peers = append(members, m), append(peers, v.peers[m.ID])
		}
	}
	return members, peers
}

// callAll makes a call to each peer, at most fanOut at a time, and waits for all. The index is that of the peer.
func callAll(peers []*peer, call func(i int, m *peer)) {
	var group errgroup.Group
	group.SetLimit(fanOut) //guard:broadcast-without-limit
	for i, m := range peers {
		group.Go(func() error {
			m.pool.safely("a call to each member", func() { call(i, m) })
			return nil // an error of one member does not stop the others
		})
	}
	_ = group.Wait()
}

// Broadcast implements kv.Peers. It does not call members whose breaker is open. Clients of the ring get the list from the members
// whose entries they have.
func (p *Pool) Broadcast(ctx context.Context, list []kv.Invalidation) (reached int, unreached []string) {
	p.log.Relay(list) //guard:broadcast-misses-own-clients
	requests := wire.InvalidateRequests(list)
	_, others := p.others()
	ok := make([]bool, len(others))
	callAll(others, func(i int, m *peer) { ok[i] = m.invalidate(ctx, requests) })
	for i, m := range others {
		if !ok[i] {
			unreached = append(unreached, m.member.ID)
		}
	}
	slices.Sort(unreached)
	p.counters.broadcastsFailed.Add(int64(len(unreached)))
	return len(others) - len(unreached), unreached
}

// invalidate reports whether the member has accepted all requests.
func (p *peer) invalidate(ctx context.Context, requests []*peerv1.InvalidateRequest) bool {
	for _, r := range requests {
		if p.open.Load() || p.invalidateOnce(ctx, r) != nil {
			return false
		}
	}
	return true
}

func (p *peer) invalidateOnce(ctx context.Context, r *peerv1.InvalidateRequest) error {
	ctx, cancel := context.WithTimeout(ctx, p.pool.config.FanOutTimeout)
	defer cancel()
	conn, err := p.connection()
	if err != nil {
		return err
	}
	_, err = peerv1.NewPeerClient(conn).Invalidate(ctx, r, limitOf(peerv1.Peer_Invalidate_FullMethodName))
	switch status.Code(err) {
	case codes.OK:
		p.hear()
	case codes.Unavailable:
		p.countFailure()
	case codes.DeadlineExceeded:
		p.detect() // without waiting: the result is for the next call
	}
	return err
}
