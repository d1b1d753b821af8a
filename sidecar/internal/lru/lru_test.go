package lru

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// cost is what an entry with a key of one byte and a payload of 100 is accounted for.
const cost = entryOverhead + 1 + 100

func policies(t *testing.T, test func(t *testing.T, p Policy)) {
	for _, p := range []Policy{"", LRU, SLRU} {
		t.Run("policy="+string(p), func(t *testing.T) { test(t, p) })
	}
}

// newCache returns a cache with one shard that has room for so many entries of the size cost.
func newCache(t testing.TB, p Policy, entries int) *Cache[int] {
	t.Helper()
	c, err := New[int](Config{MaxBytes: int64(entries) * cost, Policy: p, Shards: 1})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func put(c *Cache[int], key string, v, size int) bool {
	return c.Update(key, size, func(int, bool) (int, bool) { return v, true })
}

// held returns which of the keys, each one letter, the cache holds.
func held(c *Cache[int], keys string) string {
	var b strings.Builder
	for _, key := range strings.Split(keys, "") {
		if _, ok := c.Peek(key); ok {
			b.WriteString(key)
		}
	}
	return b.String()
}

func TestWhatIsHeld(t *testing.T) {
	tests := []struct {
		name string
		room int // entries
		ops  func(c *Cache[int])
		want map[Policy]string // policy → keys
	}{
		{"all while there is room", 3, func(c *Cache[int]) {
			store(c, "abc")
		}, both("abc")},
		{"the oldest goes first", 3, func(c *Cache[int]) {
			store(c, "abcd")
		}, both("bcd")},
		{"a read keeps", 3, func(c *Cache[int]) {
			store(c, "abc")
			c.Get("a")
			store(c, "d")
		}, both("acd")},
		{"a peek does not keep", 3, func(c *Cache[int]) {
			store(c, "abc")
			c.Peek("a")
			store(c, "d")
		}, both("bcd")},
		{"a replacement keeps", 3, func(c *Cache[int]) {
			store(c, "abca")
			store(c, "d")
		}, both("acd")},
		{"a decision not to keep does not keep", 3, func(c *Cache[int]) {
			store(c, "abc")
			c.Update("a", 100, func(int, bool) (int, bool) { return 0, false })
			store(c, "d")
		}, both("bcd")},
		{"a scan passes through", 5, func(c *Cache[int]) {
			store(c, "ab")
			c.Get("a")
			c.Get("b")
			store(c, "cdefghij")
		}, map[Policy]string{LRU: "fghij", SLRU: "abhij"}},
		{"reloading does not promote", 5, func(c *Cache[int]) {
			store(c, "aaa")
			store(c, "bcdefghij")
		}, both("fghij")},
		{"the protected segment gives back its oldest", 5, func(c *Cache[int]) {
			store(c, "abcde")
			for _, key := range strings.Split("abcde", "") {
				c.Get(key) // four of five may be protected, so e sends a back
			}
			store(c, "f")
		}, both("bcdef")},
		{"growth drops others", 4, func(c *Cache[int]) {
			store(c, "abcd")
			put(c, "d", 1, 100+2*cost)
		}, both("cd")},
		{"growth of the only one on probation drops protected ones", 4, func(c *Cache[int]) {
			store(c, "abcd")
			c.Get("a")
			c.Get("b")
			c.Get("c")
			put(c, "d", 1, 100+2*cost)
		}, both("cd")},
		{"growth over the protected segment's bound", 5, func(c *Cache[int]) {
			store(c, "ab")
			c.Get("a")
			c.Get("b")
			put(c, "b", 1, 100+4*cost)
		}, both("b")},
		{"growth of the only protected one drops the only one on probation", 5, func(c *Cache[int]) {
			store(c, "a")
			c.Get("a")
			put(c, "b", 1, 100+cost)
			put(c, "a", 1, 100+3*cost-cost/10)
		}, both("a")},
		{"removed is gone", 3, func(c *Cache[int]) {
			store(c, "ab")
			c.Get("b")
			c.Remove("a")
			c.Remove("b")
		}, both("")},
		{"too large drops what was held, nothing else", 3, func(c *Cache[int]) {
			store(c, "abc")
			c.Get("b")
			put(c, "b", 1, 3*cost)
		}, both("ac")},
		{"a smaller bound", 5, func(c *Cache[int]) {
			store(c, "abcde")
			c.Get("a")
			c.Get("b")
			c.Resize(3 * cost)
		}, both("abe")},
		{"no room at all", 3, func(c *Cache[int]) {
			store(c, "abc")
			put(c, "", 1, 1)
			c.Resize(0)
			store(c, "d")
		}, both("")},
		{"less than no room", 3, func(c *Cache[int]) {
			store(c, "abc")
			c.Resize(-1)
		}, both("")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			policies(t, func(t *testing.T, p Policy) {
				c := newCache(t, p, tt.room)
				tt.ops(c)
				want := tt.want[LRU]
				if p == SLRU {
					want = tt.want[SLRU]
				}
				if got := held(c, "abcdefghij"); got != want {
					t.Errorf("held %q, want %q", got, want)
				}
				check(t, c)
			})
		})
	}
}

