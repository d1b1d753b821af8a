package lru

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
)

// RemovePrefixIf removes what RemoveIf would, after any other operations, and offers no other key.
func TestRemovePrefixIf(t *testing.T) {
	for _, policy := range []Policy{LRU, SLRU} {
		for seed := range uint64(20) {
			random := rand.New(rand.NewPCG(seed, 1))
			c, err := New[int](Config{MaxBytes: 100 << 10, Policy: policy, Shards: 2})
			if err != nil {
				t.Fatal(err)
			}
			word := func() string {
				return fmt.Sprintf("%c/%c/%d", 'a'+random.IntN(3), 'a'+random.IntN(3), random.IntN(200))
			}
			for n := range 2000 {
				switch random.IntN(12) {
				case 0:
					c.Remove(word())
				case 1:
					c.Get(word())
				case 2:
					prefix := word()[:random.IntN(6)]
					want := keysOf(c, prefix)
					var offered []string
					keep := random.IntN(2) == 0
					removed := c.RemovePrefixIf(prefix, func(key string, _ int) bool {
						offered = append(offered, key)
						return !keep
					})
					slices.Sort(offered)
					if offered = slices.Compact(offered); !slices.Equal(offered, want) {
						t.Fatalf("seed %d, step %d: prefix %q offers %q, want %q", seed, n, prefix, offered, want)
					}
					if left := keysOf(c, prefix); keep && len(left) != len(want) || !keep && (len(left) > 0 || removed != len(want)) {
						t.Fatalf("seed %d, step %d: prefix %q: %d removed, %d left", seed, n, prefix, removed, len(left))
					}
				default:
					c.Update(word(), 10+random.IntN(300), func(int, bool) (int, bool) { return n, true })
				}
			}
		}
	}
}

// keysOf returns the keys of c that begin with prefix, sorted.
func keysOf(c *Cache[int], prefix string) (keys []string) {
	c.RemoveIf(func(key string, _ int) bool {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
		return false
	})
	slices.Sort(keys)
	return keys
}

// The lists of an index hold about as many keys as the shard, however long nobody asks for a prefix.
func TestIndexIsBounded(t *testing.T) {
	c, err := New[int](Config{MaxBytes: 1 << 20, Shards: 1})
	if err != nil {
		t.Fatal(err)
	}
	s := &c.shards[0]
	add := func(from, to int) {
		for i := from; i < to; i++ {
			c.Update(fmt.Sprintf("key-%d", i), 100, func(int, bool) (int, bool) { return i, true })
		}
	}
	none := func(string, int) bool { return false }
	c.RemovePrefixIf("x", none)
	if s.index == nil {
		t.Fatal("there is no index")
	}
	add(0, 1000)
	if s.index != nil {
		t.Errorf("after 1000 new keys the index has %d of them", len(s.index.added))
	}
	add(1000, 3000)
	c.RemovePrefixIf("x", none)
	for i := range 100_000 {
		add(3000+i, 3001+i)
		if x, n := s.index, s.order.Len(); x != nil && len(x.sorted)+len(x.added) > n+n/4+minChanges {
			t.Fatalf("the index has %d keys, the shard %d", len(x.sorted)+len(x.added), n)
		}
		if i%1000 == 0 {
			c.RemovePrefixIf("x", none)
		}
	}
}

func TestRemovePrefixIfWhileOthersStore(t *testing.T) {
	c, err := New[int](Config{MaxBytes: 1 << 20, Shards: 4})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		c.Update(fmt.Sprintf("a/%d", i), 10, func(int, bool) (int, bool) { return -1, true })
	}
	var all sync.WaitGroup
	for w := range 4 {
		all.Go(func() {
			for i := range 2000 {
				c.Update(fmt.Sprintf("b/%d/%d", w, i%500), 10, func(int, bool) (int, bool) { return i, true })
			}
		})
	}
	for range 3 {
		all.Go(func() { c.RemovePrefixIf("a/", func(_ string, v int) bool { return v == -1 }) })
		all.Go(func() { c.RemovePrefixIf("b/1", func(string, int) bool { return true }) })
	}
	all.Wait()
	if left := keysOf(c, "a/"); len(left) != 0 {
		t.Errorf("%d keys are left that were held from the beginning", len(left))
	}
}

// BenchmarkPrefixOfNothing is the cost of an invalidation by a prefix that nothing matches.
func BenchmarkPrefixOfNothing(b *testing.B) {
	for _, n := range []int{1_000, 100_000} {
		c, err := New[int](Config{MaxBytes: 1 << 30})
		if err != nil {
			b.Fatal(err)
		}
		for i := range n {
			c.Update(fmt.Sprintf("key-%d", i), 100, func(int, bool) (int, bool) { return i, true })
		}
		b.Run(fmt.Sprintf("list/%d", n), func(b *testing.B) {
			for b.Loop() {
				c.RemoveIf(func(key string, _ int) bool { return strings.HasPrefix(key, "none/") })
			}
		})
		b.Run(fmt.Sprintf("index/%d", n), func(b *testing.B) {
			for b.Loop() {
				c.RemovePrefixIf("none/", func(string, int) bool { return true })
			}
		})
	}
}
