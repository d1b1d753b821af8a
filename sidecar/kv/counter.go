package kv

import (
	"sync/atomic"
	"unsafe"
)

// Counter counts what every hit counts. It has several stripes, each in a cache line of its own, so that goroutines on
// different CPUs do not wait for each other's writes. Its zero value is ready.
type Counter struct {
	stripes [1 << counterBits]struct {
		n atomic.Int64
		_ [56]byte
	}
}

const counterBits = 5

// Add adds n. The address of a variable on its stack distinguishes the goroutine: unlike a random number, it is the same
// in the next call, so that a CPU finds the stripe in its own cache.
func (c *Counter) Add(n int64) {
	var onStack byte
	hash := uint64(uintptr(unsafe.Pointer(&onStack))>>11) * 0x9E3779B97F4A7C15
	c.stripes[hash>>(64-counterBits)].n.Add(n)
}

// Load returns the count.
func (c *Counter) Load() (sum int64) {
	for i := range c.stripes {
		sum += c.stripes[i].n.Load()
	}
	return sum
}
