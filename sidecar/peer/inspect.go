package peer

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/peer/wire"
)

// Inspection is the state of one member, reported by itself.
type Inspection struct {
	Member ring.Member
	// Report is nil when Err is not.
	Report *peerv1.InspectResponse
	// Err says why there is no report.
	Err error
}

// Inspect calls every other member of the ring, and use with each result, one at a time, in the order of the ring's members.
// A member that does not answer in time has an error. Few reports are held at once: a member may send a large one.
func (p *Pool) Inspect(ctx context.Context, use func(Inspection)) {
	callEach(ctx, p, (*peer).inspect, func(m ring.Member, report *peerv1.InspectResponse, err error) {
		use(Inspection{Member: m, Report: report, Err: err})
	})
}

// Histories is Inspect for what every other member recorded after an interval; see peerv1.HistoryRequest. Members of releases
// without it are left out.
func (p *Pool) Histories(ctx context.Context, after int64, use func(id string, history []byte, err error)) {
	call := func(m *peer, ctx context.Context) (*peerv1.HistoryResponse, error) { return m.history(ctx, after) }
	callEach(ctx, p, call, func(m ring.Member, report *peerv1.HistoryResponse, err error) {
		if !errors.Is(err, errUnimplemented) {
			use(m.ID, report.GetHistory(), err)
		}
	})
}

// callEach calls every other member of the ring, some of them at once, and use with each result.
func callEach[R any](ctx context.Context, p *Pool, call func(*peer, context.Context) (*R, error), use func(ring.Member, *R, error)) {
	members, others := p.others()
	type result struct {
		report *R
		err    error
	}
	for first := 0; first < len(others); first += fanOut {
		some := others[first:min(first+fanOut, len(others))]
		results := make([]result, len(some))
		for i := range some {
			results[i].err = errNoReport
		}
		callAll(some, func(i int, m *peer) {
			limited, cancel := context.WithTimeout(ctx, p.config.FanOutTimeout)
			defer cancel()
			results[i].report, results[i].err = call(m, limited)
		})
		for i, r := range results {
			use(members[first+i], r.report, r.err)
		}
	}
}

var errNoReport = errors.New("no report")

func (p *peer) inspect(ctx context.Context) (*peerv1.InspectResponse, error) {
	conn, err := p.connection()
	if err != nil {
		return nil, p.annotate(err)
	}
	report, err := peerv1.NewPeerClient(conn).Inspect(ctx, &peerv1.InspectRequest{}, limitOf(peerv1.Peer_Inspect_FullMethodName))
	if err == nil {
		err = wire.CheckReport(report)
	}
	if err != nil {
		return nil, p.annotate(err)
	}
	return report, nil
}

func (p *peer) history(ctx context.Context, after int64) (*peerv1.HistoryResponse, error) {
	conn, err := p.connection()
	if err != nil {
		return nil, p.annotate(err)
	}
	report, err := peerv1.NewPeerClient(conn).History(ctx, &peerv1.HistoryRequest{After: after}, limitOf(peerv1.Peer_History_FullMethodName))
	if status.Code(err) == codes.Unimplemented { //guard:history-of-an-older-release-is-an-error
		err = errUnimplemented
	}
	if err != nil {
		return nil, p.annotate(err)
	}
	return report, nil
}

// BreakersOpen returns the members that get no requests for now because they did not respond, in ascending order.
func (p *Pool) BreakersOpen() (ids []string) {
	for _, other := range p.all() {
		if other.open.Load() {
			ids = append(ids, other.member.ID)
		}
	}
	slices.Sort(ids)
	return ids
}
