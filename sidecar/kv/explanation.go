package kv

import "time"

// Explanation is what one member has of a key, and what it would do to read it. Durations are zero if there is no entry.
type Explanation struct {
	Held   bool `json:"cached"`
	Absent bool `json:"not_found,omitempty"`
	// DataError is why the rows of the key cannot be a value.
	DataError string `json:"data_error,omitempty"`
	Local     bool   `json:"local_copy,omitempty"`
	Owner     string `json:"copied_from,omitempty"` // node id, of a local copy
	Version   int64  `json:"version,omitempty"`
	ETag      string `json:"etag,omitempty"`
	Bytes     int    `json:"bytes,omitempty"`
	Content   string `json:"content,omitempty"` // json, text, bytes, or unknown
	// Age is the time since the load of the entry began, an upper bound.
	Age time.Duration `json:"age_ns,omitempty"`
	// Fresh is how long the entry stays fresh; negative if its ttl has passed, 0 if it was expired before.
	Fresh time.Duration `json:"fresh_ns,omitempty"`
	// Usable is how long the entry may be sent as a stale answer; negative if that time has passed.
	Usable time.Duration `json:"usable_ns,omitempty"`
	// LastLoad is how long the load or the peer fetch of the entry took.
	LastLoad time.Duration `json:"last_load_ns,omitempty"`
	// Why is the reason of that load; see entries.Reason.
	Why string `json:"reason,omitempty"`
	// Failing: the last refresh has failed, and stale answers are sent.
	Failing bool `json:"failing,omitempty"`

	Bound ReadBound   `json:"read_bound"`
	Reads RecentReads `json:"recent_reads"`
	Next  NextRead    `json:"next"`
}

// ReadBound is the oldest result of the key that a read through this member may return. Zero allows everything.
type ReadBound struct {
	// Version allows this version and later ones.
	Version int64 `json:"version,omitempty"`
	// LoadedWithin, where versions do not decide, allows what was loaded at most so long ago.
	LoadedWithin time.Duration `json:"loaded_within_ns,omitempty"`
}

// RecentReads is in how many of the latest windows of time the entry was read: by applications, or for other members. Reads are
// not counted one by one, because that would cost each hit of a hot key a write to shared memory.
type RecentReads struct {
	Windows int           `json:"windows"` // with a read
	Of      int           `json:"of"`
	Window  time.Duration `json:"window_ns"`
	// Last is the time since the latest read that was noted: of reads within one Window only the first is.
	Last time.Duration `json:"last_ns,omitempty"`
	// Fetches is how often other members fetch the key from this one per second, at least, if they fetch it more often than most
	// keys; see package hotkeys.
	Fetches float64 `json:"fetches_per_second,omitempty"`
}

// Action is what a read does.
type Action string

// The actions.
const (
	ActHit        Action = "hit"              // answer from memory
	ActStale      Action = "stale"            // answer at once with the stale entry, without a load
	ActRevalidate Action = "stale-revalidate" // answer at once with the stale entry, and load in the background
	ActLoad       Action = "load"             // query the origin
	ActFetch      Action = "fetch"            // ask another member
	ActJoin       Action = "join"             // wait for the load or the peer fetch that is running
)

// NextRead is what a read without options would do now.
type NextRead struct {
	Action Action `json:"action"`
	// From is the member to ask, of ActFetch; Successor is asked if it does not answer, and empty if that is this member.
	From      string `json:"from,omitempty"`
	Successor string `json:"successor,omitempty"`
	// Zone is the member to ask before From, of ActFetch: it owns the key among the members of this one's zone, and asks From. Empty
	// without zones, or if From is in this zone.
	Zone string `json:"zone_owner,omitempty"`
	// Previous is the member to ask before a load, because it owned the key until just now.
	Previous string `json:"previous,omitempty"`
	// Stale: if the load or the fetch fails, the stale entry is the answer.
	Stale bool `json:"stale_if_error,omitempty"`
	// Detail is why the answer is stale; see Answer.Detail.
	Detail string `json:"detail,omitempty"`
}
