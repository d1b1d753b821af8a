package history

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

var rules = Rules{Fresh: 100, Stale: 1000}

// These functions make operations through sidecar s that last from start to end.

func put(s int32, seq uint64, version int64, start, end time.Duration) Op {
	return Op{Sidecar: s, Kind: Put, Key: "k", Seq: seq, Version: version, Start: start, End: end}
}

func del(s int32, version int64, start, end time.Duration) Op {
	return Op{Sidecar: s, Kind: Delete, Key: "k", Version: version, Start: start, End: end}
}

func read(s int32, seq uint64, version int64, start, end time.Duration) Op {
	return Op{Sidecar: s, Kind: Read, Key: "k", Seq: seq, Version: version, Start: start, End: end}
}

func notFound(s int32, start, end time.Duration) Op {
	return Op{Sidecar: s, Kind: Read, Key: "k", Outcome: Absent, Start: start, End: end}
}

func with(op Op, changes ...func(*Op)) Op {
	for _, change := range changes {
		change(&op)
	}
	return op
}

func unknown(op *Op)   { op.Outcome = Unknown }
func refused(op *Op)   { op.Outcome = Refused }
func failed(op *Op)    { op.Outcome = Failed }
func stale(op *Op)     { op.Stale = true }
func noCache(op *Op)   { op.NoCache = true }
func restarted(op *Op) { op.Life++ }

func on(version int64) func(*Op) { return func(op *Op) { op.If.Version = version } }

// two is a history in which value 2 has replaced value 1 at 40.
func two(more ...Op) []Op { return append([]Op{put(1, 1, 1, 10, 20), put(2, 2, 2, 30, 40)}, more...) }

func TestFaultsAreFound(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault Fault
		ops   []Op
	}{
		{"a value that no client wrote", Phantom, two(read(1, 3, 3, 50, 60))},
		{"a damaged value", Phantom, two(with(read(1, 2, 2, 50, 60), func(op *Op) { op.Damage = "half" }))},
		{"a value of another key", Phantom,
			two(with(put(1, 3, 3, 50, 60), func(op *Op) { op.Key = "other" }), read(1, 3, 3, 70, 80))},
		{"a value whose write was refused", Phantom, two(with(put(1, 3, 0, 50, 60), refused), read(1, 3, 3, 70, 80))},
		{"a value before it was written", Phantom, []Op{put(1, 1, 1, 30, 40), read(1, 1, 1, 10, 20)}},
		{"a value under another version", Phantom, two(read(1, 2, 3, 50, 60))},
		{"a version with two values", Phantom, []Op{put(1, 1, 1, 10, 20), put(1, 2, 1, 15, 25)}},
		{"older than an earlier read", Backwards, two(read(3, 2, 2, 45, 50), read(3, 1, 1, 51, 60))},
		{"older than an earlier read, without versions", Backwards,
			[]Op{put(1, 1, 0, 10, 20), put(2, 2, 0, 30, 40), read(3, 2, 0, 45, 50), read(3, 1, 0, 51, 60)}},
		{"older than an earlier read, stale", Backwards, two(read(3, 2, 2, 45, 50), with(read(3, 1, 1, 51, 60), stale))},
		{"a value after its delete was seen", Backwards,
			[]Op{put(1, 1, 1, 10, 20), read(3, 1, 1, 21, 25), del(2, 2, 30, 40), notFound(3, 45, 50), read(3, 1, 1, 51, 60)}},
		{"a value after its delete of unknown outcome was seen", Backwards,
			[]Op{
				put(1, 1, 1, 10, 20), read(3, 1, 1, 21, 25), with(del(2, 0, 30, 40), unknown), notFound(3, 45, 50),
				read(3, 1, 1, 51, 60)}},
		{"absent after its creation was seen", Backwards,
			[]Op{put(1, 1, 1, 10, 20), read(3, 1, 1, 25, 30), notFound(3, 31, 40)}},
		{"absent after its second creation was seen", Backwards, []Op{
			put(1, 1, 1, 10, 20), del(1, 2, 30, 40), put(1, 2, 9, 45, 50), read(3, 2, 9, 55, 56), notFound(3, 57, 58)}},
		{"absent before the delete began", Backwards, []Op{
			put(1, 1, 1, 10, 20), read(3, 1, 1, 21, 25), notFound(3, 30, 35), del(2, 2, 40, 50)}},
		{"older than an own write", OwnWrite, two(read(2, 1, 1, 45, 50))},
		{"older than an own delete", OwnWrite, []Op{put(1, 1, 1, 10, 20), del(2, 2, 30, 40), read(2, 1, 1, 45, 50)}},
		{"older than an own creation", OwnWrite, []Op{put(1, 1, 1, 10, 20), notFound(1, 25, 30)}},
		{"older than the required version", MinVersion, two(with(read(3, 1, 1, 45, 50), func(op *Op) { op.MinVersion = 2 }))},
		{"replaced too long ago", TooOld, two(read(3, 1, 1, 141, 150))},
		{"deleted too long ago", TooOld, []Op{put(1, 1, 1, 10, 20), del(2, 2, 30, 40), read(3, 1, 1, 141, 150)}},
		{"created too long ago", TooOld, []Op{put(1, 1, 1, 10, 20), notFound(3, 121, 130)}},
		{"stale, and replaced before all stale windows", TooOld, two(with(read(3, 1, 1, 1041, 1050), stale))},
		{"old although it required a load", TooOld, two(with(read(3, 1, 1, 41, 50), noCache))},
		{"old after an invalidation that reached every member", TooOld,
			two(Op{Kind: Invalidate, Key: "k", Start: 45, End: 50}, read(3, 1, 1, 51, 60))},
		{"old after another sidecar has seen a write of unknown outcome", TooOld, []Op{
			put(1, 1, 1, 10, 20), with(put(2, 2, 0, 30, 40), unknown), read(3, 2, 2, 45, 50), read(4, 1, 1, 151, 160)}},
		{"two writes that replace one version", LostUpdate, two(with(put(1, 3, 3, 50, 60), on(2)), with(put(2, 4, 4, 50, 60), on(2)))},
		{"a write that replaces an old version", LostUpdate, two(with(put(1, 3, 3, 50, 60), on(1)))},
		{"a version that goes backwards", LostUpdate, two(del(1, 4, 50, 60), put(1, 3, 3, 70, 80))},
	} {
		t.Run(c.name, func(t *testing.T) {
			checker := NewChecker(rules)
			checker.Check(c.ops)
			if checker.Faults[c.fault] == 0 || len(checker.Faults) != 1 {
				t.Errorf("found %v; want %s alone", checker.First, c.fault)
			}
		})
	}
}

