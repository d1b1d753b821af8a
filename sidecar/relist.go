package sidecar

import (
	"context"
	"math/rand/v2"
	"time"
)

// skepticism is how often the answers of other members are looked at, give or take a third. A change of the ring
// reaches everybody in a fraction of it.
const skepticism = 3 * time.Second

// skeptic decides from the answers of members with another ring whether the directory is worth a question now, and not
// only when the next full list is due. Once is enough for each ring: when a list has left it as it is, the others are
// wrong, and n members that asked again and again would only be a load on etcd.
type skeptic struct {
	ring     uint64 // at the last look
	counted  int64  // disagreements until then
	inRow    int    // looks since the ring changed, in each of which there were more
	answered uint64 // the ring that was asked for
}

// look reports whether to list.
func (s *skeptic) look(ring uint64, disagreements int64) bool {
	if ring == s.ring && disagreements > s.counted {
		s.inRow++
	} else {
		s.inRow = 0
	}
	s.ring, s.counted = ring, disagreements
	if s.inRow < 2 || s.answered == ring { //guard:every-member-lists-directory-again-again
		return false
	}
	s.answered = ring
	return true
}

// doubtList asks the directory again when the members disagree for longer than a change takes.
func (p *process) doubtList(ctx context.Context) error {
	var s skeptic
	return each(ctx, skepticism*2/3+rand.N(skepticism*2/3), func() {
		if s.look(p.pool.RingID(), p.pool.Stats().Disagreements) {
			p.log.Warn("other members have another ring: listing the members again")
			p.etcd.Relist()
		}
	})
}
