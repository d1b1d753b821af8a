package admin

import (
	"math"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
)

func newRingState(r *ring.Ring, self string, d adminapi.Directory) adminapi.RingState {
	v := adminapi.RingState{
		ID: adminapi.FormatRingID(r.ID()), Self: self, Directory: d, Members: []adminapi.RingMember{}, Points: [][2]float64{},
	}
	index := make(map[string]int, r.Len())
	for i, m := range r.Members() {
		index[m.ID] = i
		v.Members = append(v.Members, adminapi.RingMember{
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
		if v.Entries <= adminapi.MaxPoints {
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