func TestGoodHistoriesPass(t *testing.T) {
	for _, c := range []struct {
		name string
		ops  []Op
	}{
		{"empty", nil},
		{"absent at first", []Op{notFound(1, 10, 20), put(1, 1, 1, 25, 30), read(1, 1, 1, 35, 40)}},
		{"a concurrent read sees either", two(read(3, 1, 1, 30, 50), read(3, 2, 2, 31, 45))},
		{"concurrent reads may see different orders", two(read(3, 2, 2, 41, 50), read(3, 1, 1, 45, 60))},
		{"another sidecar is older, within the bound", two(read(3, 2, 2, 45, 50), read(4, 1, 1, 51, 60))},
		{"replaced just within the bound", two(read(3, 1, 1, 140, 150))},
		{"stale and marked as stale", two(with(read(3, 1, 1, 141, 150), stale))},
		{"a restart ends a session", two(read(3, 2, 2, 45, 50), with(read(3, 1, 1, 51, 60), restarted))},
		{"an unknown write that happened", []Op{
			put(1, 1, 1, 10, 20), with(put(1, 2, 0, 30, 40), unknown), read(1, 2, 2, 45, 50)}},
		{"an unknown write that happens late", []Op{
			put(1, 1, 1, 10, 20), with(put(1, 2, 0, 30, 40), unknown), read(1, 1, 1, 500, 510), read(1, 2, 2, 520, 530)}},
		{"an unknown write that never happens", []Op{
			put(1, 1, 1, 10, 20), with(put(1, 2, 0, 30, 40), unknown), read(1, 1, 1, 900, 910)}},
		{"an unknown write that another write replaces", []Op{
			put(1, 1, 0, 10, 20), with(put(1, 2, 0, 30, 40), unknown), put(1, 3, 0, 50, 60), read(1, 3, 0, 65, 70),
			read(1, 2, 0, 75, 80)}},
		{"an unknown delete", []Op{
			put(1, 1, 1, 10, 20), with(del(1, 0, 30, 40), unknown), notFound(1, 45, 50), notFound(2, 300, 310)}},
		{"deleted and created again", []Op{
			put(1, 1, 1, 10, 20), read(2, 1, 1, 25, 26), del(1, 2, 30, 40), notFound(2, 41, 45), put(1, 2, 9, 50, 60),
			read(2, 2, 9, 65, 70)}},
		{"a delete of an absent row", []Op{del(1, 0, 10, 20), notFound(1, 25, 30)}},
		{"a read that fails", two(with(read(3, 0, 0, 500, 510), failed))},
		{"the version of an unknown write that another write took", []Op{
			with(put(1, 1, 5, 10, 20), unknown), with(put(2, 2, 5, 30, 40), failed), put(1, 3, 5, 50, 60),
			read(1, 3, 5, 70, 80)}},
		{"a write that is refused", two(with(put(1, 3, 0, 50, 60), refused, on(1)))},
		{"conditional writes in sequence", two(with(put(1, 3, 3, 50, 60), on(2)), with(put(2, 4, 4, 61, 70), on(3)))},
		{"concurrent writes in either order", []Op{put(1, 1, 2, 10, 20), put(2, 2, 1, 10, 20), read(3, 1, 2, 25, 30)}},
		{"read before the write is acknowledged", []Op{put(1, 1, 1, 10, 100), read(2, 1, 1, 20, 30), read(2, 1, 1, 40, 50)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			checker := NewChecker(rules)
			checker.Check(c.ops)
			if checker.Violations() != 0 {
				t.Errorf("found %v", checker.First)
			}
		})
	}
}

