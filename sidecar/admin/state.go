package admin

import (
	"fmt"
	"time"

	"github.com/ringside-cache/ringside/sidecar/cache"
)

// State is the response of /api/state: one member's counters since its start. Members send it to each other in the same
// form.
type State struct {
	Node     string         `json:"node"`
	Version  string         `json:"version"`
	RingID   string         `json:"ring_id"`
	Uptime   time.Duration  `json:"uptime_ns"`
	Datasets []DatasetState `json:"datasets"`
}

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
	Kind       string `json:"kind"`       // etcd, static, xds or none
	Connected  bool   `json:"connected"`  // the list of members is known and up to date
	Registered bool   `json:"registered"` // this member is in it
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

// State returns the counters of this member.
func (s Source) State() State {
	state := State{
		Node:     s.Node,
		Version:  s.Version,
		RingID:   FormatRingID(s.Ring().ID()),
		Uptime:   time.Since(s.Started),
		Datasets: make([]DatasetState, 0, len(s.Datasets)),
	}
	for _, d := range s.Datasets {
		state.Datasets = append(state.Datasets, newDatasetState(d))
	}
	return state
}

func newDatasetState(d *cache.Dataset) DatasetState {
	st, memory := d.Stats(), d.Memory()
	live, has := d.FeedLive()
	return DatasetState{
		Name:          d.Name(),
		Hits:          st.Hit.Load(),
		LocalHits:     st.LocalHit.Load(),
		PeerHits:      st.PeerHit.Load(),
		Loads:         st.Load.Load(),
		Stale:         st.Stale.Load(),
		Negative:      st.Negative.Load(),
		Errors:        st.Error.Load(),
		OriginQueries: st.Queries.Load(),
		Served:        st.Served.Load(),
		Written:       st.Written.Load(),
		Entries:       int64(memory.Entries),
		Bytes:         memory.Bytes,
		MaxBytes:      memory.MaxBytes,
		FeedGap:       has && !live,
	}
}

// FormatRingID formats a Ring.ID in hexadecimal, because JavaScript has no 64-bit integers.
func FormatRingID(id uint64) string { return fmt.Sprintf("%016x", id) }
