package lru

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// view returns a string that shares the memory of b.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// check holds the invariants that no sequence of calls may break.
func check[V any](t testing.TB, c *Cache[V]) {
	t.Helper()
	for i := range c.shards {
		s := &c.shards[i]
		var bytes int64
		for _, key := range s.order.Keys() {
			held, ok := s.order.Peek(key)
			if !ok || c.shardOf(key) != s {
				t.Fatalf("shard %d lists %q, which it does not hold", i, key)
			}
			bytes += held.bytes
		}
		if bytes != s.bytes || bytes > s.share || len(s.order.Keys()) != s.order.Len() {
			t.Fatalf("shard %d: entries have %d bytes, accounted are %d, the share is %d", i, bytes, s.bytes, s.share)
		}
		if seg, ok := s.order.(*segmented[V]); ok {
			checkSegments(t, seg)
		}
	}
}

func checkSegments[V any](t testing.TB, s *segmented[V]) {
	t.Helper()
	var bytes int64
	for _, key := range s.protected.Keys() {
		held, _ := s.protected.Peek(key)
		bytes += held.bytes
		if s.probation.Contains(key) {
			t.Fatalf("%q is in both segments", key)
		}
	}
	if bytes != s.protectedBytes || bytes > s.protectedMax {
		t.Fatalf("protected entries have %d bytes, accounted are %d, the bound is %d",
			bytes, s.protectedBytes, s.protectedMax)
	}
}

// target is what a Cache of one shard and its model have in common.
type target interface {
	Get(key string) (int, bool)
	Peek(key string) (int, bool)
	Update(key string, size int, decide func(int, bool) (int, bool)) bool
	Remove(key string) bool
	RemoveIf(drop func(string, int) bool) int
	Resize(maxBytes int64)
	Stats() Stats
}

// step makes one call, chosen by op, and returns all that can be seen of it.
func step(c target, op, key, arg int) string {
	k := strings.Repeat("k", key%16)
	switch op % 16 {
	case 0, 1, 2, 3, 4:
		return fmt.Sprint(c.Get(k))
	case 5:
		return fmt.Sprint(c.Peek(k))
	case 6:
		return fmt.Sprint(c.Remove(k))
	case 7:
		return fmt.Sprint(c.RemoveIf(func(_ string, v int) bool { return arg < 32 && v%4 == arg%4 }))
	case 8:
		if arg < 64 {
			c.Resize(int64(arg/4) * cost)
		}
		return fmt.Sprint(c.Stats())
	default:
		return fmt.Sprint(c.Update(k, arg*arg/16, func(v int, ok bool) (int, bool) { return arg + v%2, !ok || arg%8 != 0 }))
	}
}

// model does what Cache promises in the plainest way: slices, oldest first, and no bytes kept but those of the items.
type model struct {
	protectedPercent     int64 // 0 for LRU
	max                  int64
	probation, protected []item
	evictions, tooLarge  uint64
}

type item struct {
	key   string
	v     int
	bytes int64
}

func newModel(p Policy, maxBytes int64) *model {
	if p == SLRU {
		return &model{max: maxBytes, protectedPercent: protectedPercent}
	}
	return &model{max: maxBytes}
}

func sum(items []item) (bytes int64) {
	for _, it := range items {
		bytes += it.bytes
	}
	return bytes
}

// find returns the segment that holds key and where; nil when none does.
func (m *model) find(key string) (*[]item, int) {
	for _, seg := range []*[]item{&m.probation, &m.protected} {
		if i := slices.IndexFunc(*seg, func(it item) bool { return it.key == key }); i >= 0 {
			return seg, i
		}
	}
	return nil, 0
}

func take(seg *[]item, i int) item {
	it := (*seg)[i]
	*seg = slices.Delete(*seg, i, i+1)
	return it
}

func (m *model) demote() {
	for sum(m.protected) > m.max/100*m.protectedPercent {
		m.probation = append(m.probation, take(&m.protected, 0))
	}
}

func (m *model) Peek(key string) (int, bool) {
	if seg, i := m.find(key); seg != nil {
		return (*seg)[i].v, true
	}
	return 0, false
}

