package cache

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// view is what an edge passes for a key that it has parsed in place.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

func TestHitAllocatesNothing(t *testing.T) {
	d := newDataset(t, origintest.New(map[string]string{"CNF-001": "v"}), nil, testPolicy())
	key := []byte("CNF-001")
	get(t, d, view(key))
	ctx := context.Background()
	if n := testing.AllocsPerRun(1000, func() { _, _ = d.Get(ctx, view(key), kv.ReadOptions{}) }); n != 0 {
		t.Errorf("a hit allocates %v objects; want 0", n)
	}
	if n := testing.AllocsPerRun(1000, func() { _, _ = d.Cached(view(key), kv.ReadOptions{}) }); n != 0 {
		t.Errorf("a hit of Cached allocates %v objects; want 0", n)
	}
}

func BenchmarkHit(b *testing.B) {
	d := newDataset(b, origintest.New(map[string]string{"CNF-001": "v"}), nil, testPolicy())
	get(b, d, "CNF-001")
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = d.Get(ctx, "CNF-001", kv.ReadOptions{})
	}
}

// anyRow has a row for each key.
type anyRow struct{}

func (anyRow) Load(_ context.Context, keys []string) ([]origin.Result, error) {
	results := make([]origin.Result, len(keys))
	for i := range results {
		results[i].Value.Data = make([]byte, 64)
	}
	return results, nil
}

// filled returns a Dataset with n entries of 64 bytes, and their keys.
func filled(b *testing.B, n int) (*Dataset, []string) {
	b.Helper()
	p := testPolicy()
	p.TTL, p.MaxFlights = 1<<40, kv.MaxBatchKeys
	d, err := New(Config{Name: "test", Policy: p, Origin: anyRow{}, MaxBytes: max(64<<20, int64(n)*1024)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(d.Close)
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("CNF-%07d", i)
	}
	for part := range slices.Chunk(keys, kv.MaxBatchKeys) {
		for _, r := range d.GetMany(context.Background(), part, kv.ReadOptions{}, kv.BatchLimit{Bytes: 1 << 30}) {
			if r.Err != nil {
				b.Fatal(r.Err)
			}
		}
	}
	return d, keys
}

// Hits of one goroutine, and of two at the same time, each with keys of its own. A round begins when all goroutines run, and
// is shorter than the time for which a busy machine lets them: the median round shows what they cost each other.
func BenchmarkHitTogether(b *testing.B) {
	d, keys := filled(b, 1<<10)
	for _, n := range []int{1, 2} {
		b.Run(fmt.Sprintf("goroutines=%d", n), func(b *testing.B) {
			const hits = 200
			var ready atomic.Int64
			rounds := make([][]time.Duration, n)
			var all sync.WaitGroup
			for g := range n {
				all.Go(func() {
					runtime.LockOSThread()
					defer runtime.UnlockOSThread()
					ctx := context.Background()
					for round := range b.N {
						ready.Add(1)
						for ready.Load() < int64(n*(round+1)) {
						}
						began := time.Now()
						for i := range hits {
							_, _ = d.Get(ctx, keys[(i*n+g)%len(keys)], kv.ReadOptions{})
						}
						rounds[g] = append(rounds[g], time.Since(began)/hits)
					}
				})
			}
			all.Wait()
			both := slices.Concat(rounds...)
			slices.Sort(both)
			b.ReportMetric(float64(both[len(both)/2]), "median-ns")
			b.ReportMetric(float64(both[len(both)/10]), "p10-ns")
		})
	}
}

// The time of a hit among a million entries while the garbage collector runs all the time, and between its runs.
func BenchmarkHitDuringCollection(b *testing.B) {
	d, keys := filled(b, 1<<20)
	for _, collect := range []bool{false, true} {
		b.Run(fmt.Sprintf("collecting=%v", collect), func(b *testing.B) {
			end := make(chan struct{})
			var collector sync.WaitGroup
			collector.Go(func() {
				for collect {
					select {
					case <-end:
						return
					default:
						runtime.GC()
					}
				}
			})
			times, ctx := make([]time.Duration, 0, b.N), context.Background()
			b.ResetTimer()
			for i := range b.N {
				key := keys[i*7919%len(keys)]
				began := time.Now()
				_, _ = d.Get(ctx, key, kv.ReadOptions{})
				times = append(times, time.Since(began))
			}
			b.StopTimer()
			close(end)
			collector.Wait()
			slices.Sort(times)
			for name, per10k := range map[string]int{"p50-ns": 5000, "p99-ns": 9900, "p99.9-ns": 9990, "p99.99-ns": 9999} {
				b.ReportMetric(float64(times[min(len(times)*per10k/10000, len(times)-1)]), name)
			}
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	d := newDataset(b, origintest.New(map[string]string{"k": "v"}), nil, testPolicy())
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = d.Get(ctx, "k", kv.ReadOptions{NoCache: true})
	}
}
