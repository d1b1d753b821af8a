package history

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// world simulates a cache that keeps its promises: sidecars with copies that expire, lost invalidations, writers that bypass
// the cache, restarts, outages, writes of unknown outcome. Its time is simulated as well.
type world struct {
	*rand.Rand
	versioned bool
	now       time.Duration
	rows      map[string]*row
	copies    []map[string]entry // by sidecar
	lives     []int32
	away      bool // the database is unavailable
	late      []func()
	seq       uint64
	ops       []Op
}

type entry struct {
	row    row
	loaded time.Duration
}

const (
	simTTL      = 80 // less than rules.Fresh, by 20 for the load
	simStale    = 900
	simSidecars = 3
)

func newWorld(seed uint64, versioned bool) *world {
	w := &world{
		Rand: rand.New(rand.NewPCG(seed, 1)), versioned: versioned, now: 100,
		rows: map[string]*row{"a": {}, "b": {}}, lives: make([]int32, simSidecars),
	}
	for range simSidecars {
		w.copies = append(w.copies, map[string]entry{})
	}
	return w
}

// run makes n operations in sequence. Each happens at one moment, and its recorded start and end are before and after it.
func (w *world) run(n int) []Op {
	for range n {
		w.now += time.Duration(w.IntN(12))
		op := Op{
			Sidecar: int32(w.IntN(simSidecars)), Key: string('a' + rune(w.IntN(2))),
			Start: w.now - time.Duration(w.IntN(10)), End: w.now + time.Duration(w.IntN(10)),
		}
		op.Life = w.lives[op.Sidecar]
		switch chance := w.IntN(100); {
		case chance < 60:
			w.read(op)
		case chance < 90:
			w.write(op)
		case chance < 93:
			w.restart(op.Sidecar)
		case chance < 96:
			w.away = !w.away
		case chance < 98:
			w.invalidate(op)
		case len(w.late) > 0:
			w.late[0]()
			w.late = w.late[1:]
		}
	}
	return w.ops
}

func (w *world) log(op Op, r row) {
	op.Seq, op.Version = r.seq, r.version
	if r.seq == 0 && op.Kind == Read {
		op.Outcome, op.Version = Absent, 0
	}
	if !w.versioned {
		op.Version = 0
	}
	w.ops = append(w.ops, op)
}

func (w *world) read(op Op) {
	copies := w.copies[op.Sidecar]
	copied, ok := copies[op.Key]
	op.NoCache = w.IntN(5) == 0
	if direct := w.IntN(10) == 0; direct {
		op.Sidecar, op.Life, ok = Direct, 0, false
		copies = map[string]entry{}
	}
	age := w.now - copied.loaded
	switch {
	case ok && !op.NoCache && age < simTTL:
		w.log(op, copied.row)
	case !w.away:
		copies[op.Key] = entry{*w.rows[op.Key], w.now}
		w.log(op, *w.rows[op.Key])
	case ok && !op.NoCache && age < simStale && copied.row.seq != 0:
		op.Stale = true
		w.log(op, copied.row)
	default:
		op.Outcome = Failed
		w.ops = append(w.ops, op)
	}
}

func (w *world) write(op Op) {
	if w.seq++; w.IntN(4) == 0 {
		op.Kind = Delete
	} else {
		op.Kind, op.Seq = Put, w.seq
	}
	r := w.rows[op.Key]
	op.If = w.condition(*r)
	direct := w.IntN(4) == 0
	if direct {
		op.Sidecar, op.Life = Direct, 0
	}
	holds, _ := r.meets(op.If)
	switch outcome := w.IntN(8); {
	case w.away:
		op.Outcome = Failed
	case outcome == 0:
		op.Outcome = Unknown
		w.lateWrite(op)
	case !holds:
		op.Outcome = Refused
	default:
		existed := r.seq != 0
		w.commit(op)
		if !direct {
			w.drop(op)
		}
		if op.Kind == Put || existed {
			w.log(op, row{op.Seq, r.version})
			return
		}
	}
	w.ops = append(w.ops, op)
}

