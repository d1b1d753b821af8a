package cache

import (
	"context"
	"errors"
)

// Peers says which members answer for a key.
type Peers interface {
	// Route is asked on a miss only. It never blocks.
	Route(dataset, key string) Route
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
	// ID is the member's node id.
	ID() string
}

// Query is what one sidecar asks another.
type Query struct {
	Dataset, Key string
	// Gutter: the caller asks the successor because it could not reach the owner.
	Gutter bool
	// NoCache: load anew even when a fresh entry is held.
	NoCache bool
	// MemoryOnly: answer from memory or with an error of KindNotCached.
	MemoryOnly bool
}

// ErrUnreachable says that a peer gave no answer: refused, silent, cut off, or its breaker is open.
var ErrUnreachable = errors.New("peer unreachable")

// NoPeers is the ring of a sidecar that is alone: it owns every key.
type NoPeers struct{}

// Route implements Peers.
func (NoPeers) Route(string, string) Route { return Route{} }
