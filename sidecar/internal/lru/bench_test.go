package lru

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// entry stands for what sidecar/cache stores: a pointer to a struct of about 120 bytes.
type entry struct {
	value []byte
	_     [96]byte
}

const entrySize = 120

// fill returns a cache that holds n entries, and their keys.
func fill(b *testing.B, p Policy, n int) (*Cache[*entry], []string) {
	b.Helper()
	c, err := New[*entry](Config{MaxBytes: int64(n) * 1024, Policy: p, EntryOverhead: entrySize})
	if err != nil {
		b.Fatal(err)
	}
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("cnf-metrics/CNF-%06d", i)
		c.Update(keys[i], 64, func(*entry, bool) (*entry, bool) { return new(entry), true })
	}
	return c, keys
}

// touch reads all keys once, which under SLRU promotes them.
func touch(c *Cache[*entry], keys []string) {
	for _, key := range keys {
		c.Get(key)
	}
}

func benchmark(b *testing.B, run func(b *testing.B, p Policy, entries int)) {
	for _, p := range []Policy{LRU, SLRU} {
		for _, n := range []int{1 << 10, 1 << 17} {
			b.Run(fmt.Sprintf("policy=%s/entries=%d", p, n), func(b *testing.B) {
				b.ReportAllocs()
				run(b, p, n)
			})
		}
	}
}

// A hit on keys in random order, so that with many entries the list and the map are not in the CPU's cache.
func BenchmarkGet(b *testing.B) {
	benchmark(b, func(b *testing.B, p Policy, n int) {
		c, keys := fill(b, p, n)
		touch(c, keys)
		rand.Shuffle(n, func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		i := 0
		for b.Loop() {
			if _, ok := c.Get(keys[i&(n-1)]); !ok {
				b.Fatal("a miss")
			}
			i++
		}
	})
}

func BenchmarkGetParallel(b *testing.B) {
	benchmark(b, func(b *testing.B, p Policy, n int) {
		c, keys := fill(b, p, n)
		touch(c, keys)
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for i := rand.IntN(n); pb.Next(); i += 31 {
				if _, ok := c.Get(keys[i&(n-1)]); !ok {
					b.Error("a miss")
					return
				}
			}
		})
	})
}

// Everybody reads one key: one lock, the worst case.
func BenchmarkGetParallelOneKey(b *testing.B) {
	b.ReportAllocs()
	c, keys := fill(b, LRU, 1<<10)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			c.Get(keys[0])
		}
	})
}

func BenchmarkMiss(b *testing.B) {
	benchmark(b, func(b *testing.B, p Policy, n int) {
		c, _ := fill(b, p, n)
		for b.Loop() {
			if _, ok := c.Get("cnf-metrics/none"); ok {
				b.Fatal("a hit")
			}
		}
	})
}

func BenchmarkReplace(b *testing.B) {
	benchmark(b, func(b *testing.B, p Policy, n int) {
		c, keys := fill(b, p, n)
		v, i := new(entry), 0
		for b.Loop() {
			c.Update(keys[i&(n-1)], 64, func(*entry, bool) (*entry, bool) { return v, true })
			i++
		}
	})
}

// Storing into a full cache, so that each store evicts.
func BenchmarkStoreAndEvict(b *testing.B) {
	benchmark(b, func(b *testing.B, p Policy, n int) {
		c, keys := fill(b, p, n)
		c.Resize(c.Stats().Bytes / 2)
		v, i := new(entry), 0
		for b.Loop() {
			c.Update(keys[i&(n-1)], 64, func(*entry, bool) (*entry, bool) { return v, true })
			i++
		}
	})
}

// One shard as large as the default allows, full of the smallest entries: how long its lock is held to list the keys.
func BenchmarkListKeysOfFullShard(b *testing.B) {
	b.ReportAllocs()
	c, err := New[*entry](Config{MaxBytes: maxShare, Shards: 1, EntryOverhead: entrySize})
	if err != nil {
		b.Fatal(err)
	}
	n := 0
	for ; c.Stats().Evictions == 0; n++ {
		c.Update(fmt.Sprintf("cnf-metrics/CNF-%06d", n), 0, func(*entry, bool) (*entry, bool) { return new(entry), true })
	}
	for b.Loop() {
		c.shards[0].keys()
	}
	b.ReportMetric(float64(n), "entries")
}
