package cache

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"unsafe"

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

func BenchmarkHitParallel(b *testing.B) {
	rows := map[string]string{}
	for i := range 1024 {
		rows[fmt.Sprintf("CNF-%04d", i)] = "v"
	}
	p := testPolicy()
	p.TTL = 1 << 40
	d := newDataset(b, origintest.New(rows), nil, p)
	keys := make([]string, 0, len(rows))
	for key := range rows {
		get(b, d, key)
		keys = append(keys, key)
	}
	var worker atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		ctx := context.Background()
		for i := int(worker.Add(1)) * 97; pb.Next(); i++ {
			_, _ = d.Get(ctx, keys[i%len(keys)], kv.ReadOptions{})
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	d := newDataset(b, origintest.New(map[string]string{"k": "v"}), nil, testPolicy())
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		_, _ = d.Get(ctx, "k", kv.ReadOptions{NoCache: true})
	}
}
