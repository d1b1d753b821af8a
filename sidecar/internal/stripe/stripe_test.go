package stripe

import (
	"sync"
	"sync/atomic"
	"testing"
)

const bits = 5

func TestGoroutineKeepsItsStripe(t *testing.T) {
	first := Of(bits)
	for range 1000 {
		if got := Of(bits); got != first {
			t.Fatalf("got stripe %d and then %d", first, got)
		}
	}
}

// All goroutines are alive until the last one has its stripe; otherwise they would have the same stack.
func TestGoroutinesAreSpread(t *testing.T) {
	const goroutines = 256
	var counts [1 << bits]atomic.Int64
	var all, arrived sync.WaitGroup
	arrived.Add(goroutines)
	for range goroutines {
		all.Go(func() {
			i := Of(bits)
			if i < 0 || i >= len(counts) {
				t.Errorf("got stripe %d of %d", i, len(counts))
			} else {
				counts[i].Add(1)
			}
			arrived.Done()
			arrived.Wait()
		})
	}
	all.Wait()
	used, most := 0, int64(0)
	for i := range counts {
		if n := counts[i].Load(); n > 0 {
			used, most = used+1, max(most, n)
		}
	}
	if used < len(counts)/2 || most > goroutines/4 {
		t.Errorf("%d goroutines use %d of %d stripes, one of them for %d; want at least half, and at most a quarter in one",
			goroutines, used, len(counts), most)
	}
}
