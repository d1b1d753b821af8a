package entries

import (
	"sync"

	"github.com/ringside-cache/ringside/sidecar/internal/ttlmap"
)

const (
	// minBounds and maxBounds limit one generation of remembered bounds; between them it is one bound for bytesPerBound of
	// the dataset's memory.
	minBounds     = 1 << 10
	maxBounds     = 1 << 16
	bytesPerBound = 4 << 10
	// boundKeyBytes is the average length of the keys of a full generation. Of longer keys, fewer fit.
	boundKeyBytes = 64
	// maxPrefixes limits the remembered prefixes: 100 invalidations per second for 40 s.
	maxPrefixes = 1 << 12
)

// memory remembers the bounds of keys that have no entry. Each bound has a lifetime of its own.
type memory struct {
	mu sync.Mutex // guards all below; also taken while the lock of a shard is held
	// observed has what readers here were sent or have written. It is needed for as long as anything older may be sent,
	// even as a stale answer.
	observed *ttlmap.Map[remembered]
	// reported has what others have invalidated. It is needed for as long as anything older may be fresh.
	reported *ttlmap.Map[remembered]
	// prefixes has the bounds of all keys with a prefix; with the empty one, of all keys.
	prefixes *prefixes
}

// remembered is a bound and the end of its version. A later bound that is merged must not extend the life of a version
// that may be wrong.
type remembered struct {
	Bound
	versionUntil int64
}

func newMemory(maxBytes int64) *memory {
	most := int(min(max(maxBytes/bytesPerBound, minBounds), maxBounds))
	generation := func() *ttlmap.Map[remembered] { return ttlmap.New[remembered](most, most*boundKeyBytes) }
	return &memory{observed: generation(), reported: generation(), prefixes: newPrefixes(min(most, maxPrefixes))}
}

// of returns the bound of key.
func (m *memory) of(key string, now int64) Bound {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ofLocked(key, now)
}

func (m *memory) ofLocked(key string, now int64) Bound {
	b := boundIn(m.observed, key, now).Merge(boundIn(m.reported, key, now).Bound)
	return m.prefixes.of(key, b, now)
}

func boundIn(bounds *ttlmap.Map[remembered], key string, now int64) remembered {
	r, _ := bounds.Get(key, now)
	if now >= r.versionUntil {
		r.Version = 0 //guard:later-bounds-renew-a-wrong-version
	}
	return r
}

func merge(bounds *ttlmap.Map[remembered], key string, b Bound, now, life int64) (evicted int) {
	held := boundIn(bounds, key, now)
	next := remembered{held.Merge(b), now + life}
	if held.Version > b.Version {
		next.versionUntil = held.versionUntil
	}
	return bounds.Put(key, next, len(key), now, life)
}

// observe remembers that readers here know e. A bound that was learned before the load of e began is replaced. It returns
// how many bounds it evicted early.
func (m *memory) observe(key string, e *Entry, now, life int64) (evicted int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.replaceLocked(key, e.Began, now)
	return merge(m.observed, key, e.Bound(), now, life)
}

// replace removes the bound of key if it was learned before a load that began at the given time.
func (m *memory) replace(key string, began, now int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.replaceLocked(key, began, now)
}

func (m *memory) replaceLocked(key string, began, now int64) {
	for _, bounds := range []*ttlmap.Map[remembered]{m.observed, m.reported} {
		if began >= boundIn(bounds, key, now).LoadedAfter() {
			bounds.Delete(key) //guard:load-does-not-replace-the-bound
		}
	}
}

// requireLoad allows only loads of key that begin at minLoadTime or later, which is not before now.
func (m *memory) requireLoad(key string, minLoadTime, now, life int64) (evicted int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reported.Delete(key)
	return m.observed.Put(key, remembered{Bound: Bound{MinLoadTime: minLoadTime}}, len(key), now, life)
}

// report remembers what another party has invalidated. It returns how many bounds it evicted early.
func (m *memory) report(key string, b Bound, now, life int64) (evicted int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return merge(m.reported, key, b, now, life)
}

// reportPrefix gives all keys with a prefix a bound. One of all keys replaces the others if it allows no more than they do.
func (m *memory) reportPrefix(prefix string, b Bound, now, life int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if prefix == "" && b.MinLoadTime > now { // it was learned after all of them
		m.observed.Clear() //guard:invalidation-of-everything-keeps-bounds
		m.reported.Clear()
		m.prefixes.clear()
	}
	m.prefixes.add(prefix, b, now, life)
}

// invalidatedSince reports whether key was invalidated by a prefix after the invalidation of that sequence. Most often none
// was, which costs no lock.
func (m *memory) invalidatedSince(key string, sequence uint64) bool {
	if m.prefixes.sequence.Load() == sequence {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.prefixes.since(key, sequence)
}

// knows reports whether key may have existed: readers here may have been sent a result of it, or it was invalidated, by
// itself or by a prefix.
func (m *memory) knows(key string, now int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, observed := m.observed.Get(key, now)
	_, reported := m.reported.Get(key, now)
	return observed || reported || m.prefixes.covers(key, now) //guard:deleted-row-returns-after-a-prefix-invalidation
}

func (m *memory) sweep(now int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.observed.Sweep(now)
	m.reported.Sweep(now)
	m.prefixes.sweep(now)
}

func (m *memory) len() (n, most int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.observed.Len() + m.reported.Len(), m.observed.Cap() + m.reported.Cap()
}
