// Package kv is the vocabulary of reads and writes: what callers ask of a dataset, what it answers, its errors, its policy
// and its counters. The cache and all APIs share it, so that an API needs nothing else of the cache.
package kv

import (
	"crypto/sha256"
	"encoding/base64"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// Answer is the result of a read. "Not found" is an answer, not an error.
type Answer struct {
	// Value is shared with the cache: never modify it. Nil when NotFound.
	Value []byte
	// NotFound: the origin has no such key.
	NotFound bool
	// Content says what Value is; unknown if a member does not say.
	Content origin.Content
	// DataError is why the rows of the key cannot be a value, which is then nil; 0: they can. Applications get an error of
	// KindDataError instead.
	DataError origin.DataCause
	// Version is the row's version column; 0 where there is none.
	Version int64
	// ETag is a quoted strong validator (RFC 9110, 8.8.3), equal for equal values on every member; empty when
	// NotFound.
	ETag string
	// Age is an upper bound of the time since the load of this value began.
	Age time.Duration
	// Fresh is how long the answer stays fresh; 0 or less when it must not be used again.
	Fresh time.Duration
	// Stale: the value is past its lifetime, and no newer one has arrived yet; Detail is why.
	Stale bool
	// Source is where the value came from.
	Source Source
	// Relayed and HotRate are set between members. Relayed: the member has answered for the owner of a hot key; see Query.Relay.
	// HotRate is how often the key is fetched per second, if it is hot; else 0.
	Relayed bool
	HotRate uint32
	// Took is the time from the request to the moment at which Age and Fresh were true, at most. The time between that
	// moment and the arrival of the answer makes the value older, and copies must count it.
	Took time.Duration
	// Owner is the node id of the member that answered for the key; empty when it is this one.
	Owner string
	// Detail is why an answer is stale or came from a failover, for people and for the detail parameter of Cache-Status (a
	// token of RFC 9211); empty otherwise. Members send it to each other, later releases perhaps with other texts.
	Detail string
}

// The values of Answer.Detail.
const (
	DetailRevalidating     = "revalidating"      // a load is running in the background, and nothing is known to have failed
	DetailMaxStale         = "max-stale"         // the reader wanted a stale answer from memory rather than none
	DetailOriginError      = "origin-error"      // the origin failed
	DetailOriginSlow       = "origin-slow"       // the origin, or the member that asks it, sent nothing in time
	DetailOverloaded       = "overloaded"        // a limit prevented the load
	DetailOwnerUnreachable = "owner-unreachable" // the answer is from a failover, or stale because of one that failed
)

// Source is where a value came from.
type Source uint8

// The sources, nearest first.
const (
	SourceHit      Source = iota + 1 // this sidecar's memory; it loaded the entry itself
	SourceLocalHit                   // this sidecar's memory; a local copy of another member's entry
	SourcePeerHit                    // another member's memory
	SourceLoad                       // one query to the origin, made here or by another member
)

// String returns the source as metrics and pages show it.
func (s Source) String() string {
	switch s {
	case SourceHit:
		return "hit"
	case SourceLocalHit:
		return "local_hit"
	case SourcePeerHit:
		return "peer_hit"
	case SourceLoad:
		return "load"
	}
	return "unknown"
}

// ReadOptions are the requirements of one read. The zero value has none.
type ReadOptions struct {
	// NoCache: the answer's load must begin after this read did. Where it brings an older version than a fresh entry has,
	// the entry is the answer: the load may be from a replica that lags.
	NoCache bool
	// OnlyIfCached: answer from this sidecar's memory or with an error of KindNotCached.
	OnlyIfCached bool
	// MinVersion: answer with this version of the row or a later one, or with an error of KindVersion; 0: any.
	MinVersion int64
	// LimitStale: send a stale answer at once if it is at most MaxStale past its ttl, and none that is staler.
	LimitStale bool
	MaxStale   time.Duration
}

// Admits reports whether a row of this version is new enough.
func (o ReadOptions) Admits(version int64) bool { return o.MinVersion == 0 || version >= o.MinVersion }

// DefaultBatchBytes limits the values of one batch: with the rest of the message they stay below the 4 MiB that gRPC clients
// accept.
const DefaultBatchBytes = 3 << 20

// BatchLimit bounds the values of a batch.
type BatchLimit struct {
	// Bytes is the size of all values together, except for a single larger one. Keys beyond it get ErrBatchBytes.
	Bytes int
	// Memory is where the values take their bytes from as they arrive, except the first Prepaid ones; nil means no limit.
	// The values that are returned have taken theirs; the caller returns them. Keys for whose values there are none get
	// ErrBatchBytes, or ErrNoMemory if not one fits.
	Memory  Memory
	Prepaid int
}

// Memory is bytes that one owner takes in steps. *budget.Loan implements it.
type Memory interface {
	// Grow takes n more bytes, or none and returns false.
	Grow(n int64) bool
	// Shrink returns what exceeds n bytes.
	Shrink(n int64)
	// Bytes returns how many bytes are taken.
	Bytes() int64
}

// Result is the answer to one key of many.
type Result struct {
	Answer Answer
	Err    error
}

// ETagOf depends on the value alone, so that every member sends the same ETag.
func ETagOf(value []byte) string {
	sum := sha256.Sum256(value)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:9]) + `"`
}
