package adminapi

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// Explanation is the response of /api/explain, and of the same operation for applications.
type Explanation struct {
	Dataset    string   `json:"dataset"`
	Key        string   `json:"key"`
	RouteKey   string   `json:"route_key"`
	Position   float64  `json:"position"` // on the ring, 0 to 1
	RingID     string   `json:"ring_id"`
	Node       string   `json:"node"` // this member
	Owner      string   `json:"owner"`
	Successors []string `json:"successors"`
	// ZoneOwner is the owner of the key among the members of this one's zone. Empty without zones, or if Owner is in this zone.
	ZoneOwner string `json:"zone_owner,omitempty"`
	// Memory is what this member has.
	Memory kv.Explanation `json:"memory"`
	// NextRead is what a read through this member would do now, in words.
	NextRead string `json:"next_read"`
	// Members are the owner, its successors, and the zone owner and this member if they are none of them, in this order.
	Members []KeyMember `json:"members"`
	XDS     *XDS        `json:"xds,omitempty"`
}

// The roles of a member for a key.
const (
	RoleOwner     = "owner"
	RoleSuccessor = "successor"
	RoleZoneOwner = "zone owner"
	RoleReader    = "reader" // this member, which is not the owner or one of its next successors
)

// The states of a member, as this one sees it.
const (
	StateHere        = "this member"
	StateReachable   = "reachable"
	StateLeaving     = "leaving"
	StateBreakerOpen = "breaker open" // it answers, but gets no reads until it has answered a ping
	StateNoAnswer    = "no answer"
	StateUnreachable = "unreachable"
	StateOlder       = "older release" // that has no explanations; it serves reads
	StateNoDataset   = "no such dataset"
	StateInvalid     = "invalid report"
)

// KeyMember is one member in an Explanation.
type KeyMember struct {
	ID    string `json:"id"`
	Zone  string `json:"zone,omitempty"`
	Role  string `json:"role"`
	State string `json:"state"`
	// LogID is the id of the line in the log of this sidecar that says why there is no Key.
	LogID string `json:"log_id,omitempty"`
	// Key is what the member reports; nil if it does not.
	Key *KeyState `json:"key,omitempty"`
}

// KeyState is what one member has of a key, and what it depends on. Members send it to each other in the same form.
type KeyState struct {
	Version string         `json:"version"` // of the program
	RingID  string         `json:"ring_id"`
	Owns    bool           `json:"owns"` // on the ring of that member
	Memory  kv.Explanation `json:"memory"`
	// NextRead is what a read of an application through that member would do now, in words.
	NextRead string `json:"next_read"`
	// RingProblem is why keys have other owners for this member than for others, if it knows: no other member can reach it, or a
	// member has other settings of the ring. Otherwise empty.
	RingProblem string `json:"ring_problem,omitempty"`
	// LastError is the latest load or peer fetch of the key by that member that failed; nil if it has got the key since.
	LastError *LoadError `json:"last_error,omitempty"`
	Origin    KeyOrigin  `json:"origin"`
	Feed      *KeyFeed   `json:"feed,omitempty"` // nil without a change feed
	Policy    kv.Policy  `json:"policy"`
}

// LoadError is a failed load, without its text: that may name hosts, accounts and tables.
type LoadError struct {
	Kind string        `json:"kind"` // a type of problem, as in the errors of the API
	ID   string        `json:"id"`   // of the line with the text in the log of the member
	Ago  time.Duration `json:"ago_ns"`
}

// KeyOrigin is the state of the origin of a dataset at one member.
type KeyOrigin struct {
	Name        string `json:"name"`
	BreakerOpen bool   `json:"breaker_open"`
	Queued      int64  `json:"queued"` // loads that wait for a statement to end
}

// KeyFeed is the state of the change feed of a dataset at one member.
type KeyFeed struct {
	Live    bool  `json:"live"`    // all changes are reported; otherwise there is a gap
	Reading bool  `json:"reading"` // that member reads it from the database
	Gaps    int64 `json:"gaps"`    // since the start of that member
}

// maxKeyStateBytes limits an encoded KeyState.
const maxKeyStateBytes = 16 << 10

// DecodeKeyState decodes the KeyState of another member, which may be anything.
func DecodeKeyState(data []byte) (*KeyState, error) {
	if len(data) > maxKeyStateBytes {
		return nil, fmt.Errorf("the state of the key has %d bytes; at most %d are allowed", len(data), maxKeyStateBytes)
	}
	var s *KeyState
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, stateError(err)
	}
	if s == nil { //guard:null-of-member-ends-process
		return nil, fmt.Errorf("the state of the key is null")
	}
	printable.Clean(s) //guard:key-state-of-member-controls-the-terminal
	return s, nil
}
