package peer

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
)

const (
	// inspectTimeout bounds one member's part of Inspect.
	inspectTimeout = 500 * time.Millisecond
	// maxInspections bounds the members that Inspect asks at once.
	maxInspections = 16
)

// Inspection is what one member says of itself.
type Inspection struct {
	Member ring.Member
	// Report is nil when Err is not.
	Report *peerv1.InspectResponse
	// Err says why the member gave no report.
	Err error
}

// Inspect asks every other member of the ring, in the order of the ring's members. Those that do not answer at once are
// in the list with an error.
func (p *Pool) Inspect(ctx context.Context) []Inspection {
	v := p.view.Load()
	found := make([]Inspection, 0, v.cur.Len())
	for _, m := range v.cur.Members() {
		if m.ID != p.config.Self {
			found = append(found, Inspection{Member: m})
		}
	}
	var group errgroup.Group
	group.SetLimit(maxInspections)
	for i := range found {
		one := &found[i]
		group.Go(func() error {
			one.Report, one.Err = v.peers[one.Member.ID].inspect(ctx)
			return nil // one.Err is that member's; the others are asked all the same
		})
	}
	_ = group.Wait()
	return found
}

func (p *peer) inspect(ctx context.Context) (*peerv1.InspectResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	conn, err := p.connection()
	if err != nil {
		return nil, p.about(err)
	}
	report, err := peerv1.NewPeerClient(conn).Inspect(ctx, &peerv1.InspectRequest{})
	if err != nil {
		return nil, p.about(err)
	}
	return report, nil
}
