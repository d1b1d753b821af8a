package peer

import (
	"context"

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

// Inspect calls every other member of the ring, in the order of the ring's members. A member that does not answer in time
// is in the list with an error.
func (p *Pool) Inspect(ctx context.Context) []Inspection {
	members, others := p.others()
	inspections := make([]Inspection, len(others))
	callAll(others, func(i int, m *peer) {
		report, err := m.inspect(ctx)
		inspections[i] = Inspection{Member: members[i], Report: report, Err: err}
	})
	return inspections
}

func (p *peer) inspect(ctx context.Context) (*peerv1.InspectResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, p.pool.config.FanOutTimeout)
	defer cancel()
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
