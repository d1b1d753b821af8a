package lru

import (
	"sync"

	"github.com/ringside-cache/ringside/sidecar/internal/stripe"
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
	_ [stripe.Line - 8]byte
}

// reader returns the mutex of the calling goroutine.
func (l *stripedLock) reader() *sync.Mutex { return &l[stripe.Of(stripeBits)].Mutex }

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
