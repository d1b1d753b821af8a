package admin

import (
	"math"

	"github.com/ringside-cache/ringside/ring"
)

// maxPoints limits the ring entries that a page has to draw; a ring may have millions.
const maxPoints = 1 << 13

// RingState is the response of /api/ring.
type RingState struct {
	ID        string       `json:"id"`
	Self      string       `json:"self"`
	Directory Directory    `json:"directory"`
	XDS       *XDS         `json:"xds,omitempty"`
	Members   []RingMember `json:"members"`
	Entries   int          `json:"entries"`
	// Points are the entries of the ring in ascending order, each as its position and the index of its member. The member
	// owns the positions between the previous entry and this one. Empty if there are more than maxPoints.
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

func newRingState(r *ring.Ring, self string, d Directory) RingState {
	v := RingState{ID: FormatRingID(r.ID()), Self: self, Directory: d, Members: []RingMember{}, Points: [][2]float64{}}
	index := make(map[string]int, r.Len())
	for i, m := range r.Members() {
		index[m.ID] = i
		v.Members = append(v.Members, RingMember{
			ID: m.ID, Addr: m.Addr, HashKey: m.Key(), Zone: m.Zone, Version: m.Version,
		})
	}
	var last uint64
	for hash := range r.Entries() {
		last = hash
		v.Entries++
	}
	before := last // the ring is circular
	for hash, m := range r.Entries() {
		i := index[m.ID]
		v.Members[i].Share += float64(hash-before) / (1 << 64)
		before = hash
		if v.Entries <= maxPoints {
			v.Points = append(v.Points, [2]float64{position(hash), float64(i)})
		}
	}
	if v.Entries == 1 {
		v.Members[0].Share = 1 // its single entry owns the whole ring
	}
	return v
}

// position returns hash as a fraction of the ring, rounded to a millionth: finer than any screen.
func position(hash uint64) float64 { return math.Round(float64(hash)/(1<<64)*1e6) / 1e6 }
