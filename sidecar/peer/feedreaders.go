package peer

import (
	"iter"

	"github.com/ringside-cache/ringside/ring"
)

// feedReaders is how many members read the change feed of a dataset: the second one takes over when the first one dies.
const feedReaders = 2

// feedKey is the key whose place on the ring elects the readers of a dataset's change feed. Clients cannot read it.
const feedKey = "\x00feed"

// electedOn returns the members that read the change feed of a dataset: the first ones of the ring's walk for feedKey.
func electedOn(r *ring.Ring, dataset string) iter.Seq[*ring.Member] {
	return func(yield func(*ring.Member) bool) {
		n := 0
		for m := range r.Successors(routeKey(dataset, feedKey)) {
			if n++; n > feedReaders || !yield(m) {
				return
			}
		}
	}
}

// Elected reports whether this member reads the change feed of a dataset. A member that is alone always does.
func (p *Pool) Elected(dataset string) bool {
	r := p.view.Load().cur
	for m := range electedOn(r, dataset) {
		if m.ID == p.config.Self {
			return true
		}
	}
	return r.Len() == 0
}

// electFeedReaders computes v.feedReaders.
func (p *Pool) electFeedReaders(v *view, datasets []string) {
	v.feedReaders = make(map[string]bool)
	if len(datasets) > 0 && v.clientOf(p.config.Self) && v.electFeedRelays(p.seed, p.now()) {
		return
	}
	for _, dataset := range datasets {
		for m := range electedOn(v.cur, dataset) {
			v.feedReaders[m.ID] = true
		}
	}
}

// subscribeToFeedReaders subscribes to them even when this member calls none of them.
func (v *view) subscribeToFeedReaders() {
	for id := range v.feedReaders {
		if reader := v.peers[id]; reader != nil { // nil: this member itself
			reader.startSubscription()
			reader.endOtherKind() //guard:feeds-come-with-no-stream-that-is-open
		}
	}
}
