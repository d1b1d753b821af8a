package kv

import (
	"context"
	"slices"
	"time"
)

// Peers routes keys to members.
type Peers interface {
	// Route is called on a miss only. It never blocks.
	Route(dataset, key string) Route
	// Relay returns the member from which this one is to fetch a hot key that another one owns, or nil: the owner. This member
	// receives the invalidations of the owner for as long as it may keep the answer. It never blocks.
	Relay(dataset, key string) Peer
	// ZoneOwner returns the member that owns the key among those of this member's zone, if the owner is in another zone: it answers
	// for the owner, with a copy that it keeps for its zone. self reports whether that is this member. nil and false: there are no
	// zones, the owner is in this one, or the member is known not to answer. It never blocks.
	ZoneOwner(dataset, key string) (m Peer, self bool)
	// Publish sends i to the members that subscribe to this one. It never blocks; a subscriber that misses it notices.
	Publish(i Invalidation)
	// Broadcast sends list to every other member of the ring, and returns how many received it and the node ids of the
	// others.
	Broadcast(ctx context.Context, list []Invalidation) (reached int, unreached []string)
	// Awake reports whether the invalidations of other members are known to arrive. While it is false, nothing that depends
	// on them is fresh: call Prove first.
	Awake() bool
	// Prove returns when Awake is true: what depended on members that do not answer has been expired by then. It returns
	// earlier when ctx ends.
	Prove(ctx context.Context)
}

// Route is whom to ask for a key, in order.
type Route struct {
	// Owner is the member that owns the key; nil when it is this one.
	Owner Peer
	// Successor is the member that every other one asks when Owner cannot be reached; nil when it is this one.
	Successor Peer
	// Previous is the member that owned the key under the ring before this one, while its memory may still help a new
	// owner; nil otherwise, and always nil unless Owner is nil.
	Previous Peer
	// OwnerDown: Owner is known not to answer.
	OwnerDown bool

	// Route does not set what follows.

	// Relay is the member to ask before Owner, which it asks in turn: the key is hot. See Peers.Relay.
	Relay Peer
	// Zone is the member to ask before Owner, which it asks in turn: Owner is in another zone. See Peers.ZoneOwner.
	Zone Peer
	// InZone: this member is that one. It keeps its copy for the others of its zone.
	InZone bool
	// Once: another member has asked this one, which asks one more at most.
	Once bool
}

// Attempt is one way to get the answer to a key.
type Attempt struct {
	Peer     Peer // nil: this member
	Failover bool // the owner did not answer
	Last     bool // the successor did not answer either
	Relay    bool // Peer is to answer for the owner of a hot key
	Zone     bool // Peer is to answer for the owner in another zone
}

// Attempts lists whom to ask for a key, in order. Only no answer (ErrUnreachable) leads to the next attempt: asking
// elsewhere after an error of the origin would multiply an outage. The successor is the same for all members, so that
// concurrent readers on all of them still share one load.
//
// With zones, a read makes two peer fetches at most, those without an answer included: the second one by this member or by the
// zone owner.
func (r Route) Attempts() []Attempt {
	switch {
	case r.Owner == nil:
		return []Attempt{{}}
	case r.Relay != nil:
		direct := r
		direct.Relay = nil
		return append([]Attempt{{Peer: r.Relay, Relay: true}}, direct.Attempts()...) //guard:silent-relay-fails-a-read
	case r.Zone != nil:
		return []Attempt{{Peer: r.Zone, Zone: true}, {Peer: r.Owner}, {Failover: true, Last: true}} //guard:silent-zone-owner-fails-a-read
	case r.Once && r.OwnerDown && r.Successor != nil:
		return []Attempt{{Peer: r.Successor, Failover: true}, {Failover: true}}
	case r.Once:
		return []Attempt{{Peer: r.Owner}, {Failover: true}} //guard:read-makes-a-third-peer-fetch
	case r.Successor == nil: //guard:dead-owner-sends-every-member-to-the-origin
		return []Attempt{{Peer: r.Owner}, {Failover: true}}
	}
	return []Attempt{{Peer: r.Owner}, {Peer: r.Successor, Failover: true}, {Failover: true, Last: true}}
}

