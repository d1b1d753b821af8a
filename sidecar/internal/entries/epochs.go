package entries

import (
	"hash/maphash"
	"sync/atomic"
)

const epochStripes = 1024

// epochs count the invalidations of keys. Keys share counters: a collision costs a value that is not stored, and never
// stores one that must not be.
type epochs struct {
	seed    maphash.Seed
	stripes [epochStripes]atomic.Uint64
}

func (e *epochs) of(key string) *atomic.Uint64 {
	return &e.stripes[maphash.String(e.seed, key)%epochStripes]
}

func (e *epochs) raiseAll() {
	for i := range e.stripes {
		e.stripes[i].Add(1)
	}
}
