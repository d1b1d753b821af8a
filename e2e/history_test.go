package e2e

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/history"
	"github.com/ringside-cache/ringside/e2e/rig"
)

// roam does one thing after the other, of all that a client can do, until ctx is done. Nearly all of it goes through
// its own sidecar, as that of an application does.
func (a *actor) roam(ctx context.Context, home int, keys []string) {
	for ctx.Err() == nil {
		i, failed := home, a.failed.Load()
		if a.rng.IntN(50) == 0 {
			i = a.rng.IntN(len(a.sidecars))
		}
		a.step(i, []table{versioned, unversioned}[a.rng.IntN(2)], keys)
		if a.failed.Load() != failed { // or a fault would fill the history with failures
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func (a *actor) step(i int, table table, keys []string) {
	key := keys[a.rng.IntN(len(keys))]
	switch chance := a.rng.IntN(100); {
	case chance < 50:
		a.batch(i, table, keys)
	case chance < 62:
		a.get(i, table, key, false, 0)
	case chance < 67:
		a.get(i, table, key, true, 0)
	case chance < 72:
		a.get(i, table, key, false, a.token(table.name+"/"+key).Load())
	case chance < 84:
		a.put(i, table, key, a.condition(table, key))
	case chance < 89:
		c := a.condition(table, key)
		c.Absent = false // what is not there can not be deleted
		a.delete(i, table, key, c)
	case chance < 94:
		a.putDirect(table, key)
	case chance < 95:
		a.deleteDirect(table, key)
	case chance < 96:
		a.invalidate(i, table, key)
	default:
		a.getDirect(table, key)
	}
}

func (a *actor) condition(table table, key string) (c history.Condition) {
	switch chance := a.rng.IntN(10); {
	case chance == 0:
		c.Absent = true
	case chance == 1:
		c.Present = true
	case chance < 5 && table.versioned:
		c.Version = a.token(table.name + "/" + key).Load()
	}
	return c
}

// crowd is clients that roam until they are stopped.
type crowd struct {
	cancel context.CancelFunc
	all    sync.WaitGroup
}

// crowd starts n clients of each sidecar.
func (w *traffic) crowd(n int, seed uint64) *crowd {
	c := new(crowd)
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	for client := range n * len(w.sidecars) {
		a, keys := w.actor(seed), make([]string, w.keys)
		for i := range keys {
			keys[i] = w.key(i)
		}
		c.all.Go(func() { a.roam(ctx, client%len(w.sidecars), keys) })
	}
	w.t.Cleanup(c.stop)
	return c
}

func (c *crowd) stop() {
	c.cancel()
	c.all.Wait()
}

// during lets the crowd be for d, and judges what it does. It returns the operations that Linear is to judge.
func (w *traffic) during(d time.Duration) (row []history.Op) {
	const window = 2 * time.Second
	for end := time.Now().Add(d); d > 0; d = time.Until(end) {
		time.Sleep(min(d, window))
		for _, op := range w.cut() {
			if op.Kind != history.Read || op.NoCache || op.Sidecar == history.Direct {
				row = append(row, op)
			}
		}
	}
	return row
}

// converge waits until nothing old may be held, and compares what each sidecar says with the database. An answer that
// says that it is stale, because the machine was slow just then, is asked for again, a few times.
func (w *traffic) converge(p times) (compared int) {
	w.cut()
	time.Sleep(p.ttl + p.loadTimeout)
	a := w.actor(0)
	ops := a.compare()
	for try := 0; try < 10 && slices.ContainsFunc(ops, func(op history.Op) bool { return op.Stale }); try++ {
		time.Sleep(500 * time.Millisecond)
		ops = a.compare()
	}
	w.checker.Converge(ops)
	return len(ops)
}

// compare reads every key directly and through each sidecar.
func (a *actor) compare() []history.Op {
	keys := make([]string, a.keys)
	for i := range keys {
		keys[i] = a.key(i)
	}
	for _, table := range []table{versioned, unversioned} {
		for _, key := range keys {
			a.getDirect(table, key)
		}
		for i := range a.sidecars {
			a.batch(i, table, keys)
		}
	}
	return a.cut()
}

// fault is what happens to a part of the system for a while.
type fault struct {
	name string
	part string // of the system; two faults of one part at once are one
	do   func(w *traffic, i int) (undo func())
}

var faults = []fault{
	{"a sidecar is killed", "sidecar", func(w *traffic, i int) func() {
		w.sidecars[i].Kill()
		return func() { w.restart(i) }
	}},
	{"a sidecar is frozen", "sidecar", func(w *traffic, i int) func() {
		w.sidecars[i].Freeze()
		return w.sidecars[i].Thaw
	}},
	{"the database restarts", "database", func(w *traffic, _ int) func() {
		w.database.Stop()
		return w.database.Start
	}},
	{"the database is killed", "database", func(w *traffic, _ int) func() {
		w.database.Kill()
		return w.database.Start
	}},
	{"the database is frozen", "database", func(w *traffic, _ int) func() {
		w.database.Freeze()
		return w.database.Thaw
	}},
	{"etcd is away", "etcd", func(w *traffic, _ int) func() {
		w.etcd.Kill()
		return w.etcd.Start
	}},
	{"a sidecar leaves", "sidecar", func(w *traffic, i int) func() {
		w.sidecars[i].Stop()
		return func() { w.restart(i) }
	}},
}

// C2 and C4: whoever dies or freezes meanwhile.
func TestPromiseReadYourWritesAndMonotonicReads(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		w := newTraffic(t, e, 5, 60, quick)
		c := w.crowd(3, 1)
		row := w.during(3 * time.Second)
		for i := range faults {
			undo := w.makeFault(i, i%5)
			row = append(row, w.during(2500*time.Millisecond)...)
			undo()
			row = append(row, w.during(1500*time.Millisecond)...)
		}
		rig.AwaitRing(t, w.sidecars)
		row = append(row, w.during(2*time.Second)...)
		c.stop()
		w.judge("C2", len(faults), row)
		compared := w.converge(quick)
		differ := w.checker.Faults[history.Diverged]
		report(t, promise{
			number: "C4", n: compared, held: differ == 0,
			done:   e.name + ": after that and a ttl",
			figure: fmt.Sprintf("%d keys differ from SQL on any of 5 sidecars %v", differ, w.checker.First),
		})
	})
}

// judge reports what was found in a history with faults, which must have bitten.
func (w *traffic) judge(number string, faults int, row []history.Op) {
	t := w.t.(*testing.T)
	c := w.checker
	w.cut()
	if w.failed.Load() == 0 || w.stale.Load() == 0 || w.refused.Load() == 0 || w.unknown.Load() == 0 {
		t.Errorf("invalid run: %d failed, %d stale, %d refused, %d unknown; the faults were to cause some of each",
			w.failed.Load(), w.stale.Load(), w.refused.Load(), w.unknown.Load())
	}
	t.Logf("%d failed, such as: %s", w.failed.Load(), *w.lastFailure.Load())
	report(t, promise{
		number: number, n: c.Reads, held: c.Violations() == 0,
		done: fmt.Sprintf("%s: writes and reads through 5 sidecars and around them, %d faults", w.engine.name, faults),
		figure: fmt.Sprintf("%d of %d reads broke a promise (%d writes, %d of unknown outcome; oldest replaced for %v)"+
			" %v %v", c.Violations(), c.Reads, c.Writes, w.unknown.Load(), c.Worst.Round(time.Millisecond), c.Faults, c.First),
	})
	broken, undecided := history.Linear(row, 20*time.Second)
	report(t, promise{
		number: number, n: len(row), held: len(broken) == 0,
		done:   w.engine.name + ": the same: is each row linearizable (porcupine), by writes and by reads that look at it",
		figure: fmt.Sprintf("%d of %d keys are not %v, %d undecided", len(broken), 2*w.keys, broken, len(undecided)),
	})
}

// C3: writers go around the cache, which hears of none of it.
func TestPromiseStalenessWithoutInvalidations(t *testing.T) {
	t.Parallel()
	onEach(t, func(t *testing.T, e engine) {
		p := times{ttl: time.Second, localTTL: time.Second, loadTimeout: 500 * time.Millisecond}
		w := newTraffic(t, e, 5, 60, p)
		keys := make([]string, w.keys)
		for i := range keys {
			keys[i] = w.key(i)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for client := range 15 {
			a := w.actor(1)
			all.Go(func() {
				for ctx.Err() == nil {
					if client%5 == 0 {
						a.putDirect([]table{versioned, unversioned}[a.rng.IntN(2)], keys[a.rng.IntN(len(keys))])
						time.Sleep(2 * time.Millisecond)
						continue
					}
					a.batch(client%5, []table{versioned, unversioned}[a.rng.IntN(2)], keys)
				}
			})
		}
		w.during(8 * time.Second)
		cancel()
		all.Wait()
		w.cut()
		c, bound := w.checker, p.ttl+p.loadTimeout
		if c.Worst < p.ttl/2 {
			t.Errorf("invalid run: nothing older than %v was read", c.Worst)
		}
		report(t, promise{
			number: "C3", n: c.Reads, held: c.Violations() == 0,
			done: fmt.Sprintf("%s: %d writes with SQL, no feed, reads through 5 sidecars", e.name, c.Writes),
			figure: fmt.Sprintf("%d of %d reads older than ttl + load_timeout (%v); the oldest had been replaced for %v %v",
				c.Violations(), c.Reads, bound, c.Worst.Round(time.Millisecond), c.First),
		})
	})
}
