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

// run makes random operations until ctx is done. Nearly all go through one sidecar, as those of an application do.
func (a *actor) run(ctx context.Context, home int, keys []string) {
	for ctx.Err() == nil {
		i, failed := home, a.failed.Load()
		if a.rng.IntN(50) == 0 {
			i = a.rng.IntN(len(a.sidecars))
		}
		a.randomOperation(i, []table{versioned, unversioned}[a.rng.IntN(2)], keys)
		if a.failed.Load() != failed { // otherwise an unavailable server would fill the history with failures
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func (a *actor) randomOperation(i int, table table, keys []string) {
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
		c.Absent = false // a delete cannot require absence
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

// clientGroup is a group of clients that run until stop.
type clientGroup struct {
	cancel context.CancelFunc
	all    sync.WaitGroup
}

// startClients starts n clients of each sidecar.
func (w *traffic) startClients(n int, seed uint64) *clientGroup {
	c := new(clientGroup)
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	for client := range n * len(w.sidecars) {
		a, keys := w.actor(seed), make([]string, w.keys)
		for i := range keys {
			keys[i] = w.key(i)
		}
		c.all.Go(func() { a.run(ctx, client%len(w.sidecars), keys) })
	}
	w.t.Cleanup(c.stop)
	return c
}

func (c *clientGroup) stop() {
	c.cancel()
	c.all.Wait()
}

// checkFor checks the operations of the clients for d. It returns those that Linear must check.
func (w *traffic) checkFor(d time.Duration) (row []history.Op) {
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

// converge waits until no old value may be cached, and compares the values of each sidecar with the database. It repeats a read
// a few times if the response is marked as stale, which happens on a slow machine.
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

// fault makes one part of the system fail. undo repairs it.
type fault struct {
	name string
	part string // of the system; concurrent faults of one part would be one fault
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
	{"etcd is killed", "etcd", func(w *traffic, _ int) func() {
		w.etcd.Kill()
		return w.etcd.Start
	}},
	{"a sidecar is stopped", "sidecar", func(w *traffic, i int) func() {
		w.sidecars[i].Stop()
		return func() { w.restart(i) }
	}},
}

// C2 and C4, while sidecars, the database and etcd are killed, stopped and frozen; with one kind of database in a cluster with zones
// and a client of the ring.
func TestPromiseReadYourWritesAndMonotonicReads(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		p := quick
		p.zones = e.name == "mariadb"
		w := newTraffic(t, e, 5, 60, p)
		c := w.startClients(3, 1)
		row := w.checkFor(3 * time.Second)
		for i := range faults {
			undo := w.makeFault(i, i%5)
			row = append(row, w.checkFor(2500*time.Millisecond)...)
			undo()
			row = append(row, w.checkFor(1500*time.Millisecond)...)
		}
		rig.AwaitRing(t, w.members)
		row = append(row, w.checkFor(2*time.Second)...)
		c.stop()
		w.reportHistory("C2", len(faults), row)
		compared := w.converge(p)
		differ := w.checker.Faults[history.Diverged]
		report(t, promise{
			number: "C4", n: compared, held: differ == 0,
			done:   e.name + ": a ttl after that",
			figure: fmt.Sprintf("%d keys differ from SQL on any of %d sidecars %v", differ, len(w.sidecars), w.checker.First),
		})
	})
}

// reportHistory reports the violations in a history with faults. The faults must have had an effect.
func (w *traffic) reportHistory(number string, faults int, row []history.Op) {
	t := w.t.(*testing.T)
	c := w.checker
	w.cut()
	if w.failed.Load() == 0 || w.stale.Load() == 0 || w.refused.Load() == 0 || w.unknown.Load() == 0 {
		t.Errorf("invalid run: %d failed, %d stale, %d refused, %d unknown; want at least one of each",
			w.failed.Load(), w.stale.Load(), w.refused.Load(), w.unknown.Load())
	}
	t.Logf("%d failed, such as: %s", w.failed.Load(), *w.lastFailure.Load())
	report(t, promise{
		number: number, n: c.Reads, held: c.Violations() == 0,
		done: fmt.Sprintf("%s: writes and reads through %d sidecars and with SQL, %d faults", w.engine.name, len(w.sidecars), faults),
		figure: fmt.Sprintf("%d of %d reads broke a promise (%d writes, %d of unknown outcome; greatest age since replacement %v)"+
			" %v %v", c.Violations(), c.Reads, c.Writes, w.unknown.Load(), c.Worst.Round(time.Millisecond), c.Faults, c.First),
	})
	broken, undecided := history.Linear(row, 20*time.Second)
	report(t, promise{
		number: number, n: len(row), held: len(broken) == 0,
		done:   w.engine.name + ": the same: each row is linearizable (porcupine) in writes and in reads that use the database",
		figure: fmt.Sprintf("%d of %d keys are not %v, %d undecided", len(broken), 2*w.keys, broken, len(undecided)),
	})
}

// C3: writers bypass the cache, and no change feed reports their writes.
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
		w.checkFor(8 * time.Second)
		cancel()
		all.Wait()
		w.cut()
		c, bound := w.checker, p.ttl+p.loadTimeout
		if c.Worst < p.ttl/2 {
			t.Errorf("invalid run: the greatest age is %v", c.Worst)
		}
		report(t, promise{
			number: "C3", n: c.Reads, held: c.Violations() == 0,
			done: fmt.Sprintf("%s: %d writes with SQL, no feed, reads through 5 sidecars", e.name, c.Writes),
			figure: fmt.Sprintf("%d of %d reads older than ttl + load_timeout (%v); the greatest age since replacement was %v %v",
				c.Violations(), c.Reads, bound, c.Worst.Round(time.Millisecond), c.First),
		})
	})
}
