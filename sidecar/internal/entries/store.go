package entries

import (
	"hash/maphash"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/lru"
)

// Config is the configuration of a Store.
type Config struct {
	// MaxBytes bounds the memory of the entries, overhead included.
	MaxBytes int64
	// Eviction is the lru.Policy.
	Eviction string
	// Now is the dataset's monotonic clock.
	Now func() int64
	// Changed is called with each key whose entry is a different one now, or the first one, and Replaced with those of which another
	// entry was cached, or that were written. Neither must call the Store.
	Changed, Replaced func(key string)
	// Discarded counts loads that were not stored because their key was invalidated after they began; BoundsEvicted counts
	// bounds that were evicted before their lifetime ended.
	Discarded, BoundsEvicted *atomic.Int64
}

// Store holds the entries of a dataset, and the bounds of keys without an entry. It is safe for concurrent use.
type Store struct {
	entries     *lru.Cache[*Entry]
	bounds      *memory
	epochs      epochs
	expirations atomic.Uint64 // how often copies were expired; loads of this member are not concerned, unlike with epochs
	// freshLife is how long what is older than a bound may be fresh somewhere, staleLife how long it may be sent at all,
	// under any policy since the start: entries outlive their policy. Nanoseconds.
	freshLife, staleLife atomic.Int64

	now                      func() int64
	changed, replaced        func(key string)
	discarded, boundsEvicted *atomic.Int64
}

// New returns an empty Store.
func New(c Config) (*Store, error) {
	cache, err := lru.New[*Entry](lru.Config{MaxBytes: c.MaxBytes, Policy: lru.Policy(c.Eviction), EntryOverhead: overhead})
	if err != nil {
		return nil, err
	}
	s := &Store{
		entries: cache, bounds: newMemory(c.MaxBytes), epochs: epochs{seed: maphash.MakeSeed()},
		now: c.Now, changed: c.Changed, replaced: c.Replaced, discarded: c.Discarded, boundsEvicted: c.BoundsEvicted,
	}
	cache.OnEvict(s.observeEvicted)
	if lru.Policy(c.Eviction) != lru.SLRU {
		cache.Pin(func(e *Entry) bool { return e.Pinned })
	}
	return s, nil
}

// SetLifetimes extends the lifetimes of bounds that are learned from now on: fresh is how long any member may answer with
// an entry without a load, stale how long with a stale one.
func (s *Store) SetLifetimes(fresh, stale time.Duration) {
	s.freshLife.Store(max(s.freshLife.Load(), int64(fresh)))
	s.staleLife.Store(max(s.staleLife.Load(), int64(stale))) //guard:lower-ttl-shortens-bounds
}

// Get returns the entry of key and marks it as used. That needs the lock of its shard, so it is marked once per useInterval
// only: entries that are used all the time are far from eviction anyway.
func (s *Store) Get(key string, now int64) (*Entry, bool) {
	e, ok := s.entries.Peek(key)
	if ok && now-e.usedAt.Load() >= useInterval {
		s.markUsed(key, e, now)
	}
	return e, ok
}

func (s *Store) markUsed(key string, e *Entry, now int64) {
	if used := e.usedAt.Load(); now-used >= useInterval && e.usedAt.CompareAndSwap(used, now) {
		e.uses.Store(e.uses.Load()<<((now-used)/useInterval) | 1)
		s.entries.Get(key)
	}
}

const (
	// useInterval is 100 ms.
	useInterval = int64(100e6)
	// useWindows is the number of bits of Entry.uses: 6.4 s.
	useWindows = 64
)

// Peek returns the entry of key without marking it as used.
func (s *Store) Peek(key string) (*Entry, bool) { return s.entries.Peek(key) }

// BoundOf returns what a read of key must not go below: what readers here have seen, or what was invalidated since.
func (s *Store) BoundOf(key string) (b Bound) {
	s.entries.View(key, func(held *Entry, ok bool) {
		b = s.bounds.of(key, s.now())
		switch {
		case !ok:
		case !b.Allows(held, held.Began):
			b = b.Merge(held.Bound())
		default:
			deleted := b.DeletedAfter
			b = held.Bound()
			if held.Negative() { // it may have been loaded before a row came and was deleted again
				b.DeletedAfter = max(b.DeletedAfter, deleted) //guard:deleted-row-returns-where-nothing-was-cached
			}
		}
	})
	return b
}

