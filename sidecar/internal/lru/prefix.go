package lru

import (
	"slices"
	"strings"
)

// index finds the keys of a shard that begin with a prefix. It exists while such requests come: it is built by the first one
// and dropped when the keys have changed too much, so that a cache in which nobody asks for prefixes pays nothing.
type index struct {
	sorted  []string // the keys at the time of the build; nil while it is being built
	added   []string // later ones; a key may be in both lists, or in neither place any more
	removed int      // keys of both lists that are not held any more, at most
}

// minChanges is the number of changes that an index survives in any case.
const minChanges = 64

// changedLocked counts a key that was added, or removed if it is empty, and drops an index that has become too inexact. Its
// lists then hold at most a quarter more keys than the shard.
func (s *shard[V]) changedLocked(added string) {
	x := s.index
	if x == nil {
		return
	}
	if added == "" {
		x.removed++
	} else {
		x.added = append(x.added, added)
	}
	if x.sorted != nil && len(x.added)+x.removed > minChanges+len(x.sorted)/4 { //guard:index-of-keys-grows-without-bound
		s.index = nil
	}
}

// RemovePrefixIf is RemoveIf for the keys that begin with prefix. It looks at these only, except once in a while: for one in
// four keys that are stored or removed between two calls, it lists and sorts one.
func (c *Cache[V]) RemovePrefixIf(prefix string, drop func(key string, v V) bool) (removed int) {
	if prefix == "" {
		return c.RemoveIf(drop)
	}
	for i := range c.shards {
		s := &c.shards[i]
		for part := range slices.Chunk(s.keysWith(prefix), sweepBatch) {
			removed += s.removeBatch(part, drop)
		}
	}
	return removed
}

// keysWith returns the keys of the shard that begin with prefix, and perhaps some that it no longer holds.
func (s *shard[V]) keysWith(prefix string) []string {
	if keys, ok := s.lookUp(prefix); ok {
		return keys
	}
	building, keys := s.beginIndex()
	slices.Sort(keys) // without the lock: reads go on
	s.mu.Lock()
	if s.index == building {
		building.sorted = keys
	}
	s.mu.Unlock()
	return within(keys, prefix)
}

// lookUp reports false if there is no index.
func (s *shard[V]) lookUp(prefix string) (keys []string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.index == nil || s.index.sorted == nil {
		return nil, false
	}
	keys = slices.Clone(within(s.index.sorted, prefix))
	for _, key := range s.index.added {
		if strings.HasPrefix(key, prefix) { //guard:prefix-misses-what-was-stored-since
			keys = append(keys, key)
		}
	}
	return keys, true
}

// beginIndex returns the keys of the shard, and an index that collects those that are stored from now on.
func (s *shard[V]) beginIndex() (*index, []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index = new(index)
	return s.index, s.order.Keys()
}

// within returns the part of sorted keys that begin with prefix.
func within(sorted []string, prefix string) []string {
	first, _ := slices.BinarySearch(sorted, prefix)
	n := 0
	for first+n < len(sorted) && strings.HasPrefix(sorted[first+n], prefix) {
		n++
	}
	return sorted[first : first+n]
}
