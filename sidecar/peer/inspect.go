package peer

import (
	"context"
	"errors"

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
	members, others := p.others()
	for first := 0; first < len(others); first += fanOut {
		some := others[first:min(first+fanOut, len(others))]
		inspections := make([]Inspection, len(some))
		for i := range some {
			inspections[i] = Inspection{Member: members[first+i], Err: errNoReport}
		}
		callAll(some, func(i int, m *peer) { inspections[i].Report, inspections[i].Err = m.inspect(ctx) })
		for _, one := range inspections {
			use(one)
		}
	}
}

var errNoReport = errors.New("no report")

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
