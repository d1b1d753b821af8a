package history

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"sort"
	"time"
)

// Rules are the bounds of the promises.
type Rules struct {
	// Fresh bounds the time between the acknowledgment of a write and the beginning of a read that still returns the value
	// that it replaced: ttl + load_timeout.
	Fresh time.Duration
	// Stale is the same bound for responses that are marked as stale: Fresh plus the stale windows.
	Stale time.Duration
}

// Fault is a broken promise.
type Fault string

// The faults.
const (
	Phantom    Fault = "phantom"     // a value that no client wrote, that belongs to another key, or that is damaged
	Backwards  Fault = "backwards"   // older than an earlier read through the same sidecar
	OwnWrite   Fault = "own write"   // older than an earlier write through the same sidecar
	MinVersion Fault = "min version" // older than the version that the read requires
	TooOld     Fault = "too old"     // replaced longer ago than the rules allow
	LostUpdate Fault = "lost update" // two writes replaced the same version, or happened in the wrong order
	Diverged   Fault = "diverged"    // differs from the database long after the last write
)

// Violation is one operation that breaks a promise.
type Violation struct {
	Fault Fault
	Op    Op
	Why   string
}

func (v Violation) String() string { return fmt.Sprintf("%s: %v: %s", v.Fault, v.Op, v.Why) }

// maxKept bounds the violations that a Checker keeps. It counts all of them.
const maxKept = 5

// Checker checks a history, in windows if it is long. It is not safe for concurrent use.
type Checker struct {
	rules Rules
	keys  map[string]*register

	// Reads counts the reads that returned a result, Writes all writes.
	Reads, Writes int
	// Worst is the longest time between the replacement of a value and a read that returned it without the stale mark.
	Worst time.Duration
	// Faults counts the violations; First has the first of them.
	Faults map[Fault]int
	First  []Violation
}

// NewChecker returns a Checker of an empty history, in which no key exists.
func NewChecker(rules Rules) *Checker {
	return &Checker{rules: rules, keys: map[string]*register{}, Faults: map[Fault]int{}}
}

// Violations returns the number of violations.
func (c *Checker) Violations() (n int) {
	for _, count := range c.Faults {
		n += count
	}
	return n
}

func (c *Checker) fault(f Fault, op *Op, format string, args ...any) {
	c.Faults[f]++
	if len(c.First) < maxKept {
		c.First = append(c.First, Violation{f, *op, fmt.Sprintf(format, args...)})
	}
}

// Check checks a window of the history: all operations that began after the end of the previous window. It keeps what later
// windows need, which does not grow with the history.
func (c *Checker) Check(window []Op) {
	byKey, now := map[string][]*Op{}, time.Duration(0)
	for i := range window {
		op := &window[i]
		byKey[op.Key] = append(byKey[op.Key], op)
		now = max(now, op.End)
	}
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		r := c.keys[key]
		if r == nil {
			r = newRegister(c)
			c.keys[key] = r
		}
		r.window(byKey[key])
		r.discard(now - max(c.rules.Fresh, c.rules.Stale))
	}
}

// Converge checks reads long after the last write: of each key one Direct, and one through each sidecar.
func (c *Checker) Converge(reads []Op) {
	truth := map[string]*Op{}
	for i := range reads {
		if reads[i].Sidecar == Direct {
			truth[reads[i].Key] = &reads[i]
		}
	}
	for i := range reads {
		op, want := &reads[i], truth[reads[i].Key]
		if want == nil || op.Outcome != want.Outcome || op.Seq != want.Seq || op.Version != want.Version && op.Seq != 0 {
			c.fault(Diverged, op, "the database returns: %v", want)
		}
	}
}

// never is the end of a write of which it is not known whether it happened.
const never = time.Duration(math.MaxInt64)

// state is the state of a row between two writes: a value, or absent.
type state struct {
	seq        uint64
	version    int64         // 0 while it is not known
	start, end time.Duration // the row took the state between these times; or perhaps never, if end is never
	refused    bool          // the row did not take the state
}

// bound is the state, or the latest of several states, that a read must not precede.
type bound struct {
	version int64
	start   time.Duration
}

func (s *state) bound() bound { return bound{s.version, s.start} }

// before reports whether s had certainly been replaced when the row took the state of b: by the versions, if both are known,
// or because the write of s ended before that of b began.
func (s *state) before(b bound) bool {
	return s.version != 0 && s.version < b.version || s.end < b.start
}

func (b bound) and(o bound) bound { return bound{max(b.version, o.version), max(b.start, o.start)} }

// ack is a bound that holds for reads that begin after end.
type ack struct {
	end time.Duration
	bound
}

type session struct{ sidecar, life int32 }

