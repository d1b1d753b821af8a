package entries

import (
	"hash/maphash"
	"sync/atomic"
)

// epochStripes is so large that the largest requests to invalidate, of 1000 keys 100 times per second, discard one load of
// 10 ms in 16. All counters take 64 KiB.
const epochStripes = 1 << 14

// epochs count the invalidations of keys. Keys share counters: a collision costs a value that is not stored, and never
// stores one that must not be.
type epochs struct {
	seed    maphash.Seed
	stripes [epochStripes]atomic.Uint32
}

func (e *epochs) of(key string) *atomic.Uint32 {
	return &e.stripes[maphash.String(e.seed, key)%epochStripes]
}

func (e *epochs) raiseAll() {
	for i := range e.stripes {
		e.stripes[i].Add(1)
	}
}
