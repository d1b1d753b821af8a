package kv

import "time"

// Explanation is what this member's memory has of one key. Durations are zero if there is no entry.
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
}