// register has the history of one key.
type register struct {
	*Checker
	values    map[uint64]*state // :: seq → the write's state
	versions  map[int64]uint64  // :: version → seq
	absents   []*state
	acks      []ack // in the order of end; each includes all bounds before it
	base      bound // of the discarded acks
	discarded uint64
	replaced  map[int64]bool    // versions that a conditional write replaced
	read      map[session]bound // the bound of earlier reads through a sidecar
	wrote     map[session]bound // the bound of earlier writes through a sidecar
	invalid   bound             // the bound of explicit invalidations
}

func newRegister(c *Checker) *register {
	return &register{
		Checker: c, values: map[uint64]*state{}, versions: map[int64]uint64{}, replaced: map[int64]bool{},
		read: map[session]bound{}, wrote: map[session]bound{}, absents: []*state{{}},
	}
}

func (r *register) window(ops []*Op) {
	for _, op := range ops {
		if op.isWrite() {
			r.Writes++
			r.install(op)
		}
	}
	for _, op := range ops {
		if op.answered() {
			r.Reads++
			r.learn(op)
		}
	}
	r.order()
	r.sweep(ops)
	for _, op := range ops {
		if op.isWrite() && op.Outcome == OK {
			r.checkUpdate(op)
		}
	}
}

// install adds the state that a write makes.
func (r *register) install(op *Op) {
	s := &state{seq: op.Seq, start: op.Start, end: op.End, refused: op.Outcome != OK}
	if op.Outcome == Unknown {
		s.end, s.refused = never, false //guard:checker-unknown-write
	}
	if op.Kind == Put {
		r.values[op.Seq] = s
	} else if !s.refused {
		r.absents = append(r.absents, s)
	}
	switch {
	case op.Outcome != OK: // another write may have taken its version
	case op.Kind == Put:
		r.setVersion(op, s, op.Version)
	default:
		s.version = op.Version
	}
}

// learn notes that the write whose value a read returned happened before the end of the read.
func (r *register) learn(op *Op) {
	if op.Damage != "" {
		r.fault(Phantom, op, "%s", op.Damage)
		return
	}
	s := r.values[op.Seq]
	switch {
	case op.Outcome == Absent:
	case s == nil && op.Seq <= r.discarded:
		r.fault(TooOld, op, "it was replaced before the oldest state that is kept")
	case s == nil:
		r.fault(Phantom, op, "no client wrote it")
	case s.refused:
		r.fault(Phantom, op, "its write was refused")
	case s.start > op.End:
		r.fault(Phantom, op, "its write began later")
	default:
		s.end = min(s.end, op.End) //guard:checker-read-proves-write
		r.setVersion(op, s, op.Version)
	}
}

// setVersion sets the version of a state. A version has one value, and a value one version.
func (r *register) setVersion(op *Op, s *state, version int64) {
	if version == 0 {
		return
	}
	if other, ok := r.versions[version]; ok && other != s.seq {
		r.fault(Phantom, op, "value %[2]d also has version %[1]d", version, other)
		return
	}
	if s.version != 0 && s.version != version {
		r.fault(Phantom, op, "value %d also has version %d", s.seq, s.version)
		return
	}
	s.version = version
	r.versions[version] = s.seq
}

// order makes the acks of all states that the row is known to have had.
func (r *register) order() {
	r.acks = r.acks[:0]
	add := func(s *state) {
		if s.end != never && !s.refused {
			r.acks = append(r.acks, ack{s.end, s.bound()})
		}
	}
	for _, s := range r.values {
		add(s)
	}
	for _, s := range r.absents {
		add(s)
	}
	slices.SortFunc(r.acks, func(a, b ack) int { return cmp.Compare(a.end, b.end) })
	all := r.base
	for i := range r.acks {
		all = all.and(r.acks[i].bound)
		r.acks[i].bound = all
	}
}

// acked returns the bound for reads that begin at t.
func (r *register) acked(t time.Duration) bound {
	i := sort.Search(len(r.acks), func(i int) bool { return r.acks[i].end >= t })
	if i == 0 {
		return r.base
	}
	return r.acks[i-1].bound
}

// age returns the least time between the replacement of s and t.
func (r *register) age(s *state, t time.Duration) time.Duration {
	i := sort.Search(len(r.acks), func(i int) bool { return s.before(r.acks[i].bound) })
	if i == len(r.acks) {
		return 0
	}
	return max(0, t-r.acks[i].end)
}

// boundOp is an operation, and the bound that it sets at its end.
type boundOp struct {
	*Op
	bound
}

