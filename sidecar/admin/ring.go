package admin

import (
	"math"

	"github.com/ringside-cache/ringside/ring"
)

// maxPoints bounds the entries that a page gets to draw; a ring may have millions.
const maxPoints = 1 << 13

type ringView struct {
	ID        string       `json:"id"`
	Self      string       `json:"self"`
	Directory Directory    `json:"directory"`
	Feed      *Feed        `json:"feed,omitempty"`
	Members   []memberView `json:"members"`
	Entries   int          `json:"entries"`
	// Points are the ring's entries in ascending order, each as its position and the index of its member. An entry's
	// member owns what lies between the entry before and this one. Empty when there are more than maxPoints.
	Points [][2]float64 `json:"points"`
}

type memberView struct {
	ID      string  `json:"id"`
	Addr    string  `json:"addr"`
	HashKey string  `json:"hash_key"`
	Zone    string  `json:"zone,omitempty"`
	Version string  `json:"version,omitempty"`
	Share   float64 `json:"share"` // of all hashes that it owns, 0 to 1
}

func newRingView(r *ring.Ring, self string, d Directory) ringView {
	v := ringView{ID: FormatRingID(r.ID()), Self: self, Directory: d, Members: []memberView{}, Points: [][2]float64{}}
	index := make(map[string]int, r.Len())
	for i, m := range r.Members() {
		index[m.ID] = i
		v.Members = append(v.Members, memberView{
			ID: m.ID, Addr: m.Addr, HashKey: m.Key(), Zone: m.Zone, Version: m.Version,
		})
	}
	var last uint64
	for hash := range r.Entries() {
		last = hash
		v.Entries++
	}
	before := last // the ring is closed
	for hash, m := range r.Entries() {
		i := index[m.ID]
		v.Members[i].Share += float64(hash-before) / (1 << 64)
		before = hash
		if v.Entries <= maxPoints {
			v.Points = append(v.Points, [2]float64{position(hash), float64(i)})
		}
	}
	if v.Entries == 1 {
		v.Members[0].Share = 1 // from its one entry all the way round
	}
	return v
}

// position is hash as a share of the ring, to the millionth: finer than any screen.
func position(hash uint64) float64 { return math.Round(float64(hash)/(1<<64)*1e6) / 1e6 }