func (w *world) condition(r row) (c Condition) {
	switch w.IntN(8) {
	case 0:
		c.Absent = true
	case 1:
		c.Present = true
	case 2:
		if w.versioned && r.version > 1 {
			c.Version = r.version - int64(w.IntN(2))
		}
	}
	return c
}

func (w *world) commit(op Op) {
	r := w.rows[op.Key]
	switch holds, _ := r.meets(op.If); {
	case !holds:
	case op.Kind == Delete && r.seq != 0:
		*r = row{0, r.version + 1}
	case op.Kind == Put && r.seq == 0:
		*r = row{op.Seq, int64(1e6 + w.now)}
	case op.Kind == Put:
		*r = row{op.Seq, r.version + 1}
	}
}

// lateWrite may commit now, later, or never.
func (w *world) lateWrite(op Op) {
	switch w.IntN(3) {
	case 0:
		w.commit(op)
	case 1:
		w.late = append(w.late, func() { w.commit(op) })
	}
}

// drop removes the writer's own copy, and each other copy unless its invalidation is lost.
func (w *world) drop(op Op) {
	for i, copies := range w.copies {
		if int32(i) == op.Sidecar || w.IntN(3) > 0 {
			delete(copies, op.Key)
		}
	}
}

func (w *world) restart(sidecar int32) {
	w.lives[sidecar]++
	clear(w.copies[sidecar])
}

func (w *world) invalidate(op Op) {
	op.Kind = Invalidate
	for _, copies := range w.copies {
		delete(copies, op.Key)
	}
	w.ops = append(w.ops, op)
}

const histories = 10000

func TestGoodSimulatedHistoriesPass(t *testing.T) {
	reads, writes := 0, 0
	for seed := range uint64(histories) {
		ops := newWorld(seed, seed%2 == 0).run(120)
		checker := NewChecker(rules)
		for _, window := range windowsOf(ops, 1+int(seed%4)) {
			checker.Check(window)
		}
		if checker.Violations() != 0 {
			t.Fatalf("seed %d: %v", seed, checker.First)
		}
		reads, writes = reads+checker.Reads, writes+checker.Writes
	}
	t.Logf("%d reads and %d writes", reads, writes)
	if reads < 40*histories || writes < 20*histories {
		t.Error("too few operations")
	}
}

// windowsOf cuts a history into at most n windows, at times at which no operation runs.
func windowsOf(ops []Op, n int) (windows [][]Op) {
	ops = slices.SortedFunc(slices.Values(ops), func(a, b Op) int { return cmp.Compare(a.Start, b.Start) })
	first, ended := 0, time.Duration(0)
	for i, op := range ops {
		if op.Start > ended && i-first > len(ops)/n {
			windows, first = append(windows, ops[first:i]), i
		}
		ended = max(ended, op.End)
	}
	return append(windows, ops[first:])
}

func TestGoodSimulatedHistoriesAreLinearizable(t *testing.T) {
	for seed := range uint64(histories / 10) {
		ops := newWorld(seed, seed%2 == 0).run(120)
		if broken, undecided := Linear(ops, time.Minute); len(broken)+len(undecided) != 0 {
			t.Fatalf("seed %d: broken %v, undecided %v", seed, broken, undecided)
		}
	}
}

// plant changes one read of a good history so that it certainly breaks a promise. into returns false if it cannot.
type plant struct {
	name  string
	into  func(w *world, read *Op, ops []Op) bool
	found []Fault
}