// MaxBatchKeys bounds the keys of one Peer.FetchBatch.
const MaxBatchKeys = 512

// Peer is another member of the ring.
type Peer interface {
	// Fetch asks the member for one key. An error that wraps ErrUnreachable means that the member did not answer; any
	// other error is its answer (see KindOf), and asking elsewhere would only multiply an outage.
	Fetch(ctx context.Context, q Query) (Answer, error)
	// FetchBatch asks the member for up to MaxBatchKeys keys at once, and returns the outcome of each, in their order.
	FetchBatch(ctx context.Context, qs []Query) []Outcome
	// Write has the member make a change. An error that wraps ErrUnreachable means that the request was not sent; one of
	// KindUnknown that it was, and that the outcome is not known; any other error is the member's answer.
	Write(ctx context.Context, c Change) (Answer, error)
	// WriteMany has the member make up to MaxBatchWrites changes of distinct keys of one dataset, and returns the outcome of each, in
	// their order. The errors are those of Write. An answer has a version, and no value. Alone: the member's release makes single
	// changes only.
	WriteMany(ctx context.Context, cs []Change) []Outcome
	// ID is the member's node id.
	ID() string
}

// Outcome is the outcome of one Query or Change of a batch.
type Outcome struct {
	Answer Answer
	Err    error // as that of Peer.Fetch or Peer.Write
	// Alone: the member has not looked for this key, which must be fetched, or written, by itself.
	Alone bool
}

// Query is a read that one member sends to another.
type Query struct {
	Dataset, Key string
	// Failover: the caller asks the successor because it could not reach the owner.
	Failover bool
	// NoCache: load even if a fresh entry is cached.
	NoCache bool
	// MemoryOnly: answer from memory or with an error of KindNotCached.
	MemoryOnly bool
	// Relay: answer for the owner of a hot key, from a copy of its entry or with what it answers; MemoryOnly is not set.
	Relay bool
	// Zone: answer for the owner, which is in another zone, with any entry in memory or with what one more fetch brings;
	// MemoryOnly and Relay are not set. The answer names the member whose entry it is (Answer.Owner).
	Zone bool
	// Relayed is how many queries with Relay the caller has answered since its previous one of this key.
	Relayed uint32
	// MinVersion: answer with this version or a later one, or from a load that began after the request.
	MinVersion int64
	// MaxAge: where versions do not decide, answer with no entry whose load began longer ago, unless Tag is its ETag
	// (entries.TagNotFound for a row that does not exist); 0: any age.
	MaxAge time.Duration
	Tag    string
}

// FetchAll asks a member for one key or many.
func FetchAll(ctx context.Context, peer Peer, queries []Query) []Outcome {
	if len(queries) == 1 {
		a, err := peer.Fetch(ctx, queries[0])
		return []Outcome{{Answer: a, Err: err}}
	}
	if outcomes := peer.FetchBatch(ctx, queries); len(outcomes) == len(queries) {
		return outcomes
	}
	return slices.Repeat([]Outcome{{Alone: true}}, len(queries))
}

// NoPeers is the ring of a sidecar that is alone: it owns every key.
type NoPeers struct{}

// Route implements Peers.
func (NoPeers) Route(string, string) Route { return Route{} }

// Relay implements Peers.
func (NoPeers) Relay(string, string) Peer { return nil }

// ZoneOwner implements Peers.
func (NoPeers) ZoneOwner(string, string) (Peer, bool) { return nil, false }

// Publish implements Peers.
func (NoPeers) Publish(Invalidation) {}

// Awake implements Peers.
func (NoPeers) Awake() bool { return true }

// Prove implements Peers.
func (NoPeers) Prove(context.Context) {}

// Broadcast implements Peers.
func (NoPeers) Broadcast(context.Context, []Invalidation) (int, []string) { return 0, nil }
