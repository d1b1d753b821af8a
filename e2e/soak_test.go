package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/history"
	"github.com/ringside-cache/ringside/e2e/rig"
)

var (
	soakFor  = flag.Duration("soak", 20*time.Second, "how long TestSoak runs per database")
	soakSeed = flag.Uint64("soak-seed", 0, "the seed of the faults and operations of TestSoak; 0: the time")
)

// maxSoakHeap bounds the memory of a soak, in bytes, so that it can run for hours.
const maxSoakHeap = 1 << 30

// TestSoak makes random faults while clients make random operations, and checks every operation. For a longer run on one
// database: go test ./e2e -run TestSoak/mysql -soak 10m -timeout 20m
func TestSoak(t *testing.T) {
	seed := *soakSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	onEach(t, func(t *testing.T, e engine) {
		t.Logf("-soak %v -soak-seed %d", *soakFor, seed)
		w := newTraffic(t, e, 5, 60, quick)
		c := w.startClients(2, seed)
		n := w.randomFaults(rand.New(rand.NewPCG(seed, 0)), *soakFor)
		rig.AwaitRing(t, w.sidecars)
		w.checkFor(time.Second)
		c.stop()
		compared := w.converge(quick)
		var memory runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&memory)
		if memory.HeapAlloc > maxSoakHeap {
			t.Errorf("the heap has %d MiB after the run", memory.HeapAlloc>>20)
		}
		report(t, promise{
			number: "soak", n: w.checker.Reads, held: w.checker.Violations() == 0,
			done: fmt.Sprintf("%s: %d random faults in %v, seed %d", e.name, n, *soakFor, seed),
			figure: fmt.Sprintf("%d of %d reads and %d writes (%d of unknown outcome, %d failed) broke a promise; "+
				"%d of %d values differ from SQL at the end; heap %d MiB %v %v",
				w.checker.Violations(), w.checker.Reads, w.checker.Writes, w.unknown.Load(), w.failed.Load(),
				w.checker.Faults[history.Diverged], compared, memory.HeapAlloc>>20, w.checker.Faults, w.checker.First),
		})
	})
}

// randomFaults makes faults for d: one at a time, and sometimes a second one at the same time. It returns their number.
func (w *traffic) randomFaults(rng *rand.Rand, d time.Duration) (n int) {
	moment := func() time.Duration { return time.Duration(300+rng.IntN(3000)) * time.Millisecond }
	for end := time.Now().Add(d); time.Now().Before(end); {
		first, second := rng.IntN(len(faults)), rng.IntN(len(faults))
		i := rng.IntN(len(w.sidecars))
		undo := []func(){w.makeFault(first, i)}
		w.checkFor(moment())
		if rng.IntN(4) == 0 && faults[first].part != faults[second].part {
			undo = append(undo, w.makeFault(second, i))
			w.checkFor(moment())
		}
		for _, undo := range undo {
			undo()
		}
		w.checkFor(moment())
		n += len(undo)
	}
	return n
}

func (w *traffic) makeFault(which, sidecar int) (undo func()) {
	f := faults[which]
	w.t.Logf("%v: %s (%d)", w.recorder.Now().Round(time.Millisecond), f.name, sidecar+1)
	return f.do(w, sidecar)
}
