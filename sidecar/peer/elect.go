package peer

import (
	"iter"

	"github.com/ringside-cache/ringside/ring"
)

// readers is how many members read the feed of a dataset: the second is there when the first one dies.
const readers = 2

// feedKey gives each feed a place on the ring, which all members know: that of a key that nobody asks for.
const feedKey = "\x00feed"

// electedOn returns the members that read the feed of a dataset: the first ones on the ring's walk for its feedKey.
func electedOn(r *ring.Ring, dataset string) iter.Seq[*ring.Member] {
	return func(yield func(*ring.Member) bool) {
		n := 0
		for m := range r.Successors(routeKey(dataset, feedKey)) {
			if n++; n > readers || !yield(m) {
				return
			}
		}
	}
}

// Elected reports whether this member is one of those that read the feed of a dataset. One that is alone is.
func (p *Pool) Elected(dataset string) bool {
	r := p.view.Load().cur
	for m := range electedOn(r, dataset) {
		if m.ID == p.config.Self {
			return true
		}
	}
	return r.Len() == 0
}

// elect notes which members' feeds this one must hear.
func (v *view) elect(datasets []string) {
	v.feeders = make(map[string]bool)
	for _, dataset := range datasets {
		for m := range electedOn(v.cur, dataset) {
			v.feeders[m.ID] = true
		}
	}
}

// followFeeders follows them, even those that nothing is asked of.
func (v *view) followFeeders() {
	for id := range v.feeders {
		if feeder := v.peers[id]; feeder != nil { // nil: this member itself
			feeder.startFollowing()
		}
	}
}
