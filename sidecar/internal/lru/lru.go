// Package lru is a cache bounded by bytes, sharded, on the simplelru of hashicorp/golang-lru. It has no notion of time
// to live: the caller checks that, and removes expired entries.
package lru

import (
	"fmt"
	"hash/maphash"
	"math"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// entryOverhead is what one entry costs beside its key and its payload, in bytes: a list element of simplelru (96), its
// slot in the map at the mean load of a Go map (about 40), and the rounding of the key to a size class.
// TestAccountedBytesMatchHeap holds it against the heap.
const entryOverhead = 144

// sweepBatch is how many entries a sweep looks at before it lets go of the shard's lock for a moment.
const sweepBatch = 128

// Config is what a Cache is made of.
type Config struct {
	// MaxBytes bounds keys, payloads and overhead together; positive. Each shard has an equal share of it.
	MaxBytes int64
	// Policy says what is dropped first; empty is LRU.
	Policy Policy
	// Shards is how many locks there are: a power of two, or 0 for DefaultShards.
	Shards int
	// EntryOverhead is what one V takes beside its payload, in bytes; not negative.
	EntryOverhead int
}

func (c Config) validate() error {
	switch {
	case c.MaxBytes <= 0:
		return fmt.Errorf("lru: MaxBytes is %d; it must be positive", c.MaxBytes)
	case c.Shards < 0 || c.Shards&(c.Shards-1) != 0:
		return fmt.Errorf("lru: Shards is %d; it must be a power of two, or 0 for the default", c.Shards)
	case c.EntryOverhead < 0:
		return fmt.Errorf("lru: EntryOverhead is %d; it must not be negative", c.EntryOverhead)
	}
	return c.Policy.validate()
}

// Cache maps keys to values within a bound of bytes. It is safe for concurrent use.
type Cache[V any] struct {
	seed     maphash.Seed
	shards   []shard[V] // a power of two of them
	overhead int64      // bytes of every entry beside key and payload
	maxBytes atomic.Int64
}

// New returns an empty cache.
func New[V any](cfg Config) (*Cache[V], error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	n := cfg.Shards
	if n == 0 {
		n = DefaultShards(cfg.MaxBytes)
	}
	c := &Cache[V]{
		seed:     maphash.MakeSeed(),
		shards:   make([]shard[V], n),
		overhead: entryOverhead + int64(cfg.EntryOverhead),
	}
	for i := range c.shards {
		c.shards[i].order, c.shards[i].getMoves = newOrder[V](cfg.Policy), cfg.Policy != SLRU //guard:use-moves-an-entry-that-is-being-read
	}
	c.Resize(cfg.MaxBytes)
	return c, nil
}

// OnEvict has f called with each entry that is dropped to make room, under the lock of its shard: f must be quick and
// must not call the cache. It may keep the key. Call OnEvict before the cache is used.
func (c *Cache[V]) OnEvict(f func(key string, v V)) {
	for i := range c.shards {
		c.shards[i].evicted = f
	}
}

func (c *Cache[V]) shardOf(key string) *shard[V] {
	return &c.shards[maphash.String(c.seed, key)&uint64(len(c.shards)-1)]
}

// Get returns what is held for key and marks it as used. The key is not retained, so it may be a view of memory that
// the caller reuses. Get does not allocate, except for the one hit that promotes an entry under SLRU.
func (c *Cache[V]) Get(key string) (V, bool) {
	s := c.shardOf(key)
	if !s.getMoves {
		s.mu.Lock()
		held, ok := s.order.Get(key)
		s.mu.Unlock()
		return held.v, ok
	}
	mu := s.mu.reader() // against writers, but not against Peek
	mu.Lock()
	s.use.Lock()
	held, ok := s.order.Get(key)
	s.use.Unlock()
	mu.Unlock()
	return held.v, ok
}

// Peek returns what is held for key without marking it as used. The key is not retained. Peeks of several goroutines do not
// wait for each other.
func (c *Cache[V]) Peek(key string) (V, bool) {
	s := c.shardOf(key)
	mu := s.mu.reader()
	mu.Lock()
	held, ok := s.order.Peek(key)
	mu.Unlock()
	return held.v, ok
}

// View calls look with what is held for key, without marking it as used. Nothing of the shard changes meanwhile; look must
// be quick and must not call the cache.
func (c *Cache[V]) View(key string, look func(held V, ok bool)) {
	s := c.shardOf(key)
	mu := s.mu.reader()
	mu.Lock()
	defer mu.Unlock()
	held, ok := s.order.Peek(key)
	look(held.v, ok)
}

// Pin has pinned called with each entry that is stored: entries for which it returns true are evicted after all others. Call
// Pin before the cache is used, and only with the policy LRU.
func (c *Cache[V]) Pin(pinned func(v V) bool) {
	for i := range c.shards {
		c.shards[i].pinned = pinned
	}
}

// Update calls decide with what is held for key and, when it says keep, stores the value that it returns. Size is the
// payload of that value in bytes; the length of the key and the overhead are added here. Decide runs under the lock
// that Remove takes, so what it checks still holds when the value is stored; it must be quick and must not call the
// cache. The key is not retained.
//
// A value larger than a shard's share (MaxBytes / shards) is not stored; what was held for the key is then dropped,
// and Stats.TooLarge counts it.
func (c *Cache[V]) Update(key string, size int, decide func(held V, ok bool) (v V, keep bool)) (stored bool) {
	s := c.shardOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	held, ok := s.order.Peek(key)
	v, keep := decide(held.v, ok)
	if !keep {
		return false
	}
	next := slot[V]{v: v, bytes: c.overhead + int64(len(key)) + int64(size)}
	next.pinned = s.pinned != nil && s.pinned(v)
	return s.storeLocked(key, held, ok, next)
}

// Remove drops what is held for key and reports whether there was anything.
func (c *Cache[V]) Remove(key string) bool {
	s := c.shardOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.removeLocked(key)
}

// RemoveKeyIf removes the entry of key if drop returns true, and reports whether it did. Drop runs as decide does in Update.
func (c *Cache[V]) RemoveKeyIf(key string, drop func(v V) bool) bool {
	s := c.shardOf(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	held, ok := s.order.Peek(key)
	return ok && drop(held.v) && s.removeLocked(key)
}

// RemoveIf removes every entry for which drop returns true, shard by shard; see SweepShard.
func (c *Cache[V]) RemoveIf(drop func(key string, v V) bool) (removed int) {
	for i := range c.shards {
		removed += c.SweepShard(i, drop)
	}
	return removed
}

// ByUse calls yield with the entries until it returns false: in each shard those first that would be evicted last, and all shards
// in turn, because use is known per shard only. It marks nothing as used. An entry that is stored meanwhile may not be offered.
func (c *Cache[V]) ByUse(yield func(key string, v V) bool) {
	keys, longest := make([][]string, len(c.shards)), 0
	for i := range c.shards {
		keys[i] = c.shards[i].keys()
		longest = max(longest, len(keys[i]))
	}
	for n := 1; n <= longest; n++ {
		for _, of := range keys {
			if n > len(of) {
				continue
			}
			key := of[len(of)-n] //guard:least-used-entries-survive-a-restart
			if v, ok := c.Peek(key); ok && !yield(key, v) {
				return
			}
		}
	}
}

// Shards returns how many shards there are.
func (c *Cache[V]) Shards() int { return len(c.shards) }

// ShardKeys returns the keys of shard i, 0 to Shards()-1. It marks nothing as used.
func (c *Cache[V]) ShardKeys(i int) []string { return c.shards[i].keys() }

// SweepShard removes the entries of shard i, 0 to Shards()-1, for which drop returns true. It marks nothing as used. Every
// entry that is held from its beginning to its end is offered once; one that is stored meanwhile may not be. The lock
// is held to list the keys, and then for a batch of entries at a time. Drop must be quick and must not call the cache.
func (c *Cache[V]) SweepShard(i int, drop func(key string, v V) bool) (removed int) {
	s := &c.shards[i]
	keys := s.keys()
	for len(keys) > 0 {
		n := min(len(keys), sweepBatch)
		removed += s.removeBatch(keys[:n], drop)
		keys = keys[n:]
	}
	return removed
}

// Resize changes the bound and drops what no longer fits. The number of shards stays.
func (c *Cache[V]) Resize(maxBytes int64) {
	maxBytes = max(maxBytes, 0)
	c.maxBytes.Store(maxBytes)
	for i := range c.shards {
		c.shards[i].resize(maxBytes / int64(len(c.shards)))
	}
}

// Stats are sums over all shards, each read at its own moment.
type Stats struct {
	Entries   int
	Bytes     int64  // keys, payloads and overhead of what is held; never above MaxBytes
	MaxBytes  int64  // the bound
	Evictions uint64 // entries dropped to make room, since the start
	TooLarge  uint64 // values not stored because they exceed a shard's share, since the start
	Pinned    int64  // bytes of the entries that are evicted after all others
}

// Stats returns what is held and what was dropped.
func (c *Cache[V]) Stats() Stats {
	sum := Stats{MaxBytes: c.maxBytes.Load()}
	for i := range c.shards {
		c.shards[i].addTo(&sum)
	}
	return sum
}

// slot is a value with what it is accounted for.
type slot[V any] struct {
	v      V
	bytes  int64
	pinned bool
}

// shard is one part of the keys with a lock and a share of the bytes of its own.
type shard[V any] struct {
	mu        stripedLock
	use       sync.Mutex            // of Get where getMoves; taken after a stripe of mu
	getMoves  bool                  // Get of order only moves an entry in its list, at which no Peek looks
	order     order[V]              // mu
	bytes     int64                 // mu; sum of slot.bytes, at most share
	share     int64                 // mu
	evictions uint64                // mu
	tooLarge  uint64                // mu
	evicted   func(key string, v V) // nil, or as in OnEvict
	pinned    func(v V) bool        // nil, or as in Pin
	pinnedSum int64                 // mu; sum of slot.bytes of pinned entries
	index     *index                // mu; nil while no prefix was looked for
}

func (s *shard[V]) storeLocked(key string, held slot[V], replace bool, next slot[V]) bool {
	if next.bytes > s.share {
		s.tooLarge++
		s.removeLocked(key)
		return false
	}
	if !replace {
		key = strings.Clone(key) //guard:entry-holds-buffer-request
		s.changedLocked(key)
	}
	s.order.Add(key, next)
	s.addLocked(held, -1)
	s.addLocked(next, 1)
	s.evictLocked(key)
	return true
}

// evictLocked drops entries until the rest fits. The one that was stored last goes after all others.
func (s *shard[V]) evictLocked(last string) {
	for s.bytes > s.share {
		key, gone := s.order.evict(last)
		s.addLocked(gone, -1)
		s.changedLocked("")
		s.evictions++
		if s.evicted != nil {
			s.evicted(key, gone.v)
		}
	}
}

// addLocked counts a slot, or with -1 one that is gone.
func (s *shard[V]) addLocked(held slot[V], sign int64) {
	s.bytes += sign * held.bytes
	if held.pinned {
		s.pinnedSum += sign * held.bytes
	}
}

func (s *shard[V]) removeLocked(key string) bool {
	held, ok := s.order.Peek(key)
	if ok {
		s.order.Remove(key)
		s.addLocked(held, -1)
		s.changedLocked("")
	}
	return ok
}

func (s *shard[V]) keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.order.Keys()
}

func (s *shard[V]) removeBatch(keys []string, drop func(key string, v V) bool) (removed int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		if held, ok := s.order.Peek(key); ok && drop(key, held.v) {
			s.removeLocked(key)
			removed++
		}
	}
	return removed
}

func (s *shard[V]) resize(share int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.share = share
	s.order.resize(share)
	s.evictLocked("")
}

func (s *shard[V]) addTo(sum *Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum.Entries += s.order.Len()
	sum.Bytes += s.bytes
	sum.Evictions += s.evictions
	sum.TooLarge += s.tooLarge
	sum.Pinned += s.pinnedSum
}

func newList[V any]() *simplelru.LRU[string, slot[V]] {
	// NewLRU fails only for a size that is not positive. Bytes are what bounds the list.
	l, _ := simplelru.NewLRU[string, slot[V]](math.MaxInt, nil)
	return l
}
