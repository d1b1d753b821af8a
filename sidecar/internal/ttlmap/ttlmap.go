// Package ttlmap is a map whose values expire. It is bounded in number and in size, and keeps its values in two
// generations, so that neither expiry nor the bounds need a list or a timer.
package ttlmap

// Map maps keys to values that expire. Times are nanoseconds on a clock of the caller. It is not safe for concurrent use.
type Map[V any] struct {
	maxItems, maxSize int // of one generation
	young, old        map[string]item[V]
	size              int   // of young
	turn              int64 // when young becomes old
}

type item[V any] struct {
	value V
	until int64
	size  int
}

// New returns an empty Map that holds two generations of at most maxItems values each. A generation whose values have a
// size of maxSize is full as well; a single value may be larger.
func New[V any](maxItems, maxSize int) *Map[V] {
	return &Map[V]{maxItems: maxItems, maxSize: maxSize, young: map[string]item[V]{}}
}

// Get returns the value of key, unless it has expired.
func (m *Map[V]) Get(key string, now int64) (value V, ok bool) {
	it, ok := m.young[key]
	if !ok {
		it, ok = m.old[key]
	}
	if !ok || now >= it.until { //guard:values-outlive-their-ttl
		return value, false
	}
	return it.value, true
}

// Put sets the value of key until now+life. It returns how many other values it evicted before they expired.
func (m *Map[V]) Put(key string, value V, size int, now, life int64) (evicted int) {
	replaced := m.young[key]
	switch {
	case now >= m.turn:
		m.rotate(now, life)
	case len(m.young) >= m.maxItems, len(m.young) > 0 && m.size-replaced.size+size > m.maxSize: //guard:map-exceeds-its-bound guard:large-values-exceed-the-bound
		evicted = unexpired(m.old, now)
		m.rotate(now, life)
	default:
		m.size -= replaced.size
	}
	m.young[key] = item[V]{value, now + life, size}
	m.size += size
	return evicted
}

func (m *Map[V]) rotate(now, life int64) {
	m.old, m.young, m.size, m.turn = m.young, map[string]item[V]{}, 0, now+life
}

func unexpired[V any](items map[string]item[V], now int64) (n int) {
	for _, it := range items {
		if now < it.until {
			n++
		}
	}
	return n
}

// Delete removes key.
func (m *Map[V]) Delete(key string) {
	m.size -= m.young[key].size
	delete(m.young, key)
	delete(m.old, key)
}

// Clear removes all keys.
func (m *Map[V]) Clear() { m.old, m.young, m.size = nil, map[string]item[V]{}, 0 }

// Sweep removes the values that have expired.
func (m *Map[V]) Sweep(now int64) {
	for key, it := range m.young {
		if now >= it.until {
			m.size -= it.size
			delete(m.young, key)
		}
	}
	for key, it := range m.old {
		if now >= it.until {
			delete(m.old, key)
		}
	}
}

// All calls yield with the values that have not expired, and when they will.
func (m *Map[V]) All(now int64, yield func(key string, value V, until int64)) {
	for key, it := range m.old {
		if _, replaced := m.young[key]; !replaced && now < it.until {
			yield(key, it.value, it.until)
		}
	}
	for key, it := range m.young {
		if now < it.until {
			yield(key, it.value, it.until)
		}
	}
}

// Len returns how many values are held. Some may have expired.
func (m *Map[V]) Len() int { return len(m.young) + len(m.old) }

// Cap returns how many values can be held.
func (m *Map[V]) Cap() int { return 2 * m.maxItems }
