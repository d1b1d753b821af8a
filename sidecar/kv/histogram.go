package kv

import (
	"sync/atomic"
	"time"
)

// Buckets are the upper bounds of every Histogram, in seconds.
var Buckets = [...]float64{.00001, .000025, .00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// Histogram counts durations without locks. Its zero value is ready.
type Histogram struct {
	Exemplars
	counts [len(Buckets) + 1]atomic.Uint64 // not cumulative; the last one is +Inf
	sum    atomic.Int64                    // nanoseconds
}

// Observe counts one duration.
func (h *Histogram) Observe(d time.Duration) { h.ObserveN(d, 1) }

// ObserveN counts a duration n times: the mean of n that were measured together.
func (h *Histogram) ObserveN(d time.Duration, n int64) {
	s, i := d.Seconds(), 0
	for i < len(Buckets) && s > Buckets[i] {
		i++
	}
	h.counts[i].Add(uint64(n))
	h.sum.Add(int64(d) * n)
}

// Any reports whether h has counted anything.
func (h *Histogram) Any() bool {
	for i := range h.counts {
		if h.counts[i].Load() > 0 {
			return true
		}
	}
	return false
}

// Snapshot returns the count, the sum in seconds, and the cumulative count under each bucket's upper bound, as
// Prometheus needs them.
func (h *Histogram) Snapshot() (count uint64, sum float64, buckets map[float64]uint64) {
	buckets = make(map[float64]uint64, len(Buckets))
	for i, bound := range Buckets {
		count += h.counts[i].Load()
		buckets[bound] = count
	}
	count += h.counts[len(Buckets)].Load()
	return count, time.Duration(h.sum.Load()).Seconds(), buckets
}