// sweep goes through the operations in the order of time. All operations that ended before the start of another bind it.
func (r *register) sweep(ops []*Op) {
	starts := make([]*boundOp, len(ops))
	for i, op := range ops {
		starts[i] = &boundOp{Op: op}
	}
	ends := slices.Clone(starts)
	slices.SortFunc(starts, func(a, b *boundOp) int { return cmp.Compare(a.Start, b.Start) })
	slices.SortFunc(ends, func(a, b *boundOp) int { return cmp.Compare(a.End, b.End) })
	for _, op := range starts {
		for ends[0].End < op.Start {
			r.close(ends[0])
			ends = ends[1:]
		}
		r.open(op)
	}
	for _, op := range ends {
		r.close(op)
	}
}

func (r *register) open(op *boundOp) {
	switch {
	case op.answered():
		op.bound = r.judge(op.Op)
	case op.Kind == Invalidate:
		op.bound = r.acked(op.Start)
	case op.Outcome == OK: // the writer knows its version
		op.bound = bound{op.Version, op.Op.Start}
	}
}

func (r *register) close(op *boundOp) {
	from := session{op.Sidecar, op.Life}
	switch {
	case op.answered():
		r.read[from] = r.read[from].and(op.bound)
	case op.Kind == Invalidate && op.Outcome == OK:
		r.invalid = r.invalid.and(op.bound)
	case op.isWrite() && op.Outcome == OK:
		r.wrote[from] = r.wrote[from].and(op.bound)
	}
}

// judge reports the first promise that a read breaks, or returns the bound of later reads through its sidecar.
func (r *register) judge(op *Op) bound {
	left := r.candidates(op)
	if len(left) == 0 {
		return bound{} // a phantom, which learn has counted
	}
	from := session{op.Sidecar, op.Life}
	for _, must := range []struct {
		bound
		fault Fault
	}{
		{bound{version: op.MinVersion}, MinVersion}, {r.wrote[from], OwnWrite}, {r.read[from], Backwards}, {r.invalid, TooOld}, //guard:checker-own-writes guard:checker-backwards
	} {
		left = slices.DeleteFunc(left, func(s *state) bool { return s.before(must.bound) })
		if len(left) == 0 {
			r.fault(must.fault, op, "it must not precede version %d, whose write began at %v", must.version, must.start)
			return bound{}
		}
	}
	return r.judgeAge(op, left)
}

// candidates returns the states that a read may have seen: one for a value, several for absent.
func (r *register) candidates(op *Op) []*state {
	if op.Outcome == Absent {
		return slices.DeleteFunc(slices.Clone(r.absents), func(s *state) bool { return s.start > op.End })
	}
	s := r.values[op.Seq]
	if op.Damage != "" || s == nil || s.refused || s.start > op.End {
		return nil
	}
	return []*state{s}
}

func (r *register) judgeAge(op *Op, left []*state) bound {
	limit, age := r.limit(op), never
	least := bound{math.MaxInt64, never}
	for _, s := range left {
		a := r.age(s, op.Start)
		age = min(age, a)
		if a <= limit {
			least = bound{min(least.version, s.version), min(least.start, s.start)}
		}
	}
	if age > limit { //guard:checker-age
		r.fault(TooOld, op, "it had been replaced %v before; at most %v are allowed", age, limit)
		return bound{}
	}
	if !op.Stale {
		r.Worst = max(r.Worst, age)
	}
	return least
}

func (r *register) limit(op *Op) time.Duration {
	switch {
	case op.Stale:
		return r.rules.Stale
	case op.NoCache || op.Sidecar == Direct:
		return 0
	}
	return r.rules.Fresh
}

// checkUpdate checks which version a write replaced.
func (r *register) checkUpdate(op *Op) {
	before := r.acked(op.Start)
	if op.Version != 0 && op.Version <= before.version {
		r.fault(LostUpdate, op, "the row had version %d when it began", before.version)
	}
	if on := op.If.Version; on != 0 {
		if r.replaced[on] || on < before.version {
			r.fault(LostUpdate, op, "version %d had been replaced", on)
		}
		r.replaced[on] = true
	}
}

// discard removes the states that no later read can return without breaking a promise.
func (r *register) discard(horizon time.Duration) {
	r.base = r.acked(horizon)
	dead := func(s *state) bool { return s.before(r.base) || s.refused && s.start < horizon }
	maps.DeleteFunc(r.values, func(seq uint64, s *state) bool {
		if dead(s) {
			r.discarded = max(r.discarded, seq)
		}
		return dead(s)
	})
	r.absents = slices.DeleteFunc(r.absents, dead)
	maps.DeleteFunc(r.versions, func(version int64, seq uint64) bool { return r.values[seq] == nil })
	maps.DeleteFunc(r.replaced, func(version int64, _ bool) bool { return version < r.base.version })
}
