package kv

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestDistributionHasEachDurationInItsBucket(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	list := []time.Duration{time.Second, time.Second / 2, time.Second + 1, 1, 59, 60, 24 * time.Hour}
	for range 2000 {
		list = append(list, time.Duration(math.Exp(random.Float64()*35)))
	}
	for _, d := range list {
		var h Distribution
		h.ObserveN(d, 3)
		s := h.Snapshot()
		if s.Count != 3 || math.Abs(s.Sum-3*d.Seconds()) > 1e-9*s.Sum+1e-12 || !h.Any() {
			t.Fatalf("%v: got %+v", d, s)
		}
		for i, n := range s.Buckets {
			below, upTo := math.Exp2(float64(i-1)/4), math.Exp2(float64(i)/4)
			if x := d.Seconds(); n != 3 || x <= below*(1-1e-12) || x > upTo*(1+1e-12) {
				t.Fatalf("%v: got %d in the bucket from %v to %v", d, n, below, upTo)
			}
		}
		for e := -24; e <= 21; e++ {
			if got, want := s.UpTo(e) == 3, d.Seconds() <= math.Ldexp(1, e); got != want {
				t.Fatalf("%v: at most 2^%d s: got %t, want %t", d, e, got, want)
			}
		}
	}
}

func TestDistributionOfImpossibleDurations(t *testing.T) {
	var h Distribution
	if h.Any() {
		t.Error("an empty distribution has counted something")
	}
	h.Observe(0)
	h.Observe(-time.Hour)
	h.Observe(math.MaxInt64)
	s := h.Snapshot()
	if s.Count != 3 || s.Zero != 2 || len(s.Buckets) != 1 || s.Buckets[maxBucket] != 1 || s.UpTo(0) != 2 {
		t.Errorf("got %+v, want two zeros and one in the last bucket", s)
	}
}

// Clocks count in steps of 1 ns, of 40 ns (a counter of 25 MHz), of 41.67 ns (Apple), or of 100 ns.
func TestOneOfManyHitsIsSampledWhateverTheClock(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, step := range []float64{1, 8, 40, 1000. / 24, 64, 100, 128, 1000} {
		const reads = 640_000
		sampled, ticks := 0, float64(random.Int64N(1e9))
		for range reads {
			ticks += 1 + float64(random.IntN(20))
			if Samples(int64(ticks * step)) {
				sampled++
			}
		}
		if share := float64(sampled) * SampledHits / reads; share < .9 || share > 1.1 {
			t.Errorf("clock of %v ns: %d of %d reads are sampled, want one in %d", step, sampled, reads, SampledHits)
		}
	}
}

func TestQuantile(t *testing.T) {
	var d Distribution
	for i := range 100 {
		d.Observe(time.Duration(i+1) * time.Millisecond)
	}
	before := d.Snapshot()
	d.ObserveN(time.Second, 50)
	buckets := before.Buckets
	for q, want := range map[float64]float64{0.5: 0.05, 0.99: 0.099, 1: 0.1} {
		if got := Quantile(buckets, q); got < want*0.85 || got > want*1.15 {
			t.Errorf("quantile %v = %v, want about %v", q, got, want)
		}
	}
	if got := Quantile(nil, 0.5); got != 0 {
		t.Errorf("without counts: %v", got)
	}
	if got := Quantile(map[int]int64{-1 << 62: 1, 1 << 62: 1}, 0.99); math.IsInf(got, 0) || got == 0 {
		t.Errorf("impossible buckets: %v", got)
	}
	since := d.Snapshot().Since(before)
	if since.Count != 50 || len(since.Buckets) != 1 || Quantile(since.Buckets, 0.5) < 0.85 {
		t.Errorf("since: %+v, want 50 of a second", since)
	}
}
