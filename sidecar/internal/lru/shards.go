package lru

import (
	"math/bits"
	"runtime"
)

const (
	shardsPerCPU = 16
	// minShare keeps shards so large that the largest value of a database, 1 MiB, fits into one with its key.
	minShare = 2 << 20 //guard:largest-value-database-loaded-each-read
	// maxShare keeps shards so small that listing the keys of one, which a sweep does under its lock, stays short.
	maxShare = 8 << 20
)

// DefaultShards is the number of shards for a bound of maxBytes, a power of two: 16 to 32 for each CPU that Go may
// use, more where a share would exceed 8 MiB, fewer where it would be under 2 MiB.
func DefaultShards(maxBytes int64) int {
	want := max(int64(shardsPerCPU*runtime.GOMAXPROCS(0)), maxBytes/maxShare)
	n := ceilPowerOfTwo(want)
	for n > 1 && maxBytes/n < minShare {
		n /= 2
	}
	return int(n)
}

func ceilPowerOfTwo(n int64) int64 { return 1 << bits.Len64(uint64(n-1)) }