func (m *model) Get(key string) (int, bool) {
	seg, i := m.find(key)
	if seg == nil {
		return 0, false
	}
	it := take(seg, i)
	if m.protectedPercent > 0 {
		seg = &m.protected
	}
	*seg = append(*seg, it)
	m.demote()
	return it.v, true
}

func (m *model) Update(key string, size int, decide func(int, bool) (int, bool)) bool {
	v, keep := decide(m.Peek(key))
	if !keep {
		return false
	}
	next := item{key, v, entryOverhead + int64(len(key)+size)}
	seg, i := m.find(key)
	if seg != nil {
		take(seg, i)
	}
	if next.bytes > m.max {
		m.tooLarge++
		return false
	}
	if seg == nil {
		seg = &m.probation
	}
	*seg = append(*seg, next)
	m.demote()
	m.evict(key)
	return true
}

// evict makes room and takes the item of the key spare last.
func (m *model) evict(spare string) {
	for sum(m.probation)+sum(m.protected) > m.max {
		seg := &m.probation
		if len(*seg) == 0 || (*seg)[0].key == spare && len(m.protected) > 0 {
			seg = &m.protected
		}
		take(seg, 0)
		m.evictions++
	}
}

func (m *model) Remove(key string) bool {
	seg, i := m.find(key)
	if seg != nil {
		take(seg, i)
	}
	return seg != nil
}

func (m *model) RemoveIf(drop func(string, int) bool) int {
	before := len(m.probation) + len(m.protected)
	dropped := func(it item) bool { return drop(it.key, it.v) }
	m.probation = slices.DeleteFunc(m.probation, dropped)
	m.protected = slices.DeleteFunc(m.protected, dropped)
	return before - len(m.probation) - len(m.protected)
}

func (m *model) Resize(maxBytes int64) {
	m.max = maxBytes
	m.demote()
	m.evict("")
}

func (m *model) Stats() Stats {
	return Stats{
		Entries:   len(m.probation) + len(m.protected),
		Bytes:     sum(m.probation) + sum(m.protected),
		MaxBytes:  m.max,
		Evictions: m.evictions,
		TooLarge:  m.tooLarge,
	}
}

func compare(t *testing.T, p Policy, ops []byte) {
	c, m := newCache(t, p, 8), newModel(p, 8*cost)
	for i := 0; i+3 <= len(ops); i += 3 {
		op, key, arg := int(ops[i]), int(ops[i+1]), int(ops[i+2])
		got, want := step(c, op, key, arg), step(m, op, key, arg)
		if got != want || c.Stats() != m.Stats() {
			t.Fatalf("call %d (%d %d %d): got %s and then %+v, want %s and %+v",
				i/3, op%16, key%16, arg, got, c.Stats(), want, m.Stats())
		}
		check(t, c)
	}
}

func TestRandomCallsAgreeWithModel(t *testing.T) {
	policies(t, func(t *testing.T, p Policy) {
		for seed := range uint64(30) {
			r := newRand(seed)
			ops := make([]byte, 3*1000)
			for i := range ops {
				ops[i] = byte(r.Uint32())
			}
			compare(t, p, ops)
		}
	})
}

func FuzzCallsAgreeWithModel(f *testing.F) {
	f.Add([]byte{9, 1, 40, 9, 2, 40, 0, 1, 0, 9, 3, 41})     // store, store, read, store
	f.Add([]byte{9, 1, 40, 0, 1, 0, 9, 1, 250, 8, 0, 12})    // store, promote, grow, shrink the cache
	f.Add([]byte{9, 1, 100, 9, 2, 100, 7, 0, 1, 6, 2, 0})    // store, store, remove some, remove one
	f.Add([]byte{8, 0, 0, 9, 1, 1, 8, 0, 63, 9, 1, 1, 5, 1}) // no room, then room
	f.Fuzz(func(t *testing.T, ops []byte) {
		for _, p := range []Policy{LRU, SLRU} {
			compare(t, p, ops)
		}
	})
}