func TestConvergence(t *testing.T) {
	truth := []Op{read(Direct, 1, 5, 10, 11), with(notFound(Direct, 10, 11), func(op *Op) { op.Key = "gone" })}
	for _, c := range []struct {
		name string
		op   Op
		want int
	}{
		{"the same", read(1, 1, 5, 20, 21), 0},
		{"another value", read(1, 2, 6, 20, 21), 1},
		{"another version", read(1, 1, 6, 20, 21), 1},
		{"absent", notFound(1, 20, 21), 1},
		{"both absent", with(notFound(1, 20, 21), func(op *Op) { op.Key = "gone" }), 0},
		{"a failed read", with(read(1, 0, 0, 20, 21), failed), 1},
		{"a key without a direct read", with(notFound(1, 20, 21), func(op *Op) { op.Key = "new" }), 1},
	} {
		checker := NewChecker(rules)
		checker.Converge(append(truth, c.op))
		if checker.Faults[Diverged] != c.want {
			t.Errorf("%s: %v; want %d", c.name, checker.First, c.want)
		}
	}
}

func TestWorstIsTheGreatestAgeOfReadsThatAreNotStale(t *testing.T) {
	checker := NewChecker(rules)
	checker.Check(two(read(3, 1, 1, 97, 98), read(4, 1, 1, 60, 61), with(read(5, 1, 1, 300, 310), stale)))
	if checker.Worst != 57 || checker.Reads != 3 || checker.Writes != 2 {
		t.Errorf("worst %d of %d reads and %d writes; want 57 of 3 and 2", checker.Worst, checker.Reads, checker.Writes)
	}
}

func TestWindowsKeepBoundsAndDiscardOldStates(t *testing.T) {
	checker := NewChecker(rules)
	checker.Check(two(read(3, 2, 2, 45, 50)))
	checker.Check([]Op{read(3, 1, 1, 60, 61)})
	if checker.Faults[Backwards] != 1 {
		t.Errorf("second window: %v; want a fault against the read of the first", checker.First)
	}
	checker.Check([]Op{read(3, 2, 2, 2000, 2010)})
	checker.Check([]Op{with(read(3, 1, 1, 2020, 2030), stale)})
	if checker.Faults[TooOld] != 1 {
		t.Errorf("last window: %v; want the old value too old", checker.First)
	}
	if n := len(checker.keys["k"].values); n != 1 {
		t.Errorf("%d values kept; want 1", n)
	}
}

