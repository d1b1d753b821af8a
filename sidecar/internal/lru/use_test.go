package lru

import (
	"slices"
	"strconv"
	"sync"
	"testing"
)

func TestByUse(t *testing.T) {
	for _, p := range []Policy{LRU, SLRU} {
		c, err := New[int](Config{MaxBytes: 1 << 20, Policy: p, Shards: 1})
		if err != nil {
			t.Fatal(err)
		}
		for i, key := range []string{"a", "b", "c"} {
			c.Update(key, 1, func(int, bool) (int, bool) { return i, true })
		}
		c.Get("a")
		var got []string
		c.ByUse(func(key string, _ int) bool {
			got = append(got, key)
			return len(got) < 2
		})
		if want := []string{"a", "c"}; !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want the two used last, %v", p, got, want)
		}
	}
}

// lockedOrder reports which locks are held during Get.
type lockedOrder struct {
	order[int]
	shard *shard[int]
	use   bool
	free  int // stripes
}

func (o *lockedOrder) Get(key string) (slot[int], bool) {
	if o.use = !o.shard.use.TryLock(); !o.use {
		o.shard.use.Unlock()
	}
	o.free = 0
	for i := range o.shard.mu {
		if o.shard.mu[i].TryLock() {
			o.shard.mu[i].Unlock()
			o.free++
		}
	}
	return o.order.Get(key)
}

// Under LRU a use keeps out writers and other uses, but not readers; under SLRU it may move an entry to the other segment.
func TestLocksOfAUse(t *testing.T) {
	for p, want := range map[Policy]struct {
		use  bool
		free int
	}{LRU: {true, stripes - 1}, SLRU: {false, 0}} {
		c, err := New[int](Config{MaxBytes: 1 << 20, Policy: p, Shards: 1})
		if err != nil {
			t.Fatal(err)
		}
		c.Update("a", 1, func(int, bool) (int, bool) { return 1, true })
		o := &lockedOrder{order: c.shards[0].order, shard: &c.shards[0]}
		c.shards[0].order = o
		if v, ok := c.Get("a"); v != 1 || !ok || o.use != want.use || o.free != want.free {
			t.Errorf("%s: got %d, %t with use locked: %t and %d stripes free, want %t and %d", p, v, ok, o.use, o.free, want.use, want.free)
		}
	}
}

func TestUsesReadsAndWritesAtTheSameTime(t *testing.T) {
	for _, p := range []Policy{LRU, SLRU} {
		c, err := New[int](Config{MaxBytes: 1 << 14, Policy: p, Shards: 1})
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for i := range 6 {
			all.Go(func() {
				for n := range 2000 {
					key := strconv.Itoa(n * (i + 1) % 97)
					switch i % 3 {
					case 0:
						c.Get(key)
					case 1:
						c.Peek(key)
					default:
						c.Update(key, 1, func(int, bool) (int, bool) { return n, true })
					}
				}
			})
		}
		all.Wait()
		seen := 0
		c.ByUse(func(string, int) bool { seen++; return true })
		if n := c.Stats().Entries; seen != n || n == 0 {
			t.Errorf("%s: %d entries in the order, want %d", p, seen, n)
		}
	}
}
