package ring

import (
	"fmt"
	"runtime"
	"testing"
)

// A small cluster, a large one, and one that is too large for the default size.
var benchSizes = []struct {
	n    int
	size Size
}{{3, Size{}}, {100, Size{}}, {10_000, Size{}}, {10_000, Size{Min: 65536, Max: 1 << 20}}}

func benchEach(b *testing.B, bench func(b *testing.B, members []Member, size Size)) {
	for _, s := range benchSizes {
		size, _ := s.size.effective()
		b.Run(fmt.Sprintf("members=%d/max=%d", s.n, size.Max), func(b *testing.B) {
			b.ReportAllocs()
			bench(b, addressed(s.n), s.size)
		})
	}
}

func BenchmarkOwner(b *testing.B) {
	benchEach(b, func(b *testing.B, members []Member, size Size) {
		r := mustNew(b, members, size)
		keys := routeKeys(1 << 12)
		for i := 0; b.Loop(); i++ {
			r.Owner(keys[i%len(keys)])
		}
	})
}

// Owner and first successor, as for an unreachable owner.
func BenchmarkSecond(b *testing.B) {
	benchEach(b, func(b *testing.B, members []Member, size Size) {
		r := mustNew(b, members, size)
		keys := routeKeys(1 << 12)
		for i := 0; b.Loop(); i++ {
			second(r, keys[i%len(keys)])
		}
	})
}

func BenchmarkNew(b *testing.B) {
	benchEach(b, func(b *testing.B, members []Member, size Size) {
		for b.Loop() {
			mustNew(b, members, size)
		}
	})
}

// The heap of one ring, without the strings of its members, which it shares with the list of the directory.
func BenchmarkMemory(b *testing.B) {
	benchEach(b, func(b *testing.B, members []Member, size Size) {
		rings := make([]*Ring, 16)
		for b.Loop() {
			clear(rings)
			empty := heap()
			for i := range rings {
				rings[i] = mustNew(b, members, size)
			}
			b.ReportMetric(float64(heap()-empty)/float64(len(rings)), "B/ring")
		}
		runtime.KeepAlive(rings)
	})
}

func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