func TestLinear(t *testing.T) {
	for _, c := range []struct {
		name string
		ops  []Op
		good bool
	}{
		{"a load that returns the row", two(with(read(3, 2, 2, 50, 60), noCache)), true},
		{"reads from memory are not checked", two(read(3, 1, 1, 50, 60)), true},
		{"a load that returns the previous value", two(with(read(3, 1, 1, 50, 60), noCache)), false},
		{"a direct read of the previous value", two(read(Direct, 1, 1, 50, 60)), false},
		{"a write that was refused although its condition held", two(with(put(3, 3, 0, 50, 60), refused, on(2))), false},
		{"a write that was refused because its condition failed", two(with(put(3, 3, 0, 50, 60), refused, on(1))), true},
		{"created twice", two(with(put(3, 3, 3, 50, 60), func(op *Op) { op.If.Absent = true })), false},
		{"an update of an absent row", []Op{with(put(3, 3, 3, 50, 60), func(op *Op) { op.If.Present = true })}, false},
		{"two writes that replace one version", two(with(put(1, 3, 3, 50, 60), on(2)), with(put(2, 4, 4, 50, 60), on(2))), false},
		{"an unknown write may happen late", []Op{
			with(put(1, 1, 0, 10, 20), unknown), with(notFound(2, 30, 40), noCache), with(read(2, 1, 1, 50, 60), noCache)}, true},
		{"an unknown write happens once", []Op{
			with(put(1, 1, 0, 10, 20), unknown), with(read(2, 1, 1, 30, 40), noCache), del(2, 2, 45, 50),
			with(read(2, 1, 1, 55, 60), noCache)}, false},
		{"an unknown write whose condition failed", two(
			with(put(1, 3, 0, 50, 60), unknown, on(1)), with(read(3, 3, 3, 70, 80), noCache)), false},
		{"a delete of an absent row", []Op{del(1, 0, 10, 20), with(notFound(2, 30, 40), noCache)}, true},
		{"a version that is used again after a delete",
			[]Op{put(1, 1, 4, 10, 20), del(1, 5, 30, 40), put(1, 2, 5, 50, 60)}, false},
	} {
		broken, undecided := Linear(c.ops, time.Minute)
		if good := len(broken)+len(undecided) == 0; good != c.good {
			t.Errorf("%s: %v %v; want good: %v", c.name, broken, undecided, c.good)
		}
	}
}

func TestParseRejectsMisplacedAndDamagedValues(t *testing.T) {
	for seq := range uint64(500) {
		v := Value{"metrics", "key-1", seq, 7}
		if got, err := Parse("metrics", "key-1", v.String()); err != nil || got != v {
			t.Fatalf("%v: parsed %v, %v", v, got, err)
		}
	}
	text := Value{"metrics", "key-1", 3, 7}.String()
	for _, c := range []struct{ name, text string }{
		{"another key", Value{"metrics", "key-2", 3, 7}.String()},
		{"another dataset", Value{"routes", "key-1", 3, 7}.String()},
		{"the first half", text[:len(text)/2]},
		{"empty", ""},
		{"longer", text + "0"},
		{"another number", strings.Replace(text, " 3 ", " 4 ", 1)},
		{"shorter in the middle", strings.Replace(text, "abcdef", "", 1)},
	} {
		if v, err := Parse("metrics", "key-1", c.text); err == nil {
			t.Errorf("%s: %q parsed as %v, want an error", c.name, c.text, v)
		}
	}
}

func TestRecorderTakesTheOperationsOfAllLogs(t *testing.T) {
	r := NewRecorder()
	a, b := r.Log(), r.Log()
	a.Add(Op{Key: "k", Start: r.Now(), Seq: r.NextSeq()})
	b.Add(Op{Key: "k", Start: r.Now(), Seq: r.NextSeq()})
	ops := r.Take()
	if len(ops) != 2 || ops[0].Client == ops[1].Client || ops[0].Start <= 0 || ops[0].Seq == ops[1].Seq {
		t.Errorf("took %v", ops)
	}
	if again := r.Take(); len(again) != 0 {
		t.Errorf("took %v twice", again)
	}
}

func TestManyViolationsAreCountedAndFewKept(t *testing.T) {
	checker := NewChecker(rules)
	for i := range 10 * maxKept {
		checker.Check([]Op{with(read(1, 1, 1, 10, 20), func(op *Op) { op.Key = fmt.Sprint(i) })})
	}
	if checker.Faults[Phantom] != 10*maxKept || len(checker.First) != maxKept {
		t.Errorf("%v counted, %d kept", checker.Faults, len(checker.First))
	}
}
