// Package adminapi has the messages of the admin API, in JSON. Members send their State to each other in the same form, and
// the command line decodes the responses.
package adminapi

import (
	"fmt"
	"time"
)

// State is the response of /api/state: one member's counters since its start. Members send it to each other in the same
// form.
type State struct {
	Node     string         `json:"node"`
	Version  string         `json:"version"`
	RingID   string         `json:"ring_id"`
	Uptime   time.Duration  `json:"uptime_ns"`
	Datasets []DatasetState `json:"datasets"`
	// HotKeys are the keys that other members fetch most often from this one, the one with the highest rate first. There are at most
	// MaxHotKeys, of the datasets that the caller may read.
	HotKeys []HotKey `json:"hot_keys,omitempty"`
}

// HotKey is a key that other members fetch often from its owner.
type HotKey struct {
	Dataset string `json:"dataset"`
	Key     string `json:"key"` // at most MaxHotKeyBytes of it, printable
	// KeyBytes is the length of the whole key.
	KeyBytes int     `json:"key_bytes"`
	Rate     float64 `json:"fetches_per_second"`
}

// MaxHotKeys and MaxHotKeyBytes limit the hot keys of a State: anybody may choose keys.
const (
	MaxHotKeys     = 20
	MaxHotKeyBytes = 256
)

// DatasetState has the counters of one dataset.
type DatasetState struct {
	Name          string `json:"name"`
	Hits          int64  `json:"hits"`
	LocalHits     int64  `json:"local_hits"`
	PeerHits      int64  `json:"peer_hits"`
	Loads         int64  `json:"loads"`
	Stale         int64  `json:"stale"`
	Negative      int64  `json:"negative"`
	Errors        int64  `json:"errors"`
	OriginQueries int64  `json:"origin_queries"`
	Served        int64  `json:"served"`  // fetches served to other members
	Written       int64  `json:"written"` // rows, for applications
	Entries       int64  `json:"entries"`
	Bytes         int64  `json:"bytes"` // overhead included
	MaxBytes      int64  `json:"max_bytes"`
	// FeedGap is true if the dataset has a change feed that is not live.
	FeedGap bool `json:"feed_gap,omitempty"`
	// Warm is the state of the warm-up; nil without one.
	Warm *WarmState `json:"warm,omitempty"`
}

// WarmState has the counters of a dataset's warm-up.
type WarmState struct {
	Keys     int64 `json:"keys"`    // of the last complete list that this member owns
	Omitted  int64 `json:"omitted"` // of the last complete list, not loaded because the memory was full
	Loaded   int64 `json:"loaded"`
	Passes   int64 `json:"passes"`   // complete lists
	Failures int64 `json:"failures"` // lists that failed
	Pinned   int64 `json:"pinned_bytes"`
}

// Reads is the number of all reads, whatever their result.
func (d DatasetState) Reads() int64 {
	return d.Hits + d.LocalHits + d.PeerHits + d.Loads + d.Stale + d.Negative + d.Errors
}

// MemberState is the State of a member, or the reason why it is unknown.
type MemberState struct {
	ID          string `json:"id"`
	Addr        string `json:"addr"`
	State       *State `json:"state,omitempty"`
	Unreachable string `json:"unreachable,omitempty"`
}

// ClusterState is the response of /api/cluster: the state of all members of the ring, beginning with this one.
type ClusterState struct {
	RingID  string        `json:"ring_id"`
	Self    string        `json:"self"`
	Members []MemberState `json:"members"`
}

// Directory is the state of the member directory.
type Directory struct {
	Kind       string `json:"kind"`       // etcd, dns, static, xds or none
	Connected  bool   `json:"connected"`  // the list of members is known and up to date
	Registered bool   `json:"registered"` // this member is in it
	Role       string `json:"role"`       // of this sidecar: member or client
	Detail     string `json:"detail,omitempty"`
}

// XDS is the state of the xDS publisher.
type XDS struct {
	Version   string `json:"version"`   // of the endpoints; empty before the first list of members
	Endpoints int    `json:"endpoints"` // members in it, leaving ones included
	Clients   int    `json:"clients"`   // that are connected
	Updates   int64  `json:"updates"`
	NACKs     int64  `json:"nacks"` // updates that a client rejected
	LastNACK  *NACK  `json:"last_nack,omitempty"`
}

// NACK is the rejection of an update by an xDS client.
type NACK struct {
	At       time.Time `json:"at"`
	Client   string    `json:"client"`
	Resource string    `json:"resource"`
	Reason   string    `json:"reason"` // as sent by the client
}

// RingState is the response of /api/ring.
type RingState struct {
	ID        string       `json:"id"`
	Self      string       `json:"self"`
	Directory Directory    `json:"directory"`
	XDS       *XDS         `json:"xds,omitempty"`
	Members   []RingMember `json:"members"`
	Entries   int          `json:"entries"`
	// Points are the entries of the ring in ascending order, each as its position and the index of its member. The member
	// owns the positions between the previous entry and this one. Empty if there are more than MaxPoints.
	Points [][2]float64 `json:"points"`
}

// RingMember is one member of a RingState.
type RingMember struct {
	ID      string  `json:"id"`
	Addr    string  `json:"addr"`
	HashKey string  `json:"hash_key"`
	Zone    string  `json:"zone,omitempty"`
	Version string  `json:"version,omitempty"`
	Share   float64 `json:"share"` // of all hashes, 0 to 1
}

// MaxPoints limits the ring entries that a page has to draw; a ring may have millions.
const MaxPoints = 1 << 13

// FormatRingID formats a Ring.ID in hexadecimal, because JavaScript has no 64-bit integers.
func FormatRingID(id uint64) string { return fmt.Sprintf("%016x", id) }
