// Package collection measures what the entries of a cache cost the garbage collector and the heap.
package collection

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/maypok86/otter/v2"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

const entries = 1 << 20

func key(i int) string { return fmt.Sprintf("CNF-%07d", i) }

func value() []byte { return make([]byte, 64) }

// anyRow has a row for each key.
type anyRow struct{}

func (anyRow) Load(_ context.Context, keys []string) ([]origin.Result, error) {
	results := make([]origin.Result, len(keys))
	for i := range results {
		results[i].Value.Data = value()
	}
	return results, nil
}

// ringside returns a function that counts the entries of a dataset.
func ringside(b *testing.B) (count func() int) {
	p := kv.DefaultPolicy()
	p.TTL = time.Hour
	d, err := cache.New(cache.Config{Name: "metrics", Policy: p, Origin: anyRow{}, MaxBytes: entries * 1024})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(d.Close)
	keys := make([]string, entries)
	for i := range keys {
		keys[i] = key(i)
	}
	for part := range slices.Chunk(keys, kv.MaxBatchKeys) {
		d.GetMany(context.Background(), part, kv.ReadOptions{}, kv.BatchLimit{Bytes: 1 << 30})
	}
	return func() int { return d.Memory().Entries }
}

func golangLRU(b *testing.B) (count func() int) {
	c, err := lru.New[string, []byte](entries)
	if err != nil {
		b.Fatal(err)
	}
	for i := range entries {
		c.Add(key(i), value())
	}
	return c.Len
}

func otterCache(b *testing.B) (count func() int) {
	c, err := otter.New(&otter.Options[string, []byte]{MaximumSize: entries})
	if err != nil {
		b.Fatal(err)
	}
	for i := range entries {
		c.Set(key(i), value())
	}
	c.CleanUp()
	return c.EstimatedSize
}

// goMap has no order of eviction and no lock.
func goMap(*testing.B) (count func() int) {
	m := make(map[string][]byte)
	for i := range entries {
		m[key(i)] = value()
	}
	return func() int { return len(m) }
}

// BenchmarkCollection reports the CPU time of a whole collection (getrusage(2)) and the bytes and objects of the heap, per
// entry with a key of 11 bytes and a value of 64 bytes.
func BenchmarkCollection(b *testing.B) {
	for _, c := range []struct {
		name string
		fill func(*testing.B) func() int
	}{{"ringside", ringside}, {"golang-lru", golangLRU}, {"otter", otterCache}, {"map", goMap}} {
		b.Run("cache="+c.name, func(b *testing.B) {
			before := heap()
			count := c.fill(b)
			after := heap()
			began := cpu(b)
			for b.Loop() {
				runtime.GC()
			}
			used := cpu(b) - began
			n := float64(count())
			if n < entries*0.95 {
				b.Fatalf("%v entries, want %d", n, entries)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(used.Nanoseconds())/float64(b.N)/n, "cpu-ns/entry")
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/entry")
			b.ReportMetric(float64(after.HeapObjects-before.HeapObjects)/n, "objects/entry")
		})
	}
}

func heap() (m runtime.MemStats) {
	runtime.GC()
	runtime.GC() // what the first one has found unreachable is freed
	runtime.ReadMemStats(&m)
	return m
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
