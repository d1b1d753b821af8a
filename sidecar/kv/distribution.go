package kv

import (
	"maps"
	"math"
	"slices"
	"sync/atomic"
	"time"
)

// The buckets of a Distribution are those of a native histogram of Prometheus with this schema: bucket i has what is above
// 2^((i-1)/4) seconds and at most 2^(i/4), so that the bounds of each are a fifth apart.
const (
	DistributionSchema = 2
	perOctave          = 1 << DistributionSchema
	// minBucket is just below 60 ns, maxBucket 24 days. What is less is in the bucket of zero, what is more in the last one.
	minBucket, maxBucket = -24 * perOctave, 21 * perOctave
	// DistributionZero is the upper bound of the bucket of zero, in seconds.
	DistributionZero = 1. / (1 << 24)
)

// Distribution counts durations without locks, in more and finer buckets than a Histogram, over a longer range. An
// observation takes a logarithm: it is not for every hit. Its zero value is ready.
type Distribution struct {
	Exemplars
	zero   atomic.Uint64
	counts [maxBucket - minBucket]atomic.Uint64 // :: bucket - minBucket - 1
	sum    atomic.Int64                         // nanoseconds
}

// Observe counts one duration.
func (h *Distribution) Observe(d time.Duration) { h.ObserveN(d, 1) }

// ObserveN counts a duration n times: that of one read of n, of which the others were not measured.
func (h *Distribution) ObserveN(d time.Duration, n int64) {
	h.sum.Add(int64(max(0, d)) * n)
	if s := d.Seconds(); s > DistributionZero {
		i := min(int(math.Ceil(perOctave*math.Log2(s))), maxBucket) //guard:longest-duration-is-outside-of-the-buckets
		h.counts[max(i, minBucket+1)-minBucket-1].Add(uint64(n))
		return
	}
	h.zero.Add(uint64(n))
}

// Any reports whether h has counted anything.
func (h *Distribution) Any() bool { return h.sum.Load() > 0 || h.zero.Load() > 0 }

// DistributionSnapshot is what a Distribution has counted.
type DistributionSnapshot struct {
	Count, Zero uint64
	Sum         float64       // seconds
	Buckets     map[int]int64 // :: bucket → count; those that are not 0
}

// Snapshot returns what h has counted.
func (h *Distribution) Snapshot() DistributionSnapshot {
	s := DistributionSnapshot{Sum: time.Duration(h.sum.Load()).Seconds(), Buckets: map[int]int64{}}
	s.Zero = h.zero.Load()
	s.Count = s.Zero
	for n := range h.counts {
		if c := h.counts[n].Load(); c > 0 {
			s.Buckets[n+minBucket+1] = int64(c)
			s.Count += c
		}
	}
	return s
}

// UpTo returns the count of durations of at most 2^exponent seconds.
func (s DistributionSnapshot) UpTo(exponent int) uint64 {
	n := s.Zero
	for i, c := range s.Buckets {
		if i <= exponent*perOctave {
			n += uint64(c)
		}
	}
	return n
}

// Since returns what s has counted after before.
func (s DistributionSnapshot) Since(before DistributionSnapshot) DistributionSnapshot {
	d := DistributionSnapshot{Count: s.Count - before.Count, Zero: s.Zero - before.Zero, Sum: s.Sum - before.Sum, Buckets: map[int]int64{}}
	for i, c := range s.Buckets {
		if c > before.Buckets[i] {
			d.Buckets[i] = c - before.Buckets[i]
		}
	}
	return d
}

// ZeroBucket is the bucket of the zero count in a list of buckets.
const ZeroBucket = minBucket

// Quantile returns the duration in seconds that a share q of the counts does not exceed, at most a tenth off: the geometric middle of
// its bucket. 0 without counts.
func Quantile(buckets map[int]int64, q float64) float64 {
	var total int64
	for _, c := range buckets {
		total += c
	}
	rank := int64(math.Ceil(q * float64(total)))
	for _, i := range slices.Sorted(maps.Keys(buckets)) {
		if rank -= buckets[i]; rank <= 0 {
			i = min(max(i, ZeroBucket), maxBucket)
			return math.Exp2((float64(i) - 0.5) / perOctave)
		}
	}
	return 0
}
