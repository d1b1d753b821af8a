package cache

import (
	"context"
	"errors"
	"time"
)

// Peers says which members answer for a key.
type Peers interface {
	// Route is asked on a miss only. It never blocks.
	Route(dataset, key string) Route
	// Publish tells the members that follow this one. It never blocks; who can not be told notices that.
	Publish(i Invalidation)
	// Broadcast tells every other member of the ring, and returns how many were told and the node ids of the others.
	Broadcast(ctx context.Context, list []Invalidation) (told int, unreached []string)
}

// Route is who to ask for a key, in order.
type Route struct {
	// Owner is the member that owns the key; nil when it is this one.
	Owner Peer
	// Successor is the member that everybody asks when Owner cannot be reached; nil when it is this one.
	Successor Peer
	// Previous is the member that owned the key under the ring before this one, while its memory may still help a new
	// owner; nil otherwise, and always nil unless Owner is nil.
	Previous Peer
}

// Peer is another member of the ring.
type Peer interface {
	// Fetch asks the member for one key. An error that wraps ErrUnreachable means that the member gave no answer;
	// any other error is its answer (see KindOf), and asking elsewhere would only multiply an outage.
	Fetch(ctx context.Context, q Query) (Answer, error)
	// FetchBatch asks the member for up to MaxBatchKeys keys at once, and returns what came of each, in their order.
	FetchBatch(ctx context.Context, qs []Query) []Outcome
	// Write has the member make a change. An error that wraps ErrUnreachable means that the member was not asked; one
	// of KindUnknown that it was, and that nobody knows what came of it; any other error is its answer.
	Write(ctx context.Context, c Change) (Answer, error)
	// ID is the member's node id.
	ID() string
}

// Query is what one sidecar asks another.
type Query struct {
	Dataset, Key string
	// Failover: the caller asks the successor because it could not reach the owner.
	Failover bool
	// NoCache: load anew even when a fresh entry is held.
	NoCache bool
	// MemoryOnly: answer from memory or with an error of KindNotCached.
	MemoryOnly bool
	// MinVersion: answer with this version or a later one, or from a load that began after the question.
	MinVersion int64
	// MaxAge: where versions do not tell, answer with no entry whose load began longer ago, unless Tag is its ETag
	// ("absent" for one that is); 0 asks nothing.
	MaxAge time.Duration
	Tag    string

	prefetched int64 // as in ReadOptions
}

// Change is one write of one row.
type Change struct {
	// Dataset is filled in by Dataset.Write; a member that is asked needs it.
	Dataset string
	Key     string
	// Delete deletes the row, if there is one; otherwise Value is its new value.
	Delete bool
	Value  []byte
	If     Condition
	// ID names the write: sent again with the same ID to the same owner, it happens once. Empty: each one happens.
	ID string
	// Failover: the caller asks the successor because it could not reach the owner. Set between members only.
	Failover bool
}

// Condition says what must be so for a Change to happen. At most one field is set; the zero value asks nothing.
type Condition struct {
	Absent  bool   // there is no such row
	Present bool   // there is one
	Version int64  // there is one of this version
	ETag    string // there is one whose value has this ETag; for datasets with versions
}

// Invalidation says which entries of a dataset must not be used any more.
type Invalidation struct {
	Dataset string
	// Key is one key or, with Prefix set, the beginning of many; all of them when it is empty.
	Key    string
	Prefix bool
	// Version: entries of this version and later ones are good; 0 when it is not known.
	Version int64
	// Age is the time since the change, at least: entries that were loaded later are good.
	Age time.Duration
}

// Scope says what to invalidate everywhere: keys, all that start with a prefix, or with an empty prefix and no keys all.
type Scope struct {
	Keys   []string
	Prefix string
}

// InvalidateResult says who has dropped what was invalidated.
type InvalidateResult struct {
	Members   int      // this one included
	Unreached []string // node ids; what these hold ends with its ttl
}

// ErrUnreachable says that a peer gave no answer: refused, silent, cut off, or its breaker is open.
var ErrUnreachable = errors.New("peer unreachable")

// NoPeers is the ring of a sidecar that is alone: it owns every key.
type NoPeers struct{}

// Route implements Peers.
func (NoPeers) Route(string, string) Route { return Route{} }

// Publish implements Peers.
func (NoPeers) Publish(Invalidation) {}

// Broadcast implements Peers.
func (NoPeers) Broadcast(context.Context, []Invalidation) (int, []string) { return 0, nil }
