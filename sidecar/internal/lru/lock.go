package lru

import (
	"sync"
	"unsafe"
)

const (
	stripeBits = 3
	stripes    = 1 << stripeBits
)

// stripedLock is a lock for many readers and few writers: a reader takes one of several mutexes, and a writer takes all.
// Each is in a cache line of its own, so that readers on different CPUs do not wait for each other's writes, which they do
// with a sync.RWMutex.
type stripedLock [stripes]struct {
	sync.Mutex
	_ [56]byte
}

// reader returns the mutex of the calling goroutine. The address of a variable on its stack distinguishes the goroutine,
// and is the same at the next call, so that a CPU finds the mutex in its own cache.
func (l *stripedLock) reader() *sync.Mutex {
	var onStack byte
	hash := uint64(uintptr(unsafe.Pointer(&onStack))>>11) * 0x9E3779B97F4A7C15
	return &l[hash>>(64-stripeBits)].Mutex
}

func (l *stripedLock) Lock() {
	for i := range l {
		l[i].Lock()
	}
}

func (l *stripedLock) Unlock() {
	for i := range l {
		l[i].Unlock()
	}
}
