package audit

import (
	"encoding/json"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/caller"
)

// The actions that are logged.
const (
	Put        = "put"
	Append     = "append"
	Delete     = "delete"
	Invalidate = "invalidate"
	Access     = "access"    // a request that was denied
	Handshake  = "handshake" // a TLS handshake that was rejected
	Reload     = "reload"    // of the configuration
)

// OK is the result of what was done, Accepted that of what is to be done later.
const OK, Accepted = "ok", "accepted"

// maxKeyBytes bounds the keys of one line.
const maxKeyBytes = 16 << 10

// Event is one line. It never has a value, a token, or the text of an error of a database.
type Event struct {
	Action string
	Caller caller.Caller
	// Dataset and what the event is about in it: one key, some keys, the keys with a prefix, or all.
	Dataset, Key, Prefix string
	Keys                 []string
	All                  bool
	// Operation is what was denied: read, write or invalidate.
	Operation string
	// Result is OK, or the type of the error that the client got, such as permission-denied.
	Result string
	// Refused means that nothing was done; see Log.
	Refused bool
	// Detail is for people: why a handshake or a reload failed. It has no secret.
	Detail string
}

// record is an Event as JSON has it.
type record struct {
	Time      time.Time `json:"time"`
	Action    string    `json:"action"`
	Result    string    `json:"result"`
	Caller    string    `json:"caller,omitempty"`
	PID       int32     `json:"pid,omitempty"`
	Address   string    `json:"address,omitempty"`
	Dataset   string    `json:"dataset,omitempty"`
	Operation string    `json:"operation,omitempty"`
	Key       string    `json:"key,omitempty"`
	Keys      []string  `json:"keys,omitempty"`
	MoreKeys  int       `json:"more_keys,omitempty"` // not listed in Keys
	Prefix    string    `json:"prefix,omitempty"`
	All       bool      `json:"all,omitempty"`
	Detail    string    `json:"detail,omitempty"`
	Dropped   int64     `json:"dropped,omitempty"`
}

func (e Event) line(now time.Time) []byte {
	r := record{
		Time: now.UTC(), Action: e.Action, Result: e.Result, Dataset: e.Dataset, Operation: e.Operation,
		Key: e.Key, Prefix: e.Prefix, All: e.All, Detail: e.Detail,
		PID: e.Caller.PID, Address: e.Caller.Addr,
	}
	if e.Action != Reload {
		r.Caller = e.Caller.String()
	}
	r.Keys, r.MoreKeys = fit(e.Keys)
	return r.line()
}

// fit returns the first of keys whose bytes fit into a line, and how many do not.
func fit(keys []string) (some []string, more int) {
	bytes := 0
	for i, key := range keys {
		if bytes += len(key); bytes > maxKeyBytes {
			return keys[:i], len(keys) - i
		}
	}
	return keys, 0
}

// line returns r as JSON, in which control characters and invalid UTF-8 are escaped or replaced: a key cannot begin a line.
func (r record) line() []byte {
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return append(text, '\n')
}

// droppedLine says that lines are missing before it.
func droppedLine(now time.Time, n int64) []byte {
	return record{Time: now.UTC(), Action: "audit", Result: "dropped", Dropped: n,
		Detail: "this many lines before this one are missing"}.line()
}
