package entries

import (
	"slices"
	"strings"
	"sync/atomic"
)

// prefixes remembers invalidations of all keys with a prefix: the bound of these keys, and when it came among all such
// invalidations, so that a load under way is discarded only if its key begins with one of them. It is guarded by the lock of
// its memory, except where noted.
type prefixes struct {
	most     int // limit of len(byPrefix), and of the bytes of its keys by boundKeyBytes
	byPrefix map[string]prefixBound
	bytes    int
	lengths  map[int]int   // :: length → prefixes of that length
	sequence atomic.Uint64 // of the last invalidation; read without the lock
	// forgotten is the sequence of the last invalidation that was forgotten. Loads from before it are discarded.
	forgotten uint64
}

type prefixBound struct {
	Bound
	until    int64
	sequence uint64
}

func newPrefixes(most int) *prefixes {
	return &prefixes{most: most, byPrefix: map[string]prefixBound{}, lengths: map[int]int{}}
}

// add remembers a bound of all keys that begin with prefix, until now+life.
func (p *prefixes) add(prefix string, b Bound, now, life int64) {
	if _, ok := p.byPrefix[prefix]; !ok && p.isFull(prefix) { //guard:prefixes-without-bound
		p.shrink(now)
	}
	until := now + life
	if held := p.byPrefix[prefix]; now < held.until {
		b, until = b.Merge(held.Bound), max(until, held.until)
	}
	p.put(strings.Clone(prefix), prefixBound{b, until, p.sequence.Load() + 1})
	p.sequence.Add(1) // after the rest: a load that begins with this number is not older than the invalidation
}

func (p *prefixes) isFull(prefix string) bool {
	return len(p.byPrefix) >= p.most || p.bytes+len(prefix) > p.most*boundKeyBytes
}

func (p *prefixes) put(prefix string, b prefixBound) {
	if _, ok := p.byPrefix[prefix]; !ok {
		p.bytes += len(prefix)
		p.lengths[len(prefix)]++
	}
	p.byPrefix[prefix] = b
}

func (p *prefixes) delete(prefix string) {
	p.bytes -= len(prefix)
	if p.lengths[len(prefix)]--; p.lengths[len(prefix)] == 0 {
		delete(p.lengths, len(prefix))
	}
	delete(p.byPrefix, prefix)
}

// of merges the bounds of the prefixes of key into b.
func (p *prefixes) of(key string, b Bound, now int64) Bound {
	p.each(key, func(held prefixBound) {
		if now < held.until {
			b = b.Merge(held.Bound)
		}
	})
	return b
}

// covers reports whether a bound of a prefix of key is remembered.
func (p *prefixes) covers(key string, now int64) (covered bool) {
	p.each(key, func(held prefixBound) { covered = covered || now < held.until })
	return covered
}

// since reports whether key may have been invalidated by a prefix after the invalidation of that sequence.
func (p *prefixes) since(key string, sequence uint64) (invalidated bool) {
	if sequence < p.forgotten {
		return true
	}
	p.each(key, func(held prefixBound) { invalidated = invalidated || held.sequence > sequence })
	return invalidated
}

func (p *prefixes) each(key string, visit func(prefixBound)) {
	for n := range p.lengths {
		if n <= len(key) {
			if held, ok := p.byPrefix[key[:n]]; ok {
				visit(held)
			}
		}
	}
}

// clear forgets all prefixes, before an invalidation of everything takes their place.
func (p *prefixes) clear() {
	p.byPrefix, p.lengths, p.bytes = map[string]prefixBound{}, map[int]int{}, 0
}

// sweep forgets the prefixes whose bounds have expired.
func (p *prefixes) sweep(now int64) {
	for prefix, held := range p.byPrefix {
		if now >= held.until {
			p.forgotten = max(p.forgotten, held.sequence)
			p.delete(prefix)
		}
	}
}

// shrink makes room: it forgets what has expired and, if that is not enough, replaces the older half by their common prefix.
// That is strict for more keys than were invalidated, which costs a load of some of them, but never too little.
func (p *prefixes) shrink(now int64) {
	p.sweep(now)
	if len(p.byPrefix) <= p.most/2 && p.bytes <= p.most*boundKeyBytes/2 {
		return
	}
	list := make([]string, 0, len(p.byPrefix))
	for prefix := range p.byPrefix {
		list = append(list, prefix)
	}
	slices.SortFunc(list, func(a, b string) int { return int(p.byPrefix[a].sequence - p.byPrefix[b].sequence) })
	list = list[:min(max(2, len(list)/2), len(list))]
	common, merged := list[0], prefixBound{}
	for _, prefix := range list {
		common = common[:commonLength(common, prefix)]
		held := p.byPrefix[prefix]
		merged.Bound = merged.Merge(held.Bound)
		merged.until, merged.sequence = max(merged.until, held.until), max(merged.sequence, held.sequence) //guard:shrunk-prefixes-forget-an-invalidation
		p.delete(prefix)
	}
	if held, ok := p.byPrefix[common]; ok { // a newer one has the same name
		merged.Bound = merged.Merge(held.Bound)
		merged.until, merged.sequence = max(merged.until, held.until), held.sequence
	}
	p.put(common, merged)
}

func commonLength(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}
