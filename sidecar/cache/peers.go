package cache

import (
	"context"
	"errors"
	"time"
)

// Peers routes keys to members.
type Peers interface {
	// Route is called on a miss only. It never blocks.
	Route(dataset, key string) Route
	// Publish sends i to the members that subscribe to this one. It never blocks; a subscriber that misses it notices.
	Publish(i Invalidation)
	// Broadcast sends list to every other member of the ring, and returns how many received it and the node ids of the
	// others.
	Broadcast(ctx context.Context, list []Invalidation) (reached int, unreached []string)
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
}

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
	// ID is the member's node id.
	ID() string
}

// Outcome is the outcome of one Query of a batch.
type Outcome struct {
	Answer Answer
	Err    error // as that of Peer.Fetch
	// Alone: the member has not looked for this key, which must be fetched by itself.
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
	// MinVersion: answer with this version or a later one, or from a load that began after the request.
	MinVersion int64
	// MaxAge: where versions do not decide, answer with no entry whose load began longer ago, unless Tag is its ETag
	// (entries.TagNotFound for a row that does not exist); 0: any age.
	MaxAge time.Duration
	Tag    string
}

// Change is one write of one row.
type Change struct {
	// Dataset is filled in by Dataset.Write; between members it is required.
	Dataset string
	Key     string
	// Delete deletes the row, if there is one; otherwise Value is its new value.
	Delete bool
	Value  []byte
	If     Condition
	// ID identifies the write: a retry with the same ID to the same owner is a no-op. Empty: each one is made.
	ID string
	// Failover: the caller asks the successor because it could not reach the owner. Set between members only.
	Failover bool
}

// Condition is what a Change requires of the row. At most one field is set; the zero value requires nothing.
type Condition struct {
	Absent  bool   // there is no such row
	Present bool   // there is one
	Version int64  // there is one of this version
	ETag    string // there is one whose value has this ETag; for datasets with versions
}

// Invalidation selects entries of a dataset that must not be used any more.
type Invalidation struct {
	Dataset string
	// Key is one key or, with Prefix set, the beginning of many; all of them when it is empty.
	Key    string
	Prefix bool
	// Version: entries of this version and later ones are valid; 0: not known.
	Version int64
	// Age is the time since the change, at least: entries that were loaded later are valid.
	Age time.Duration
}

// Scope selects what to invalidate on all members: keys, all keys with a prefix, or everything if it is empty.
type Scope struct {
	Keys   []string
	Prefix string
}

// InvalidateResult tells which members have applied an invalidation.
type InvalidateResult struct {
	Members   int      // this one included
	Unreached []string // node ids; the entries of these expire with their ttl
}

// ErrUnreachable means that a peer did not answer: the connection failed or timed out, or its breaker is open.
var ErrUnreachable = errors.New("peer unreachable")

// NoPeers is the ring of a sidecar that is alone: it owns every key.
type NoPeers struct{}

// Route implements Peers.
func (NoPeers) Route(string, string) Route { return Route{} }

// Publish implements Peers.
func (NoPeers) Publish(Invalidation) {}

// Broadcast implements Peers.
func (NoPeers) Broadcast(context.Context, []Invalidation) (int, []string) { return 0, nil }
