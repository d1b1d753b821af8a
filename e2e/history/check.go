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

// Rules are the figures of what is promised.
type Rules struct {
	// Fresh bounds the time between the acknowledgement of a write and the beginning of a read that still returns what
	// it replaced: ttl + load_timeout.
	Fresh time.Duration
	// Stale is the same for answers that say that they are stale: Fresh and the stale windows.
	Stale time.Duration
}

// Fault is a broken promise.
type Fault string

// The faults.
const (
	Phantom    Fault = "phantom"     // a value that nobody wrote, of another key, or damaged
	Backwards  Fault = "backwards"   // older than what was read through the same sidecar before
	OwnWrite   Fault = "own write"   // older than what was written through the same sidecar before
	MinVersion Fault = "min version" // older than the version that was asked for
	TooOld     Fault = "too old"     // replaced longer ago than the rules allow
	LostUpdate Fault = "lost update" // two writes were made on top of the same version, or in the wrong order
	Diverged   Fault = "diverged"    // not what the database has, long after the last write
)

// Violation is one operation that breaks a promise.
type Violation struct {
	Fault Fault
	Op    Op
	Why   string
}

func (v Violation) String() string { return fmt.Sprintf("%s: %v: %s", v.Fault, v.Op, v.Why) }

// maxKept bounds the violations that a Checker keeps; all are counted.
const maxKept = 5

// Checker judges a history, in windows if it is long. It is not safe for concurrent use.
type Checker struct {
	rules Rules
	keys  map[string]*register

	// Reads is how many had an answer, Writes how many were begun.
	Reads, Writes int
	// Worst is the longest time that a value was returned after it had been replaced, by answers that did not say that
	// they were stale.
	Worst time.Duration
	// Faults counts the violations; First are the first of them.
	Faults map[Fault]int
	First  []Violation
}

// NewChecker returns a Checker of an empty history: every key is absent.
func NewChecker(rules Rules) *Checker {
	return &Checker{rules: rules, keys: map[string]*register{}, Faults: map[Fault]int{}}
}

// Violations is how many were found.
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

// Check judges a window of the history: every operation that began after the windows before it had ended. What later
// windows need is kept, which does not grow with the history.
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
		r.forget(now - max(c.rules.Fresh, c.rules.Stale))
	}
}

// Converge judges reads that were made long after the last write: of each key one Direct, and one through each sidecar.
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
			c.fault(Diverged, op, "the database says: %v", want)
		}
	}
}

// never is the end of a write that nobody knows to have happened.
const never = time.Duration(math.MaxInt64)

// state is what a row was for a while: a value, or absent.
type state struct {
	seq        uint64
	version    int64         // 0 while it is not known
	start, end time.Duration // the row became so between the two, or, when end is never, perhaps
	not        bool          // the row never became so
}

// bound is a state, or several, that a reader must not be before.
type bound struct {
	version int64
	start   time.Duration
}

func (s *state) bound() bound { return bound{s.version, s.start} }

// before reports that s had certainly been replaced when the row became what b says. Versions decide where both are
// known. So does time, always: what had happened before another thing began is before it.
func (s *state) before(b bound) bool {
	return s.version != 0 && s.version < b.version || s.end < b.start
}

func (b bound) and(o bound) bound { return bound{max(b.version, o.version), max(b.start, o.start)} }

// ack says that at a time the row had become what the bound says.
type ack struct {
	end time.Duration
	bound
}

type session struct{ sidecar, life int32 }

// register is one key.
type register struct {
	*Checker
	values    map[uint64]*state // :: seq → the write's state
	versions  map[int64]uint64  // :: version → seq
	absents   []*state
	acks      []ack // in the order of end, each with all bounds before it
	base      bound // of the acks that were forgotten
	forgotten uint64
	onTopOf   map[int64]bool    // versions on which a conditional write was made
	read      map[session]bound // what was read through a sidecar
	wrote     map[session]bound // what was written through a sidecar
	told      bound             // what an explicit invalidation has told all
}

func newRegister(c *Checker) *register {
	return &register{
		Checker: c, values: map[uint64]*state{}, versions: map[int64]uint64{}, onTopOf: map[int64]bool{},
		read: map[session]bound{}, wrote: map[session]bound{}, absents: []*state{{}},
	}
}

