package kv

import (
	"sync/atomic"

	"github.com/ringside-cache/ringside/sidecar/internal/stripe"
)

// Counter counts what every hit counts. It has several stripes, each in a cache line of its own, so that goroutines on
// different CPUs do not wait for each other's writes. Its zero value is ready.
type Counter struct {
	stripes [1 << counterBits]struct {
		n atomic.Int64
		_ [stripe.Line - 8]byte
	}
}

const counterBits = 5

// Add adds n.
func (c *Counter) Add(n int64) { c.stripes[stripe.Of(counterBits)].n.Add(n) }

// Load returns the count.
func (c *Counter) Load() (sum int64) {
	for i := range c.stripes {
		sum += c.stripes[i].n.Load()
	}
	return sum
}