// Invalidate forbids what b does not allow of key: it removes the entry, discards the loads under way, and reports true.
// It does nothing when the entry has the version already: most invalidations return to the member that caused them.
func (s *Store) Invalidate(key string, b Bound) bool {
	if held, ok := s.entries.Peek(key); ok && b.Version != 0 && held.Version >= b.Version {
		return false
	}
	s.count(s.bounds.report(key, b, s.now(), s.freshLife.Load())) //guard:older-answer-of-an-owner-is-taken-after-an-invalidation
	s.epochs.of(key).Add(1)
	s.removeForbidden(key, b)
	return true
}

// removeForbidden removes the entry of key unless b allows it. Readers have seen it: nothing older may take its place.
func (s *Store) removeForbidden(key string, b Bound) {
	s.entries.RemoveKeyIf(key, func(held *Entry) bool {
		if b.Allows(held, held.Began) {
			return false
		}
		s.observeEvicted(key, held)
		return true
	})
}

// InvalidatePrefix removes the entries whose key begins with prefix and that were loaded before minLoadTime, and discards
// the loads under way of such keys. Other keys are not concerned. With the empty prefix, what is remembered of single keys is
// forgotten: it is all older.
func (s *Store) InvalidatePrefix(prefix string, minLoadTime int64) {
	b := Bound{MinLoadTime: minLoadTime}
	s.bounds.reportPrefix(prefix, b, s.now(), s.staleLife.Load()) // first: a load that ends now must not be stored after it
	s.entries.RemovePrefixIf(prefix, func(_ string, held *Entry) bool { return !b.Allows(held, held.Began) })
}

// ExpireFrom expires the local copies of a member's entries, those under way as well: its invalidations may have been
// missed. They remain bounds for later reads, and stale answers.
func (s *Store) ExpireFrom(member string) {
	s.expirations.Add(1)
	s.expire(func(held *Entry) bool { return held.Owner == member })
}

// ExpireAll expires every entry and discards the loads under way: changes may have been missed. The entries remain bounds
// for later reads, and stale answers.
func (s *Store) ExpireAll() {
	s.epochs.raiseAll() //guard:load-under-way-in-a-feed-gap-is-stored
	s.expire(func(*Entry) bool { return true })
}

func (s *Store) expire(which func(*Entry) bool) {
	s.entries.RemoveIf(func(_ string, held *Entry) bool {
		if which(held) {
			held.expired.Store(true) //guard:expired-copies-are-lost
		}
		return false
	})
}

// observe remembers that readers here know e, where no entry will show it.
func (s *Store) observe(key string, e *Entry) {
	s.count(s.bounds.observe(key, e, s.now(), s.staleLife.Load()))
}

// observeEvicted remembers the bound of an entry that is removed. A key that has never existed is not worth it: anybody
// can ask for such keys, and would evict the bounds of those that exist. See Ticket.Put for one that has existed.
func (s *Store) observeEvicted(key string, e *Entry) {
	if s.isWorthABound(e, s.now()) { //guard:evicted-entry-leaves-no-bound
		s.observe(key, e)
	}
}

func (s *Store) isWorthABound(e *Entry, now int64) bool {
	return now < e.Began+s.staleLife.Load() && (!e.NotFound || e.Version != 0)
}

func (s *Store) count(evicted int) {
	if evicted > 0 {
		s.boundsEvicted.Add(int64(evicted))
	}
}

// Sweep removes the entries that no read can use any more, and the bounds that have expired.
func (s *Store) Sweep() (removed int) {
	now := s.now()
	s.bounds.sweep(now)
	return s.entries.RemoveIf(func(key string, e *Entry) bool {
		if !e.dead(now) { //guard:dead-entries-hold-memory
			return false
		}
		s.observeEvicted(key, e)
		return true
	})
}

// AllKeys returns the keys of all entries in one part of the memory, in no order, and how many parts there are.
func (s *Store) AllKeys(part int) (keys []string, parts int) {
	if parts = s.entries.Shards(); part < 0 || part >= parts {
		return nil, parts
	}
	return s.entries.ShardKeys(part), parts
}

// Keys returns the keys with a value, fresh or stale, in one part of the memory, in no order, and how many parts there are.
func (s *Store) Keys(part int) (keys []string, parts int) {
	keys, parts = s.AllKeys(part)
	now := s.now()
	return slices.DeleteFunc(keys, func(key string) bool {
		e, ok := s.entries.Peek(key)
		return !ok || e.Negative() || !e.Fresh(now) && !e.Usable(now)
	}), parts
}

// Resize changes the bound of the entries' memory.
func (s *Store) Resize(maxBytes int64) { s.entries.Resize(maxBytes) }

// Stats returns the memory of the entries.
func (s *Store) Stats() lru.Stats { return s.entries.Stats() }

// Bounds returns how many keys have a bound without an entry, and how many can have one.
func (s *Store) Bounds() (n, most int) { return s.bounds.len() }
