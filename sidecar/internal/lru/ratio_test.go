// There is one goroutine here: the race detector would only make it slow.
//go:build !race

package lru

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// ratioKeys is how many keys the traces below draw from, without the keys of scans.
const ratioKeys = 50_000

// trace calls read for each key of a workload; the same ones in each run.
type trace func(read func(key int))

// zipf draws keys of which a few are read often and most hardly ever. s is the skew; Go draws from s > 1 only.
func zipf(reads int, s float64) trace {
	return func(read func(int)) {
		z := rand.NewZipf(newRand(1), s, 1, ratioKeys-1)
		for range reads {
			read(int(z.Uint64()))
		}
	}
}

// withScans puts a scan of length keys that are read once after every so many reads.
func withScans(t trace, every, length int) trace {
	return func(read func(int)) {
		n, next := 0, ratioKeys
		t(func(key int) {
			read(key)
			if n++; n%every != 0 {
				return
			}
			for range length {
				read(next)
				next++
			}
		})
	}
}

// moving shifts the popular keys to others after every so many reads: what was hot is cold from then on.
func moving(t trace, every int) trace {
	return func(read func(int)) {
		n := 0
		t(func(key int) {
			read((key + n/every*7919) % ratioKeys)
			n++
		})
	}
}

// hitRatio returns the percentage of reads that the cache answered, when each miss is stored.
func hitRatio(t *testing.T, keys []string, p Policy, entries, shards int, play trace) float64 {
	const size = 100
	perEntry := int64(entryOverhead + len(keys[0]) + size)
	c, err := New[int](Config{MaxBytes: int64(entries) * perEntry, Policy: p, Shards: shards})
	if err != nil {
		t.Fatal(err)
	}
	hits, reads := 0, 0
	play(func(k int) {
		reads++
		if _, ok := c.Get(keys[k]); ok {
			hits++
			return
		}
		put(c, keys[k], k, size)
	})
	return 100 * float64(hits) / float64(reads)
}

// traceKeys returns the names of all keys of the traces, with those of so many reads of scans.
func traceKeys(scanned int) []string {
	keys := make([]string, ratioKeys+scanned)
	for i := range keys {
		keys[i] = fmt.Sprintf("CNF-%07d", i)
	}
	return keys
}

// Hit ratios of both policies, as the table in DESIGN.md has them. One shard, so that the figures are the same in each
// run: the hash that picks a shard has another seed in each process.
func TestHitRatio(t *testing.T) {
	const reads = 300_000
	keys, zipfian := traceKeys(reads), zipf(reads, 1.01)
	traces := []struct {
		name string
		play trace
		// gain is what SLRU must have over LRU at least, in points, at every size.
		gain float64
	}{
		{"zipf", zipfian, 0},
		{"zipf with scans", withScans(zipfian, 5_000, 5_000), 1},
		{"zipf that moves", moving(zipfian, 50_000), -6},
	}
	for _, tr := range traces {
		t.Run(tr.name, func(t *testing.T) {
			t.Parallel()
			for _, percent := range []int{1, 2, 5, 10, 20} {
				n := ratioKeys * percent / 100
				lru, slru := hitRatio(t, keys, LRU, n, 1, tr.play), hitRatio(t, keys, SLRU, n, 1, tr.play)
				t.Logf("%2d %% of the keys: lru %.1f %%, slru %.1f %%", percent, lru, slru)
				if slru < lru+tr.gain {
					t.Errorf("%d %% of the keys: slru %.1f %%, lru %.1f %%; slru must gain %.0f points",
						percent, slru, lru, tr.gain)
				}
			}
		})
	}
}

// Shares divide the bytes evenly, keys do not divide evenly: sharding costs a little.
func TestShardingCostsLittle(t *testing.T) {
	keys, play := traceKeys(0), zipf(200_000, 1.01)
	for _, p := range []Policy{LRU, SLRU} {
		one, many := hitRatio(t, keys, p, ratioKeys/10, 1, play), hitRatio(t, keys, p, ratioKeys/10, 32, play)
		t.Logf("%s: 1 shard %.2f %%, 32 shards %.2f %%", p, one, many)
		if many < one-1 {
			t.Errorf("%s: 32 shards have %.2f %%, one has %.2f %%", p, many, one)
		}
	}
}
