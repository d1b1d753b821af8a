package peer

import (
	"cmp"
	"context"
	"fmt"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/printable"
)

// Describe asks the member at addr, which need not be on the ring, for its id and its record (package record). Any member of
// the cluster may answer: ping it under its id before it is trusted.
func (p *Pool) Describe(ctx context.Context, addr string) (id string, record []byte, leaving bool, err error) {
	to := newPeer(p, ring.Member{Addr: addr})
	defer to.close()
	pong, err := to.ping(ctx, &peerv1.PingRequest{Describe: true})
	if err != nil {
		return "", nil, false, to.annotate(err)
	}
	return pong.GetNode(), pong.GetRecord(), pong.GetLeaving(), nil
}

// Announce tells a member that the one which advertises addr has joined or is leaving.
func (p *Pool) Announce(ctx context.Context, to ring.Member, addr string) error {
	_, err := p.pingMember(ctx, to, &peerv1.PingRequest{Changed: addr})
	return err
}

// ReachesBack asks a member whether it can reach this one. known is false if it does not say, and why is empty if it can.
func (p *Pool) ReachesBack(ctx context.Context, to ring.Member) (known bool, why string, err error) {
	pong, err := p.pingMember(ctx, to, &peerv1.PingRequest{ReachBack: p.config.Self})
	switch pong.GetReachedBack() {
	case peerv1.ReachedBack_REACHED_BACK_YES:
		return true, "", err
	case peerv1.ReachedBack_REACHED_BACK_NO:
		return true, cmp.Or(printable.Text(pong.GetReachError()), "no reason given"), err
	}
	return false, "", err
}

// pingMember pings a member that need not be on the ring.
func (p *Pool) pingMember(ctx context.Context, m ring.Member, req *peerv1.PingRequest) (*peerv1.PingResponse, error) {
	to := p.view.Load().peers[m.ID]
	if to == nil || to.member.Addr != m.Addr {
		to = newPeer(p, m)
		defer to.close()
	}
	pong, err := to.ping(ctx, req)
	if err != nil {
		return nil, to.annotate(fmt.Errorf("ping: %w", err))
	}
	return pong, nil
}
