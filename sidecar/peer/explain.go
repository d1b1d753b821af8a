package peer

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
)

// KeyReport is what one member has of a key, reported by itself.
type KeyReport struct {
	Member ring.Member
	// Self: this member has not been called.
	Self bool
	// BreakerOpen: this member does not send reads to the other one for now.
	BreakerOpen bool
	// ZoneOwner: this member fetches the key through that one, or is the one that others of its zone fetch it through.
	ZoneOwner bool
	// Report is nil for Self and when Err is not.
	Report *peerv1.ExplainResponse
	Err    error
}

// IsOlder reports whether the member's release has no explanations.
func (r KeyReport) IsOlder() bool { return errors.Is(r.Err, errUnimplemented) }

// TimedOut reports whether the member did not answer in time.
func (r KeyReport) TimedOut() bool { return errors.Is(r.Err, context.DeadlineExceeded) }

// Explain calls the owner of a key and its successors, at most the given number of members, and the zone owner, which comes last unless
// it is one of them, at once. It takes at most Config.FanOutTimeout: a member that does not answer by then has an error.
func (p *Pool) Explain(ctx context.Context, dataset, key string, most int) []KeyReport {
	v := p.view.Load()
	var reports []KeyReport
	var others []*peer
	var at []int // :: index in others → index in reports
	rk := routeKey(dataset, key)
	near := p.zoneOwner(v, rk)
	add := func(m *ring.Member) {
		r := KeyReport{Member: *m, Self: m.ID == p.config.Self, ZoneOwner: near != nil && m.ID == near.ID}
		if !r.Self {
			r.Err = errNoReport
			others, at = append(others, v.peers[m.ID]), append(at, len(reports))
		}
		reports = append(reports, r)
	}
	for m := range v.cur.Successors(rk) {
		if len(reports) == most {
			break
		}
		add(m)
	}
	if near != nil && !slices.ContainsFunc(reports, func(r KeyReport) bool { return r.ZoneOwner }) {
		add(near)
	}
	callAll(others, func(i int, m *peer) {
		r := &reports[at[i]]
		r.BreakerOpen = m.open.Load()
		r.Report, r.Err = m.explain(ctx, &peerv1.ExplainRequest{Dataset: dataset, Key: key})
	})
	return reports
}

func (p *peer) explain(ctx context.Context, req *peerv1.ExplainRequest) (*peerv1.ExplainResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, p.pool.config.FanOutTimeout) //guard:explain-waits-for-a-frozen-owner
	defer cancel()
	conn, err := p.connection()
	if err != nil {
		return nil, p.annotate(err)
	}
	report, err := peerv1.NewPeerClient(conn).Explain(ctx, req, limitOf(peerv1.Peer_Explain_FullMethodName))
	switch status.Code(err) {
	case codes.OK:
		return report, nil
	case codes.Unimplemented: //guard:member-of-an-older-release-is-shown-as-dead
		err = errUnimplemented
	case codes.DeadlineExceeded:
		err = context.DeadlineExceeded
	}
	return nil, p.annotate(err)
}
