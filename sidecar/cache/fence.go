package cache

import (
	"hash/maphash"
	"sync/atomic"
)

const fenceStripes = 1024

// fences keeps a value whose load began before an invalidation of its key from being stored after it. Keys share
// stripes: a collision costs one value that is not stored, never one that should not be.
type fences struct {
	seed    maphash.Seed
	stripes [fenceStripes]atomic.Uint64
}

// of returns the fence of key. Read it before the load begins, and store only while it still reads the same.
func (f *fences) of(key string) *atomic.Uint64 {
	return &f.stripes[maphash.String(f.seed, key)%fenceStripes]
}

func (f *fences) raiseAll() {
	for i := range f.stripes {
		f.stripes[i].Add(1)
	}
}
