package lru

import (
	"strings"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// protectedPercent is the part of a shard's share that the protected segment may fill. 80 is the usual choice, among
// others of Caffeine and Ristretto; DESIGN.md has what other splits give.
const protectedPercent = 80

// segmented is the order of SLRU. An entry is in exactly one of its segments.
type segmented[V any] struct {
	probation, protected *simplelru.LRU[string, slot[V]]
	protectedBytes       int64
	protectedMax         int64
}

func newSegmented[V any]() *segmented[V] {
	return &segmented[V]{probation: newList[V](), protected: newList[V]()}
}

// Get promotes an entry that is on probation: storing it was its first use, this is its second.
func (s *segmented[V]) Get(key string) (slot[V], bool) {
	if held, ok := s.protected.Get(key); ok {
		return held, true
	}
	held, ok := s.probation.Peek(key)
	if ok {
		s.promote(key, held)
	}
	return held, ok
}

func (s *segmented[V]) promote(key string, held slot[V]) {
	s.probation.Remove(key)
	s.protected.Add(strings.Clone(key), held)
	s.protectedBytes += held.bytes
	s.demote()
}

// demote gives the oldest protected entries another round on probation until the segment is within its bound.
func (s *segmented[V]) demote() {
	for s.protectedBytes > s.protectedMax {
		key, held, _ := s.protected.RemoveOldest()
		s.protectedBytes -= held.bytes
		s.probation.Add(key, held)
	}
}

func (s *segmented[V]) Peek(key string) (slot[V], bool) {
	if held, ok := s.protected.Peek(key); ok {
		return held, true
	}
	return s.probation.Peek(key)
}

// Add replaces an entry in the segment where it is: a reload is not a second use.
func (s *segmented[V]) Add(key string, next slot[V]) bool {
	held, ok := s.protected.Peek(key)
	if !ok {
		return s.probation.Add(key, next)
	}
	s.protected.Add(key, next)
	s.protectedBytes += next.bytes - held.bytes
	s.demote()
	return false
}

func (s *segmented[V]) Remove(key string) bool {
	if held, ok := s.protected.Peek(key); ok {
		s.protectedBytes -= held.bytes
		return s.protected.Remove(key)
	}
	return s.probation.Remove(key)
}

// evict takes from the probation segment unless all that is there is the key last.
func (s *segmented[V]) evict(last string) (string, slot[V]) {
	if key, _, ok := s.probation.GetOldest(); ok && (key != last || s.protected.Len() == 0) {
		key, old, _ := s.probation.RemoveOldest()
		return key, old
	}
	key, old, _ := s.protected.RemoveOldest()
	s.protectedBytes -= old.bytes
	return key, old
}

func (s *segmented[V]) Keys() []string { return append(s.probation.Keys(), s.protected.Keys()...) }

func (s *segmented[V]) Len() int { return s.probation.Len() + s.protected.Len() }

func (s *segmented[V]) resize(share int64) {
	s.protectedMax = share / 100 * protectedPercent
	s.demote()
}
