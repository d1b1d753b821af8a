// Package record is how a member describes itself: in etcd, where any client may have written the record, and in its
// responses to other members. Table has the valid records of a directory in etcd.
package record

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/address"
)

// MaxPrefix limits the prefix of all keys, in bytes.
const MaxPrefix = 256

// Limits of a record, in bytes. Any client of etcd, or any member, may have written it.
const (
	maxRecord  = 64 << 10
	maxID      = 253 // a DNS name, such as the name of a pod
	maxHashKey = 512
	maxText    = 253 // Zone and Version

	// MaxMembers limits the directory, in members.
	MaxMembers = 10_000
)

// Reason says why a record is rejected, as a label of metrics.
type Reason string

// The reasons.
const (
	Oversized Reason = "oversized" // longer than 64 KiB
	Malformed Reason = "malformed" // not the JSON of a record
	Invalid   Reason = "invalid"   // the JSON of a record with an impossible value
	Duplicate Reason = "duplicate" // another member published the hash key or address later
	TooMany   Reason = "too_many"  // beyond 10 000 members
)

// Rejection is the error of one record.
type Rejection struct {
	Reason Reason
	id     string // from the key
	detail string
}

func (r *Rejection) Error() string {
	return fmt.Sprintf("member %.300q: %s: %s", r.id, r.Reason, r.detail)
}

// record is the JSON of a member, the value of PREFIX/members/ID. Unknown fields are ignored: a newer version may write them.
type record struct {
	ID      string    `json:"id"`
	HashKey string    `json:"hash_key,omitempty"`
	Addr    string    `json:"addr"`
	Zone    string    `json:"zone,omitempty"`
	Version string    `json:"version,omitempty"`
	Started time.Time `json:"started"`
	Ring    ring.Size `json:"ring,omitzero"`
	Leaving bool      `json:"leaving,omitempty"`
}

// endpoint is the value of PREFIX/ring/ID: the format of etcd's client/v3/naming/endpoints/internal.Update, with the
// hash key as Metadata. Op 0 is Add.
type endpoint struct {
	Op       int
	Addr     string
	Metadata map[string]string
}

// Encode returns the values of a member's two keys. It returns an error for a member that the others would reject.
func Encode(m ring.Member) (full, stock string, err error) {
	full, err = marshal(record(m))
	if err != nil {
		return "", "", err
	}
	if _, rejected := parse(m.ID, []byte(full)); rejected != nil {
		return "", "", rejected
	}
	stock, err = marshal(endpoint{Addr: m.Addr, Metadata: map[string]string{"hash_key": m.Key()}})
	return full, stock, err
}

// Endpoint returns the value of a key for clients that find members by their addresses. It has no Metadata: clients with an
// etcd resolver of some years ago compare addresses with ==, which panics on a map.
func Endpoint(addr string) (string, error) { return marshal(endpoint{Addr: addr}) }

func marshal(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

// Parse reads the record of the member id, and rejects what cannot be on a ring.
func Parse(id string, value []byte) (ring.Member, error) {
	m, rejected := parse(id, value)
	if rejected != nil {
		return ring.Member{}, rejected
	}
	return m, nil
}

// parse reads the record under PREFIX/members/id.
func parse(id string, value []byte) (ring.Member, *Rejection) {
	reject := func(reason Reason, format string, args ...any) (ring.Member, *Rejection) {
		return ring.Member{}, &Rejection{Reason: reason, id: id, detail: fmt.Sprintf(format, args...)}
	}
	if len(value) > maxRecord {
		return reject(Oversized, "%d bytes, at most %d", len(value), maxRecord)
	}
	if !utf8.Valid(value) {
		return reject(Malformed, "not UTF-8")
	}
	var r record
	err := json.Unmarshal(value, &r)
	if err != nil {
		return reject(Malformed, "%.300q", err.Error())
	}
	if r.ID != id {
		return reject(Invalid, "id %.300q is not that of the member", r.ID)
	}
	r.Started = r.Started.UTC() // or equal records would not compare equal
	if err := r.check(); err != nil {
		return reject(Invalid, "%v", err)
	}
	if r.Addr, err = address.Member(r.Addr); err != nil { //guard:undialable-address-accepted
		return reject(Invalid, "addr: %v", err)
	}
	return ring.Member(r), nil
}

func (r *record) check() error {
	switch {
	case !Printable(r.ID, 1, maxID) || strings.Contains(r.ID, "/"):
		return fmt.Errorf("id: want 1 to %d Printable ASCII characters without a slash", maxID)
	case !Printable(r.HashKey, 0, maxHashKey):
		return fmt.Errorf("hash key: want at most %d Printable ASCII characters", maxHashKey)
	case !readable(r.Zone) || !readable(r.Version):
		return fmt.Errorf("zone or version: want at most %d Printable characters", maxText)
	case r.Started.Year() < 0 || r.Started.Year() > 9999: // RFC 3339 has no other years
		return fmt.Errorf("started: year %d", r.Started.Year())
	}
	return nil
}

// Printable reports whether s has least to most bytes, all ASCII from ! to ~.
func Printable(s string, least, most int) bool {
	outside := func(c rune) bool { return c <= ' ' || c > '~' }
	return len(s) >= least && len(s) <= most && !strings.ContainsFunc(s, outside)
}

func readable(s string) bool {
	hidden := func(c rune) bool { return !unicode.IsPrint(c) }
	return len(s) <= maxText && !strings.ContainsFunc(s, hidden)
}

// Slot says which sidecar holds a slot for members: the value of PREFIX/slots/NUMBER.
type Slot struct {
	ID   string `json:"id"`
	Addr string `json:"addr"`
}

// EncodeSlot returns the value of a slot.
func EncodeSlot(s Slot) (string, error) { return marshal(s) }

// ParseSlot reads the value of a slot, which any client of etcd may have written.
func ParseSlot(value []byte) (Slot, error) {
	var s Slot
	if len(value) > maxRecord {
		return Slot{}, fmt.Errorf("slot: %d bytes, at most %d", len(value), maxRecord)
	}
	if err := json.Unmarshal(value, &s); err != nil {
		return Slot{}, fmt.Errorf("slot: %w", err)
	}
	addr, err := address.Member(s.Addr)
	if err != nil || !Printable(s.ID, 1, maxID) {
		return Slot{}, fmt.Errorf("slot: want an id and an address; got %.300q", value)
	}
	s.Addr = addr
	return s, nil
}

// Read is Parse for a record that another member reports, whose id is that in the record.
func Read(value []byte) (ring.Member, error) {
	var r struct {
		ID string `json:"id"`
	}
	if len(value) > maxRecord {
		return ring.Member{}, fmt.Errorf("record: %d bytes, at most %d", len(value), maxRecord)
	}
	if err := json.Unmarshal(value, &r); err != nil {
		return ring.Member{}, fmt.Errorf("record: %w", err)
	}
	return Parse(r.ID, value)
}
