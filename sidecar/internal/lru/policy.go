package lru

import (
	"fmt"
	"strings"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Policy says which entry is dropped first when room is needed.
type Policy string

// The policies.
const (
	// LRU drops what was used least recently.
	LRU Policy = "lru"
	// SLRU is segmented: an entry is on probation until it is used a second time, and protected after that. A scan of
	// keys that are read once passes through the probation segment and leaves the protected one alone. (Karedla, Love
	// and Wherry, "Caching Strategies to Improve Disk System Performance", IEEE Computer 27(3), 1994.)
	SLRU Policy = "slru"
)

func (p Policy) validate() error {
	switch p {
	case "", LRU, SLRU:
		return nil
	}
	return fmt.Errorf("lru: policy %q is unknown; it must be %q or %q", string(p), LRU, SLRU)
}

// order keeps the entries of one shard in the order in which they will be dropped. Get to Len are those of simplelru.
type order[V any] interface {
	Get(key string) (slot[V], bool)
	Peek(key string) (slot[V], bool)
	// Add stores or replaces, and makes the entry the newest. It retains a key that it does not hold yet.
	Add(key string, s slot[V]) bool
	Remove(key string) bool
	Keys() []string
	Len() int
	// evict drops the entry that is due first; there is one. The key last, which was given to Add last if it is held at
	// all, is due only when it is alone, or when all others are pinned.
	evict(last string) (key string, s slot[V])
	// resize tells the bytes that the shard may hold. The shard evicts; the order only divides them.
	resize(share int64)
}

func newOrder[V any](p Policy) order[V] {
	if p == SLRU {
		return newSegmented[V]()
	}
	return newPlain[V]()
}

// plain is the order of LRU. An entry is in one of its lists.
type plain[V any] struct {
	others, pinned *simplelru.LRU[string, slot[V]]
}

func newPlain[V any]() plain[V] { return plain[V]{newList[V](), newList[V]()} }

func (p plain[V]) Get(key string) (slot[V], bool) {
	if held, ok := p.others.Get(key); ok || p.pinned.Len() == 0 {
		return held, ok
	}
	return p.pinned.Get(key)
}

func (p plain[V]) Peek(key string) (slot[V], bool) {
	if held, ok := p.others.Peek(key); ok || p.pinned.Len() == 0 {
		return held, ok
	}
	return p.pinned.Peek(key)
}

func (p plain[V]) Add(key string, next slot[V]) bool {
	to, from := p.others, p.pinned
	if next.pinned {
		to, from = from, to
	}
	if from.Remove(key) {
		key = strings.Clone(key)
	}
	return to.Add(key, next)
}

func (p plain[V]) Remove(key string) bool { return p.others.Remove(key) || p.pinned.Remove(key) }

func (p plain[V]) Keys() []string { return append(p.others.Keys(), p.pinned.Keys()...) }

func (p plain[V]) Len() int { return p.others.Len() + p.pinned.Len() }

// evict takes the end of a list; the key added last is at the other.
func (p plain[V]) evict(string) (string, slot[V]) {
	from := p.others
	if from.Len() == 0 { //guard:pinned-entry-is-evicted
		from = p.pinned
	}
	key, old, _ := from.RemoveOldest()
	return key, old
}

func (plain[V]) resize(int64) {}