func both(keys string) map[Policy]string { return map[Policy]string{LRU: keys, SLRU: keys} }

// store stores a value of 100 bytes for every letter of keys.
func store(c *Cache[int], keys string) {
	for i, key := range strings.Split(keys, "") {
		put(c, key, i, 100)
	}
}

func TestUpdateOffersWhatIsHeld(t *testing.T) {
	policies(t, func(t *testing.T, p Policy) {
		c := newCache(t, p, 3)
		for _, want := range []int{0, 1, 2} {
			c.Update("a", 100, func(v int, ok bool) (int, bool) {
				if v != want || ok != (want > 0) {
					t.Errorf("decide got %d, %t; want %d", v, ok, want)
				}
				return v + 1, true
			})
		}
		if v, ok := c.Get("a"); v != 3 || !ok {
			t.Errorf("Get: %d, %t; want 3", v, ok)
		}
		if v, ok := c.Get("b"); v != 0 || ok {
			t.Errorf("Get of a key that is not held: %d, %t", v, ok)
		}
	})
}

func TestUpdateReportsWhetherItStored(t *testing.T) {
	policies(t, func(t *testing.T, p Policy) {
		c := newCache(t, p, 3)
		refuse := func(int, bool) (int, bool) { return 0, false }
		const largest = 3*cost - entryOverhead - 1
		for name, got := range map[string]bool{
			"fits":         put(c, "a", 1, 100),
			"fits exactly": put(c, "a", 1, largest),
			"refused":      !c.Update("a", 100, refuse),
			"too large":    !put(c, "a", 1, largest+1),
		} {
			if !got {
				t.Errorf("stored is wrong for a value that is: %s", name)
			}
		}
	})
}

func TestRemoveReportsWhetherItHeld(t *testing.T) {
	policies(t, func(t *testing.T, p Policy) {
		c := newCache(t, p, 3)
		store(c, "ab")
		c.Get("a")
		if !c.Remove("a") || !c.Remove("b") || c.Remove("a") || c.Remove("c") {
			t.Error("Remove must report what was held, once")
		}
	})
}

func TestRemoveIf(t *testing.T) {
	policies(t, func(t *testing.T, p Policy) {
		c, err := New[int](Config{MaxBytes: 10 << 20, Policy: p, Shards: 4})
		if err != nil {
			t.Fatal(err)
		}
		const n = 20 * sweepBatch
		for i := range n {
			put(c, fmt.Sprintf("k%d", i), i, 10)
			if i%3 == 0 {
				c.Get(fmt.Sprintf("k%d", i))
			}
		}
		offered := make(map[string]int)
		removed := c.RemoveIf(func(key string, v int) bool {
			offered[key]++
			if key != fmt.Sprintf("k%d", v) {
				t.Errorf("offered %q with the value of k%d", key, v)
			}
			return v%2 == 0
		})
		if removed != n/2 || len(offered) != n || c.Stats().Entries != n/2 {
			t.Errorf("removed %d, offered %d, left %d of %d", removed, len(offered), c.Stats().Entries, n)
		}
		for key, times := range offered {
			if times != 1 {
				t.Errorf("%q was offered %d times", key, times)
			}
		}
		if _, ok := c.Peek("k2"); ok {
			t.Error("k2 is still held")
		}
		check(t, c)
	})
}

// What was removed between two batches of a sweep is not offered any more.
func TestSweepOfRemovedKeys(t *testing.T) {
	c := newCache(t, LRU, 3)
	store(c, "ab")
	keys := c.shards[0].keys()
	c.Remove("a")
	var offered string
	c.shards[0].removeBatch(keys, func(key string, _ int) bool {
		offered += key
		return false
	})
	if offered != "b" {
		t.Errorf("offered %q, want b", offered)
	}
}

// A writer gets in between two batches of a sweep.
func TestSweepLetsGoOfTheLock(t *testing.T) {
	c := newCache(t, LRU, 1<<15)
	for i := range 1 << 14 {
		put(c, fmt.Sprint(i), i, 10)
	}
	var wrote atomic.Bool
	var writer sync.WaitGroup
	during := false
	start := sync.OnceFunc(func() {
		writer.Go(func() {
			put(c, "new", 1, 10)
			wrote.Store(true)
		})
	})
	c.SweepShard(0, func(string, int) bool {
		start()
		for range 20 {
			_ = fmt.Sprint(during) // the sweep must outlast the millisecond after which a mutex is fair
		}
		during = during || wrote.Load()
		return false
	})
	writer.Wait()
	if !during {
		t.Error("the writer had to wait for the whole sweep")
	}
}

func TestHitDoesNotAllocate(t *testing.T) {
	policies(t, func(t *testing.T, p Policy) {
		c := newCache(t, p, 3)
		store(c, "a")
		buf := []byte("a")
		c.Get("a") // promotes
		if n := testing.AllocsPerRun(100, func() { c.Get(view(buf)) }); n != 0 {
			t.Errorf("a hit makes %v allocations", n)
		}
	})
}

