// Package idempotency remembers the outcomes of writes that have an ID, so that a retry does not write again.
package idempotency

import (
	"sync"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/ttlmap"
)

const (
	// MaxOutcomes bounds the remembered outcomes of one generation.
	MaxOutcomes = 4096
	// maxBytes bounds the rows of one generation, and so does a share of the dataset's memory: an outcome is the row as it
	// was then.
	maxBytes, share = 16 << 20, 16
	// life is how long an outcome is remembered, unless there are too many.
	life = 5 * time.Minute
)

// Cache maps the IDs of writes to outcomes. It is safe for concurrent use.
type Cache[V any] struct {
	mu       sync.Mutex // guards outcomes
	outcomes *ttlmap.Map[V]
}

// New returns an empty Cache for a dataset whose entries have the given memory.
func New[V any](datasetBytes int64) *Cache[V] {
	return &Cache[V]{outcomes: ttlmap.New[V](MaxOutcomes, int(min(datasetBytes/share, maxBytes)))}
}

// Get returns the outcome of the write with this ID. No outcome of a write without an ID is remembered.
func (c *Cache[V]) Get(id string, now int64) (outcome V, ok bool) {
	if id == "" {
		return outcome, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.outcomes.Get(id, now)
}

// Put remembers the outcome of the write with this ID, whose row has the given size.
func (c *Cache[V]) Put(id string, outcome V, bytes int, now int64) {
	if id == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.outcomes.Put(id, outcome, bytes, now, int64(life))
}

// Len returns how many outcomes are remembered.
func (c *Cache[V]) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.outcomes.Len()
}
