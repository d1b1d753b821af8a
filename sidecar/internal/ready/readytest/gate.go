package readytest

import (
	"sync"
	"sync/atomic"
)

// Gate stops two reads of a dataset: the first one, so that a client can send much to a loop that is busy, and a later one.
type Gate struct {
	later        int64 // the number of the later one
	reads        atomic.Int64
	first, other chan struct{}

	// First and Later let the reads go on.
	First, Later func()
}

// NewGate returns a Gate that stops the first read and that of a number.
func NewGate(later int64) *Gate {
	g := &Gate{later: later, first: make(chan struct{}), other: make(chan struct{})}
	g.First, g.Later = sync.OnceFunc(func() { close(g.first) }), sync.OnceFunc(func() { close(g.other) })
	return g
}

// Reads returns how many reads have begun.
func (g *Gate) Reads() int64 { return g.reads.Load() }

// Read is called by each read.
func (g *Gate) Read() {
	switch g.reads.Add(1) {
	case 1:
		<-g.first
	case g.later:
		<-g.other
	}
}