func TestStats(t *testing.T) {
	policies(t, func(t *testing.T, p Policy) {
		c := newCache(t, p, 3)
		store(c, "abcde")
		put(c, "f", 1, 3*cost)
		c.Remove("c")
		want := Stats{Entries: 2, Bytes: 2 * cost, MaxBytes: 3 * cost, Evictions: 2, TooLarge: 1}
		if got := c.Stats(); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		c.Resize(cost)
		want = Stats{Entries: 1, Bytes: cost, MaxBytes: cost, Evictions: 3, TooLarge: 1}
		if got := c.Stats(); got != want {
			t.Errorf("after Resize: got %+v, want %+v", got, want)
		}
	})
}

func TestEntryOverheadIsAccounted(t *testing.T) {
	c, err := New[int](Config{MaxBytes: 1 << 20, Shards: 1, EntryOverhead: 120})
	if err != nil {
		t.Fatal(err)
	}
	put(c, "key", 1, 50)
	if got, want := c.Stats().Bytes, int64(entryOverhead+120+3+50); got != want {
		t.Errorf("got %d bytes, want %d", got, want)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no bytes":           {},
		"negative bytes":     {MaxBytes: -1},
		"odd shards":         {MaxBytes: 1 << 20, Shards: 3},
		"negative shards":    {MaxBytes: 1 << 20, Shards: -4},
		"smallest int":       {MaxBytes: 1 << 20, Shards: math.MinInt},
		"negative overhead":  {MaxBytes: 1 << 20, EntryOverhead: -1},
		"policy of no name":  {MaxBytes: 1 << 20, Policy: "arc"},
		"policy in capitals": {MaxBytes: 1 << 20, Policy: "LRU"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New[int](cfg); err == nil {
				t.Errorf("%+v was taken", cfg)
			}
		})
	}
}

// A value that fits nowhere is a query for each read.
func TestLargestValueOfADatabaseFits(t *testing.T) {
	for mib := int64(2); mib <= 1<<12; mib++ {
		maxBytes := mib << 20
		if share := maxBytes / int64(DefaultShards(maxBytes)); share < 1<<20+4096 {
			t.Fatalf("%d MiB have shards of %d bytes; a value of 1 MiB with its key does not fit", mib, share)
		}
	}
}

func TestDefaultShards(t *testing.T) {
	for _, maxBytes := range []int64{1, minShare, 3 * minShare, 64 << 20, 1 << 30, 100 << 30} {
		n := int64(DefaultShards(maxBytes))
		share := maxBytes / n
		if n&(n-1) != 0 || n > 1 && share < minShare || share > maxShare && share > 2*minShare {
			t.Errorf("%d bytes: %d shards of %d bytes", maxBytes, n, share)
		}
	}
	c, err := New[int](Config{MaxBytes: 3 * minShare})
	if err != nil {
		t.Fatal(err)
	}
	if c.Shards() != 2 {
		t.Errorf("6 MiB: %d shards, want 2", c.Shards())
	}
}

// Keys come as views of request buffers, which are overwritten by the next request.
func TestKeyInReusedMemory(t *testing.T) {
	policies(t, func(t *testing.T, p Policy) {
		c := newCache(t, p, 3)
		buf := []byte("a")
		for range 3 {
			buf[0] = 'a'
			put(c, view(buf), 1, 100)
			buf[0] = 'x'
		}
		buf[0] = 'a'
		c.Get(view(buf))
		c.Get(view(buf))
		buf[0] = 'x'
		if got := held(c, "ax"); got != "a" {
			t.Errorf("held %q, want a", got)
		}
		c.RemoveIf(func(key string, _ int) bool {
			if key != "a" {
				t.Errorf("the key became %q", key)
			}
			return false
		})
		check(t, c)
	})
}

// Decide must run under the lock that Remove takes: between a check in decide and the store nothing may come.
func TestStoreIsAtomicWithItsDecision(t *testing.T) {
	policies(t, func(t *testing.T, p Policy) {
		c := newCache(t, p, 100)
		var epoch atomic.Int64
		var wg sync.WaitGroup
		wg.Go(func() {
			for range 5000 {
				epoch.Add(1)
				c.Remove("a")
				now := epoch.Load()
				if v, ok := c.Get("a"); ok && int64(v) < now {
					t.Errorf("held a value from before epoch %d: %d", now, v)
				}
			}
		})
		for range 4 {
			wg.Go(func() {
				for range 5000 {
					began := epoch.Load()
					c.Update("a", 100, func(int, bool) (int, bool) { return int(began), began == epoch.Load() })
				}
			})
		}
		wg.Wait()
	})
}

func TestConcurrentUse(t *testing.T) {
	policies(t, func(t *testing.T, p Policy) {
		c, err := New[int](Config{MaxBytes: 64 * cost, Policy: p, Shards: 4})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				r := newRand(uint64(g))
				for range 2000 {
					step(c, r.IntN(256), r.IntN(256), r.IntN(256))
					if s := c.Stats(); s.Bytes > 64*cost {
						t.Errorf("%d bytes are held, the bound is %d", s.Bytes, 64*cost)
					}
				}
			})
		}
		wg.Wait()
		check(t, c)
	})
}
