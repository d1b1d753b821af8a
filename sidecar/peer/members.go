package peer

import (
	"context"
	"errors"
	"time"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
)

var errNoList = errors.New("no list of members in time")

// clientOf reports whether a sidecar is not on a ring that has members.
func (v *view) clientOf(self string) bool { return v.cur.Len() > 0 && v.cur.Member(self) == nil }

// Members passes the changes of the list of members that m reports to use, until ctx ends, m does not answer, or use returns an
// error. m need not be on the ring; without an id, any member of the cluster may answer at its address.
func (p *Pool) Members(ctx context.Context, m ring.Member, node string, use func(*peerv1.MembersResponse) error) error {
	to := p.view.Load().peers[m.ID]
	if to == nil || to.member.Addr != m.Addr {
		to = newPeer(p, m)
		defer to.close()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timeout := time.AfterFunc(firstResponse, func() { cancel(errNoList) })
	defer timeout.Stop()
	err := to.members(ctx, node, func(r *peerv1.MembersResponse) error {
		timeout.Stop()
		return use(r)
	})
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return to.annotate(err)
}

func (p *peer) members(ctx context.Context, node string, use func(*peerv1.MembersResponse) error) error {
	conn, err := p.connection()
	if err != nil {
		return err
	}
	in, err := peerv1.NewPeerClient(conn).Members(ctx, &peerv1.MembersRequest{Node: node}, limitOf(peerv1.Peer_Members_FullMethodName))
	for err == nil {
		var r *peerv1.MembersResponse
		if r, err = in.Recv(); err == nil {
			p.hear()
			err = use(r)
		}
	}
	return err
}
