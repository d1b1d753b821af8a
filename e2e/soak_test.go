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
	soakFor  = flag.Duration("soak", 20*time.Second, "how long TestSoak looks for broken promises, per database")
	soakSeed = flag.Uint64("soak-seed", 0, "which faults TestSoak makes, and when; 0: others each time")
)

// maxSoakHeap bounds what a soak may keep of its history, in bytes: it is to run for hours.
const maxSoakHeap = 1 << 30

// TestSoak makes faults at random under clients that do all that clients can do, and judges every operation.
func TestSoak(t *testing.T) {
	seed := *soakSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	onEach(t, func(t *testing.T, e engine) {
		t.Logf("-soak %v -soak-seed %d", *soakFor, seed)
		w := newTraffic(t, e, 5, 60, quick)
		c := w.crowd(2, seed)
		n := w.havoc(rand.New(rand.NewPCG(seed, 0)), *soakFor)
		rig.AwaitRing(t, w.sidecars)
		w.during(time.Second)
		c.stop()
		compared := w.converge(quick)
		var memory runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&memory)
		if memory.HeapAlloc > maxSoakHeap {
			t.Errorf("%d MiB of history are kept", memory.HeapAlloc>>20)
		}
		report(t, promise{
			number: "soak", n: w.checker.Reads, held: w.checker.Violations() == 0,
			done: fmt.Sprintf("%s: %d faults at random in %v, seed %d", e.name, n, *soakFor, seed),
			figure: fmt.Sprintf("%d of %d reads and %d writes (%d of unknown outcome, %d failed) broke a promise; "+
				"%d of %d differ from SQL in the end; heap %d MiB %v %v",
				w.checker.Violations(), w.checker.Reads, w.checker.Writes, w.unknown.Load(), w.failed.Load(),
				w.checker.Faults[history.Diverged], compared, memory.HeapAlloc>>20, w.checker.Faults, w.checker.First),
		})
	})
}

// havoc makes faults for d: one at a time, and at times a second one meanwhile. It returns how many.
func (w *traffic) havoc(rng *rand.Rand, d time.Duration) (n int) {
	moment := func() time.Duration { return time.Duration(300+rng.IntN(3000)) * time.Millisecond }
	for end := time.Now().Add(d); time.Now().Before(end); {
		first, second := rng.IntN(len(faults)), rng.IntN(len(faults))
		i := rng.IntN(len(w.sidecars))
		undo := []func(){w.makeFault(first, i)}
		w.during(moment())
		if rng.IntN(4) == 0 && faults[first].part != faults[second].part {
			undo = append(undo, w.makeFault(second, i))
			w.during(moment())
		}
		for _, undo := range undo {
			undo()
		}
		w.during(moment())
		n += len(undo)
	}
	return n
}

func (w *traffic) makeFault(which, sidecar int) (undo func()) {
	f := faults[which]
	w.t.Logf("%v: %s (%d)", w.recorder.Now().Round(time.Millisecond), f.name, sidecar+1)
	return f.do(w, sidecar)
}
