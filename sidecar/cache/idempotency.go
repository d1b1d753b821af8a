package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/ttlmap"
)

const (
	// maxOutcomes bounds the remembered outcomes of one generation.
	maxOutcomes = 4096
	// maxOutcomeBytes bounds the rows of one generation, and so does a share of the dataset's memory: an outcome is the row
	// as it was then.
	maxOutcomeBytes, outcomeShare = 16 << 20, 16
	// outcomeLife is how long an outcome is remembered, unless there are too many.
	outcomeLife = 5 * time.Minute
)

// idempotencyCache remembers the outcomes of writes that have an ID, so that a retry does not write again.
type idempotencyCache struct {
	mu       sync.Mutex // guards outcomes
	outcomes *ttlmap.Map[result]
}

func newIdempotencyCache(maxBytes int64) *idempotencyCache {
	return &idempotencyCache{outcomes: ttlmap.New[result](maxOutcomes, int(min(maxBytes/outcomeShare, maxOutcomeBytes)))}
}

func (ic *idempotencyCache) get(c Change, now int64) (result, bool) {
	if c.ID == "" {
		return result{}, false
	}
	ic.mu.Lock()
	defer ic.mu.Unlock()
	return ic.outcomes.Get(c.ID, now)
}

func (ic *idempotencyCache) put(c Change, res result, now int64) {
	if c.ID == "" {
		return
	}
	ic.mu.Lock()
	defer ic.mu.Unlock()
	ic.outcomes.Put(c.ID, res, len(res.entry.Value), now, int64(outcomeLife))
}

// digestOf distinguishes writes that have the same ID.
func digestOf(c Change) uint64 {
	if c.ID == "" {
		return 0
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %t %q %v", c.Key, c.Delete, c.Value, c.If))
	return binary.LittleEndian.Uint64(sum[:])
}
