package peer

import (
	"cmp"
	"context"
	"hash/maphash"
	"slices"
	"time"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// A client of the ring gets the changes of all feeds from members that subscribe to their readers, its feed relays: a reader would have
// to serve each of thousands of clients.
const (
	// feedRelays is how many a client has: with the second one, a feed stays live when the first one dies.
	feedRelays = 2
	// relayCandidates is among how many members it chooses them, so that members that are all full, or of an older release, get few
	// attempts.
	relayCandidates = 4
	// relayRest is how long a client prefers others to a member whose stream has ended.
	relayRest = 30 * time.Second
)

// electFeedRelays chooses the feed relays of a client, and reports whether there are enough. Clients choose at random, each the same
// ones while they can be used.
func (v *view) electFeedRelays(seed maphash.Seed, now time.Duration) bool {
	members := slices.Clone(v.cur.Members())
	score := func(m ring.Member) uint64 { return maphash.String(seed, m.ID) }
	slices.SortFunc(members, func(a, b ring.Member) int { return cmp.Compare(score(a), score(b)) })
	candidates := members[:min(relayCandidates, len(members))]
	slices.SortStableFunc(candidates, func(a, b ring.Member) int {
		rests := func(m ring.Member) int {
			if time.Duration(v.peers[m.ID].restsUntil.Load()) > now {
				return 1
			}
			return 0
		}
		return rests(a) - rests(b)
	})
	for _, m := range candidates {
		if len(v.feedReaders) < feedRelays && !v.peers[m.ID].relaysNone.Load() {
			v.feedReaders[m.ID] = true
		}
	}
	return len(v.feedReaders) == min(feedRelays, len(members))
}

// electAgain chooses the feed relays of a client again, because one of them cannot be used.
func (p *Pool) electAgain() {
	p.mu.Lock()
	feeds := p.config.Feeds
	p.mu.Unlock()
	p.SetFeeds(feeds)
}

// lostRelay prefers other feed relays to p, whose stream has ended, for some time.
func (p *peer) lostRelay() {
	if _, feeds := p.kind(); feeds {
		p.restsUntil.Store(int64(p.pool.now() + relayRest))
		p.pool.electAgain()
	}
}

// mayRelay records whether the member relays feeds to clients, which those of older releases do not.
func (p *peer) mayRelay(relays bool) {
	if p.relaysNone.CompareAndSwap(relays, !relays) && !relays {
		p.pool.electAgain()
	}
}

// kind returns whether a stream of p is to be one for clients, and to have the feeds of others.
func (p *peer) kind() (client, feeds bool) {
	v := p.pool.view.Load()
	client = v.clientOf(p.pool.config.Self)
	return client, client && v.feedReaders[p.member.ID]
}

// endOtherKind ends a stream of another kind if this sidecar needs feeds from p: that of a client that wants them now, or has become a
// member.
func (p *peer) endOtherKind() {
	o := p.stream.Load()
	if o == nil || !p.pool.view.Load().feedReaders[p.member.ID] {
		return
	}
	if client, feeds := p.kind(); o.client != client || o.feeds != feeds {
		o.unneeded.Store(true)
		o.end()
	}
}

// relayChanges sends changes of the feeds that the member of s reads to the clients of this one. What another member has relayed goes
// no further.
func (s *subscription) relayChanges(list []kv.Invalidation) {
	if s.open.feeds || len(s.liveFeeds) == 0 {
		return
	}
	changes := make([]kv.Invalidation, 0, len(list))
	for _, i := range list {
		if slices.Contains(s.liveFeeds, i.Dataset) {
			changes = append(changes, i)
		}
	}
	s.peer.pool.log.RelayChanges(changes) //guard:relay-drops-changes
}

// hearFeeds takes the datasets whose feeds a member reads, of which this member gets every change.
func (p *Pool) hearFeeds(member string, datasets []string) {
	p.hearing.Lock()
	defer p.hearing.Unlock()
	p.heard[member] = datasets
	if len(datasets) == 0 {
		delete(p.heard, member)
	}
	var all []string
	for _, some := range p.heard {
		all = append(all, some...)
	}
	p.log.HearFeeds(all) //guard:gap-at-a-relay-is-none-for-its-clients
}

// RelayFeeds lets this member ask the readers of feeds for signs of life, whether or not it is read from, until end is called: clients
// rely on what it receives from them. When it returns, feeds that it does not hear without a gap count as not live.
func (p *Pool) RelayFeeds(ctx context.Context) (end func()) {
	p.vigil.relaying.Add(1)
	p.Prove(ctx) //guard:relay-sleeps
	return func() { p.vigil.relaying.Add(-1) }
}

// RelaysFeeds reports whether clients rely on this member for change feeds. It must not sleep then.
func (p *Pool) RelaysFeeds() bool { return p.vigil.relaying.Load() > 0 }
