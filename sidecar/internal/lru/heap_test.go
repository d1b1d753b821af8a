// The race detector has memory of its own in the heap.
//go:build !race

package lru

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
)

// liveHeap returns the bytes of all objects that are reachable.
func liveHeap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // the first one may have begun before the last garbage was made
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// The bound is worth nothing if it counts other bytes than the process has.
func TestAccountedBytesMatchHeap(t *testing.T) {
	const n = 100_000
	sizes := []struct {
		name string
		of   func(r *rand.Rand) int
	}{
		{"64 B", func(*rand.Rand) int { return 64 }},
		{"256 B", func(*rand.Rand) int { return 256 }},
		{"1 KiB", func(*rand.Rand) int { return 1024 }},
		{"4 KiB", func(*rand.Rand) int { return 4096 }},
		{"64 B to 4 KiB", func(r *rand.Rand) int { return 64 + r.IntN(4096-64) }},
	}
	for _, p := range []Policy{LRU, SLRU} {
		for _, size := range sizes {
			t.Run(fmt.Sprintf("policy=%s/value=%s", p, size.name), func(t *testing.T) {
				r := newRand(1)
				before := liveHeap()
				c, err := New[*entry](Config{MaxBytes: 1 << 30, Policy: p, EntryOverhead: entrySize})
				if err != nil {
					t.Fatal(err)
				}
				for i := range n {
					key, value := fmt.Sprintf("cnf-metrics/CNF-%06d", i), make([]byte, size.of(r))
					c.Update(key, len(value), func(*entry, bool) (*entry, bool) { return &entry{value: value}, true })
					if i%2 == 0 {
						c.Get(key)
					}
				}
				heap, s := liveHeap()-before, c.Stats()
				if s.Entries != n {
					t.Fatalf("%d entries are held, want %d", s.Entries, n)
				}
				off := 100 * (float64(s.Bytes) - float64(heap)) / float64(heap)
				t.Logf("accounted %d bytes, heap %d: %+.1f %%; %d bytes of heap per entry", s.Bytes, heap, off, heap/n)
				if off < -10 || off > 10 {
					t.Errorf("accounted %d bytes, the heap has %d: %+.1f %%", s.Bytes, heap, off)
				}
				runtime.KeepAlive(c)
			})
		}
	}
}