func (r *register) window(ops []*Op) {
	for _, op := range ops {
		if op.write() {
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
		if op.write() && op.Outcome == OK {
			r.updates(op)
		}
	}
}

// install notes the state that a write makes.
func (r *register) install(op *Op) {
	s := &state{seq: op.Seq, start: op.Start, end: op.End, not: op.Outcome != OK}
	if op.Outcome == Unknown {
		s.end, s.not = never, false //guard:checker-unknown-write-sure
	}
	if op.Kind == Put {
		r.values[op.Seq] = s
	} else if !s.not {
		r.absents = append(r.absents, s)
	}
	switch {
	case op.Outcome != OK: // the version that it was to have may have become another's
	case op.Kind == Put:
		r.name(op, s, op.Version)
	default:
		s.version = op.Version
	}
}

// learn takes from a read what it says about the write whose value it is: that it happened, before the read ended.
func (r *register) learn(op *Op) {
	if op.Damage != "" {
		r.fault(Phantom, op, "%s", op.Damage)
		return
	}
	s := r.values[op.Seq]
	switch {
	case op.Outcome == Absent:
	case s == nil && op.Seq <= r.forgotten:
		r.fault(TooOld, op, "it was replaced before all that is remembered")
	case s == nil:
		r.fault(Phantom, op, "nobody wrote it")
	case s.not:
		r.fault(Phantom, op, "its write was told that nothing was written")
	case s.start > op.End:
		r.fault(Phantom, op, "its write began later")
	default:
		s.end = min(s.end, op.End) //guard:checker-value-outlives-successor
		r.name(op, s, op.Version)
	}
}

// name notes the version of a state. A version has one value, and a value one version.
func (r *register) name(op *Op, s *state, version int64) {
	if version == 0 {
		return
	}
	if other, ok := r.versions[version]; ok && other != s.seq {
		r.fault(Phantom, op, "version %d is also that of value %d", version, other)
		return
	}
	if s.version != 0 && s.version != version {
		r.fault(Phantom, op, "value %d also has version %d", s.seq, s.version)
		return
	}
	s.version = version
	r.versions[version] = s.seq
}

// order makes acks of all states that are known to have been.
func (r *register) order() {
	r.acks = r.acks[:0]
	note := func(s *state) {
		if s.end != never && !s.not {
			r.acks = append(r.acks, ack{s.end, s.bound()})
		}
	}
	for _, s := range r.values {
		note(s)
	}
	for _, s := range r.absents {
		note(s)
	}
	slices.SortFunc(r.acks, func(a, b ack) int { return cmp.Compare(a.end, b.end) })
	all := r.base
	for i := range r.acks {
		all = all.and(r.acks[i].bound)
		r.acks[i].bound = all
	}
}

// acked is what the row had become before t, at least.
func (r *register) acked(t time.Duration) bound {
	i := sort.Search(len(r.acks), func(i int) bool { return r.acks[i].end >= t })
	if i == 0 {
		return r.base
	}
	return r.acks[i-1].bound
}

// age is how long before t s had been replaced, at least.
func (r *register) age(s *state, t time.Duration) time.Duration {
	i := sort.Search(len(r.acks), func(i int) bool { return s.before(r.acks[i].bound) })
	if i == len(r.acks) {
		return 0
	}
	return max(0, t-r.acks[i].end)
}

// seen is an operation, and the bound that it sets once it has ended.
type seen struct {
	*Op
	bound
}

// sweep goes through the operations in time. When one begins, all that ended before it binds it.
func (r *register) sweep(ops []*Op) {
	starts := make([]*seen, len(ops))
	for i, op := range ops {
		starts[i] = &seen{Op: op}
	}
	ends := slices.Clone(starts)
	slices.SortFunc(starts, func(a, b *seen) int { return cmp.Compare(a.Start, b.Start) })
	slices.SortFunc(ends, func(a, b *seen) int { return cmp.Compare(a.End, b.End) })
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

func (r *register) open(op *seen) {
	switch {
	case op.answered():
		op.bound = r.judge(op.Op)
	case op.Kind == Invalidate:
		op.bound = r.acked(op.Start)
	case op.Outcome == OK: // the writer knows the version that it got, at once and for sure
		op.bound = bound{op.Version, op.Op.Start}
	}
}

func (r *register) close(op *seen) {
	who := session{op.Sidecar, op.Life}
	switch {
	case op.answered():
		r.read[who] = r.read[who].and(op.bound)
	case op.Kind == Invalidate && op.Outcome == OK:
		r.told = r.told.and(op.bound)
	case op.write() && op.Outcome == OK:
		r.wrote[who] = r.wrote[who].and(op.bound)
	}
}

// judge names the first promise that a read breaks, or returns what later reads through its sidecar must not be before.
func (r *register) judge(op *Op) bound {
	left := r.candidates(op)
	if len(left) == 0 {
		return bound{} // a phantom, which is counted
	}
	who := session{op.Sidecar, op.Life}
	for _, must := range []struct {
		bound
		fault Fault
	}{
		{bound{version: op.MinVersion}, MinVersion}, {r.wrote[who], OwnWrite}, {r.read[who], Backwards}, {r.told, TooOld}, //guard:checker-own-writes-looked guard:checker-reads-may-go-back
	} {
		left = slices.DeleteFunc(left, func(s *state) bool { return s.before(must.bound) })
		if len(left) == 0 {
			r.fault(must.fault, op, "it must not be before version %d, written after %v", must.version, must.start)
			return bound{}
		}
	}
	return r.judgeAge(op, left)
}

// candidates are the states that a read may have seen: one for a value, several where it says absent.
func (r *register) candidates(op *Op) []*state {
	if op.Outcome == Absent {
		return slices.DeleteFunc(slices.Clone(r.absents), func(s *state) bool { return s.start > op.End })
	}
	s := r.values[op.Seq]
	if op.Damage != "" || s == nil || s.not || s.start > op.End {
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
	if age > limit { //guard:checker-any-age-will-do
		r.fault(TooOld, op, "it had been replaced for %v; at most %v are allowed", age, limit)
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

// updates looks at what a write that was made replaced.
func (r *register) updates(op *Op) {
	before := r.acked(op.Start)
	if op.Version != 0 && op.Version <= before.version {
		r.fault(LostUpdate, op, "version %d was there when it began", before.version)
	}
	if on := op.If.Version; on != 0 {
		if r.onTopOf[on] || on < before.version {
			r.fault(LostUpdate, op, "version %d had been replaced", on)
		}
		r.onTopOf[on] = true
	}
}

// forget drops what no read after the window can return without breaking a promise.
func (r *register) forget(horizon time.Duration) {
	r.base = r.acked(horizon)
	dead := func(s *state) bool { return s.before(r.base) || s.not && s.start < horizon }
	maps.DeleteFunc(r.values, func(seq uint64, s *state) bool {
		if dead(s) {
			r.forgotten = max(r.forgotten, seq)
		}
		return dead(s)
	})
	r.absents = slices.DeleteFunc(r.absents, dead)
	maps.DeleteFunc(r.versions, func(version int64, seq uint64) bool { return r.values[seq] == nil })
	maps.DeleteFunc(r.onTopOf, func(version int64, _ bool) bool { return version < r.base.version })
}