var plants = []plant{
	{"a value that no client wrote", func(_ *world, r *Op, _ []Op) bool { r.Seq = 1 << 40; return true }, []Fault{Phantom}},
	{"a value of another key", func(w *world, r *Op, ops []Op) bool {
		return w.pick(ops, func(op *Op) bool { return op.Kind == Put && op.Key != r.Key }, func(op *Op) { r.Seq = op.Seq })
	}, []Fault{Phantom}},
	{"a value before its write began", func(w *world, r *Op, ops []Op) bool {
		return w.pick(ops, func(op *Op) bool { return op.Kind == Put && op.Key == r.Key && op.Start > r.End },
			func(op *Op) { r.Seq, r.Version = op.Seq, op.Version })
	}, []Fault{Phantom}},
	{"a value of a refused or failed write", func(w *world, r *Op, ops []Op) bool {
		return w.pick(ops, func(op *Op) bool {
			return op.Kind == Put && op.Key == r.Key && (op.Outcome == Refused || op.Outcome == Failed)
		}, func(op *Op) { r.Seq = op.Seq })
	}, []Fault{Phantom}},
	{"a value with another version", func(w *world, r *Op, ops []Op) bool {
		return w.pick(ops, func(op *Op) bool { return op.Kind == Put && op.Seq == r.Seq && op.Outcome == OK },
			func(*Op) { r.Version += 1 << 40 })
	}, []Fault{Phantom}},
	{"older than an earlier read", older(func(r, op *Op) bool {
		return op.answered() && op.Outcome == OK && op.Sidecar == r.Sidecar && op.Life == r.Life
	}), []Fault{Backwards, OwnWrite, TooOld}},
	{"older than an earlier write", older(func(r, op *Op) bool {
		return op.Kind == Put && op.Outcome == OK && op.Sidecar == r.Sidecar && op.Life == r.Life
	}), []Fault{OwnWrite, TooOld}},
	{"replaced too long ago", older(func(r, op *Op) bool {
		return op.Kind == Put && op.Outcome == OK && op.End < r.Start-rules.Fresh && !r.Stale
	}), []Fault{TooOld, OwnWrite, Backwards}},
	{"older than the required version", func(_ *world, r *Op, _ []Op) bool {
		r.MinVersion = r.Version + 1
		return true
	}, []Fault{MinVersion}},
}

// older gives a read the value of a write that certainly precedes another operation whose bound holds for the read.
func older(binds func(r, op *Op) bool) func(*world, *Op, []Op) bool {
	return func(w *world, r *Op, ops []Op) bool {
		var newer Op
		found := w.pick(ops, func(op *Op) bool {
			return op.Key == r.Key && op.End < r.Start && op.Version != 0 && binds(r, op)
		}, func(op *Op) { newer = *op })
		return found && w.pick(ops, func(op *Op) bool {
			return op.Kind == Put && op.Outcome == OK && op.Key == r.Key && op.Version < newer.Version && op.Start < r.End
		}, func(op *Op) { r.Seq, r.Version = op.Seq, op.Version })
	}
}

// pick calls use with a random one of the ops that fit.
func (w *world) pick(ops []Op, fits func(*Op) bool, use func(*Op)) bool {
	var fit []*Op
	for i := range ops {
		if fits(&ops[i]) {
			fit = append(fit, &ops[i])
		}
	}
	if len(fit) > 0 {
		use(fit[w.IntN(len(fit))])
	}
	return len(fit) > 0
}

func TestPlantedFaultsAreFound(t *testing.T) {
	for _, p := range plants {
		planted, found := 0, 0
		for seed := range uint64(histories / 10) {
			w := newWorld(seed, true)
			ops := w.run(120)
			if !w.plant(p, ops) {
				continue
			}
			planted++
			checker := NewChecker(rules)
			checker.Check(ops)
			found += one(slices.ContainsFunc(p.found, func(f Fault) bool { return checker.Faults[f] > 0 }))
		}
		t.Logf("%s: %d planted", p.name, planted)
		if planted < histories/50 || found != planted {
			t.Errorf("%s: found %d of %d", p.name, found, planted)
		}
	}
}

// plant applies p to a random read from a sidecar's memory.
func (w *world) plant(p plant, ops []Op) (planted bool) {
	fits := func(op *Op) bool {
		return op.answered() && op.Outcome == OK && op.Sidecar != Direct && !op.NoCache
	}
	return w.pick(ops, fits, func(r *Op) { planted = p.into(w, r, ops) }) && planted
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

func BenchmarkCheck(b *testing.B) {
	var ops []Op
	for key := range 100 {
		w := newWorld(uint64(key), true)
		for _, op := range w.run(10000) {
			op.Key = fmt.Sprint(op.Key, key)
			op.Seq += uint64(key) << 32 * uint64(one(op.Seq != 0))
			ops = append(ops, op)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		NewChecker(rules).Check(slices.Clone(ops))
	}
	b.ReportMetric(float64(len(ops)), "ops")
}
