package membership

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
)

// disagreementInterval is how often this member compares its ring with those of others, plus or minus a third. A change of
// the ring reaches all members in a fraction of that.
const disagreementInterval = 3 * time.Second

// disagreements decides, from the number of responses from members with another ring, whether to list the members again
// before the next list is due. It lists once per ring: if a list leaves the ring unchanged, the other members are wrong,
// and repeated lists of n members would only load etcd.
type disagreements struct {
	ring    uint64 // at the last check
	counted int64  // disagreements until the last check
	inRow   int    // checks since the ring changed, in each of which there were more
	listed  uint64 // the ring for which the members were listed again
}

// shouldList reports whether to list the members again. count is the number of disagreements so far.
func (d *disagreements) shouldList(ring uint64, count int64) bool {
	if ring == d.ring && count > d.counted {
		d.inRow++
	} else {
		d.inRow = 0
	}
	d.ring, d.counted = ring, count
	if d.inRow < 2 || d.listed == ring { //guard:members-list-directory-again-and-again
		return false
	}
	d.listed = ring
	return true
}

// relist lists the members again: from the directory, or for a client from another member. It is nil if the directory reports each
// change by itself.
func (m *Members) relist() func() {
	ofDirectory := m.directory.relist()
	if m.config.Role != config.RoleAuto && m.config.Role != config.RoleClient {
		return ofDirectory
	}
	return func() {
		if m.client.Load() {
			select {
			case m.relisting <- struct{}{}:
			default:
			}
		} else if ofDirectory != nil {
			ofDirectory()
		}
	}
}

// monitorDisagreement lists the members again if the rings of members differ for longer than a change takes.
func (m *Members) monitorDisagreement(ctx context.Context) error {
	var d disagreements
	return task.Every(ctx, disagreementInterval*2/3+rand.N(disagreementInterval*2/3), func() {
		if d.shouldList(m.pool.RingID(), m.pool.Stats().Disagreements) {
			m.log.Warn("other members use a different ring: listing the members again")
			m.relist()()
		}
	})
}
