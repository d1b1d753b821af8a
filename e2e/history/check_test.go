package history

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

var rules = Rules{Fresh: 100, Stale: 1000}

// Operations through sidecar s, between start and end.

func put(s int32, seq uint64, version int64, start, end time.Duration) Op {
	return Op{Sidecar: s, Kind: Put, Key: "k", Seq: seq, Version: version, Start: start, End: end}
}

func del(s int32, version int64, start, end time.Duration) Op {
	return Op{Sidecar: s, Kind: Delete, Key: "k", Version: version, Start: start, End: end}
}

func read(s int32, seq uint64, version int64, start, end time.Duration) Op {
	return Op{Sidecar: s, Kind: Read, Key: "k", Seq: seq, Version: version, Start: start, End: end}
}

func gone(s int32, start, end time.Duration) Op {
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

// two is a history in which value 1 has given way to value 2 by 40.
func two(more ...Op) []Op { return append([]Op{put(1, 1, 1, 10, 20), put(2, 2, 2, 30, 40)}, more...) }

func TestFaultsAreFound(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault Fault
		ops   []Op
	}{
		{"a value that nobody wrote", Phantom, two(read(1, 3, 3, 50, 60))},
		{"a damaged value", Phantom, two(with(read(1, 2, 2, 50, 60), func(op *Op) { op.Damage = "half" }))},
		{"a value of another key", Phantom,
			two(with(put(1, 3, 3, 50, 60), func(op *Op) { op.Key = "other" }), read(1, 3, 3, 70, 80))},
		{"a value whose write was refused", Phantom, two(with(put(1, 3, 0, 50, 60), refused), read(1, 3, 3, 70, 80))},
		{"a value before it was written", Phantom, []Op{put(1, 1, 1, 30, 40), read(1, 1, 1, 10, 20)}},
		{"a value under another version", Phantom, two(read(1, 2, 3, 50, 60))},
		{"a version with two values", Phantom, []Op{put(1, 1, 1, 10, 20), put(1, 2, 1, 15, 25)}},
		{"older than before", Backwards, two(read(3, 2, 2, 45, 50), read(3, 1, 1, 51, 60))},
		{"older than before, without versions", Backwards,
			[]Op{put(1, 1, 0, 10, 20), put(2, 2, 0, 30, 40), read(3, 2, 0, 45, 50), read(3, 1, 0, 51, 60)}},
		{"older than before, stale", Backwards, two(read(3, 2, 2, 45, 50), with(read(3, 1, 1, 51, 60), stale))},
		{"back from the dead", Backwards,
			[]Op{put(1, 1, 1, 10, 20), read(3, 1, 1, 21, 25), del(2, 2, 30, 40), gone(3, 45, 50), read(3, 1, 1, 51, 60)}},
		{"back from an unknown death", Backwards,
			[]Op{
				put(1, 1, 1, 10, 20), read(3, 1, 1, 21, 25), with(del(2, 0, 30, 40), unknown), gone(3, 45, 50),
				read(3, 1, 1, 51, 60)}},
		{"absent before it was created, again", Backwards,
			[]Op{put(1, 1, 1, 10, 20), read(3, 1, 1, 25, 30), gone(3, 31, 40)}},
		{"dead again after it was created anew", Backwards, []Op{
			put(1, 1, 1, 10, 20), del(1, 2, 30, 40), put(1, 2, 9, 45, 50), read(3, 2, 9, 55, 56), gone(3, 57, 58)}},
		{"absent before it was deleted", Backwards, []Op{
			put(1, 1, 1, 10, 20), read(3, 1, 1, 21, 25), gone(3, 30, 35), del(2, 2, 40, 50)}},
		{"older than its own write", OwnWrite, two(read(2, 1, 1, 45, 50))},
		{"its own delete undone", OwnWrite, []Op{put(1, 1, 1, 10, 20), del(2, 2, 30, 40), read(2, 1, 1, 45, 50)}},
		{"its own creation not seen", OwnWrite, []Op{put(1, 1, 1, 10, 20), gone(1, 25, 30)}},
		{"older than asked for", MinVersion, two(with(read(3, 1, 1, 45, 50), func(op *Op) { op.MinVersion = 2 }))},
		{"replaced too long ago", TooOld, two(read(3, 1, 1, 141, 150))},
		{"deleted too long ago", TooOld, []Op{put(1, 1, 1, 10, 20), del(2, 2, 30, 40), read(3, 1, 1, 141, 150)}},
		{"created too long ago", TooOld, []Op{put(1, 1, 1, 10, 20), gone(3, 121, 130)}},
		{"stale beyond all windows", TooOld, two(with(read(3, 1, 1, 1041, 1050), stale))},
		{"old though it asked for a load", TooOld, two(with(read(3, 1, 1, 41, 50), noCache))},
		{"old after an invalidation that all were told of", TooOld,
			two(Op{Kind: Invalidate, Key: "k", Start: 45, End: 50}, read(3, 1, 1, 51, 60))},
		{"an unknown write that one has seen, and another has not in time", TooOld, []Op{
			put(1, 1, 1, 10, 20), with(put(2, 2, 0, 30, 40), unknown), read(3, 2, 2, 45, 50), read(4, 1, 1, 151, 160)}},
		{"two writes on one version", LostUpdate, two(with(put(1, 3, 3, 50, 60), on(2)), with(put(2, 4, 4, 50, 60), on(2)))},
		{"a write on a version long replaced", LostUpdate, two(with(put(1, 3, 3, 50, 60), on(1)))},
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
		{"absent at first", []Op{gone(1, 10, 20), put(1, 1, 1, 25, 30), read(1, 1, 1, 35, 40)}},
		{"a concurrent read sees either", two(read(3, 1, 1, 30, 50), read(3, 2, 2, 31, 45))},
		{"reads at once may see different orders", two(read(3, 2, 2, 41, 50), read(3, 1, 1, 45, 60))},
		{"another sidecar is behind, in time", two(read(3, 2, 2, 45, 50), read(4, 1, 1, 51, 60))},
		{"replaced just within the bound", two(read(3, 1, 1, 140, 150))},
		{"stale and says so", two(with(read(3, 1, 1, 141, 150), stale))},
		{"a restart forgets what was read", two(read(3, 2, 2, 45, 50), with(read(3, 1, 1, 51, 60), restarted))},
		{"an unknown write that happened", []Op{
			put(1, 1, 1, 10, 20), with(put(1, 2, 0, 30, 40), unknown), read(1, 2, 2, 45, 50)}},
		{"an unknown write that happens late", []Op{
			put(1, 1, 1, 10, 20), with(put(1, 2, 0, 30, 40), unknown), read(1, 1, 1, 500, 510), read(1, 2, 2, 520, 530)}},
		{"an unknown write that never happens", []Op{
			put(1, 1, 1, 10, 20), with(put(1, 2, 0, 30, 40), unknown), read(1, 1, 1, 900, 910)}},
		{"an unknown write that is overtaken", []Op{
			put(1, 1, 0, 10, 20), with(put(1, 2, 0, 30, 40), unknown), put(1, 3, 0, 50, 60), read(1, 3, 0, 65, 70),
			read(1, 2, 0, 75, 80)}},
		{"an unknown delete", []Op{
			put(1, 1, 1, 10, 20), with(del(1, 0, 30, 40), unknown), gone(1, 45, 50), gone(2, 300, 310)}},
		{"deleted and created anew", []Op{
			put(1, 1, 1, 10, 20), read(2, 1, 1, 25, 26), del(1, 2, 30, 40), gone(2, 41, 45), put(1, 2, 9, 50, 60),
			read(2, 2, 9, 65, 70)}},
		{"a delete of nothing", []Op{del(1, 0, 10, 20), gone(1, 25, 30)}},
		{"a read that fails says nothing", two(with(read(3, 0, 0, 500, 510), failed))},
		{"a version that an unknown write was to have", []Op{
			with(put(1, 1, 5, 10, 20), unknown), with(put(2, 2, 5, 30, 40), failed), put(1, 3, 5, 50, 60),
			read(1, 3, 5, 70, 80)}},
		{"a write that is refused", two(with(put(1, 3, 0, 50, 60), refused, on(1)))},
		{"writes on versions in turn", two(with(put(1, 3, 3, 50, 60), on(2)), with(put(2, 4, 4, 61, 70), on(3)))},
		{"concurrent writes in either order", []Op{put(1, 1, 2, 10, 20), put(2, 2, 1, 10, 20), read(3, 1, 2, 25, 30)}},
		{"seen before it is acknowledged", []Op{put(1, 1, 1, 10, 100), read(2, 1, 1, 20, 30), read(2, 1, 1, 40, 50)}},
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
	truth := []Op{read(Direct, 1, 5, 10, 11), with(gone(Direct, 10, 11), func(op *Op) { op.Key = "gone" })}
	for _, c := range []struct {
		name string
		op   Op
		want int
	}{
		{"the same", read(1, 1, 5, 20, 21), 0},
		{"another value", read(1, 2, 6, 20, 21), 1},
		{"another version", read(1, 1, 6, 20, 21), 1},
		{"absent", gone(1, 20, 21), 1},
		{"both absent", with(gone(1, 20, 21), func(op *Op) { op.Key = "gone" }), 0},
		{"no answer", with(read(1, 0, 0, 20, 21), failed), 1},
		{"a key that the database was not asked for", with(gone(1, 20, 21), func(op *Op) { op.Key = "new" }), 1},
	} {
		checker := NewChecker(rules)
		checker.Converge(append(truth, c.op))
		if checker.Faults[Diverged] != c.want {
			t.Errorf("%s: %v; want %d", c.name, checker.First, c.want)
		}
	}
}

func TestWorstIsTheLongestOfTheFresh(t *testing.T) {
	checker := NewChecker(rules)
	checker.Check(two(read(3, 1, 1, 97, 98), read(4, 1, 1, 60, 61), with(read(5, 1, 1, 300, 310), stale)))
	if checker.Worst != 57 || checker.Reads != 3 || checker.Writes != 2 {
		t.Errorf("worst %d of %d reads and %d writes; want 57 of 3 and 2", checker.Worst, checker.Reads, checker.Writes)
	}
}

func TestWindowsRememberAndForget(t *testing.T) {
	checker := NewChecker(rules)
	checker.Check(two(read(3, 2, 2, 45, 50)))
	checker.Check([]Op{read(3, 1, 1, 60, 61)})
	if checker.Faults[Backwards] != 1 {
		t.Errorf("after a window: %v; want what was read in the one before to bind", checker.First)
	}
	checker.Check([]Op{read(3, 2, 2, 2000, 2010)})
	checker.Check([]Op{with(read(3, 1, 1, 2020, 2030), stale)})
	if checker.Faults[TooOld] != 1 {
		t.Errorf("after all windows: %v; want the old value too old", checker.First)
	}
	if n := len(checker.keys["k"].values); n != 1 {
		t.Errorf("%d values remembered; want the last one", n)
	}
}

func TestLinear(t *testing.T) {
	for _, c := range []struct {
		name string
		ops  []Op
		good bool
	}{
		{"reads that look see the row", two(with(read(3, 2, 2, 50, 60), noCache)), true},
		{"reads from memory are not judged", two(read(3, 1, 1, 50, 60)), true},
		{"a read that looks and sees what was", two(with(read(3, 1, 1, 50, 60), noCache)), false},
		{"the database itself", two(read(Direct, 1, 1, 50, 60)), false},
		{"a condition that was refused though it held", two(with(put(3, 3, 0, 50, 60), refused, on(2))), false},
		{"a condition that was refused", two(with(put(3, 3, 0, 50, 60), refused, on(1))), true},
		{"created twice", two(with(put(3, 3, 3, 50, 60), func(op *Op) { op.If.Absent = true })), false},
		{"put where nothing is", []Op{with(put(3, 3, 3, 50, 60), func(op *Op) { op.If.Present = true })}, false},
		{"two writes on one version", two(with(put(1, 3, 3, 50, 60), on(2)), with(put(2, 4, 4, 50, 60), on(2))), false},
		{"an unknown write may happen late", []Op{
			with(put(1, 1, 0, 10, 20), unknown), with(gone(2, 30, 40), noCache), with(read(2, 1, 1, 50, 60), noCache)}, true},
		{"an unknown write happens once", []Op{
			with(put(1, 1, 0, 10, 20), unknown), with(read(2, 1, 1, 30, 40), noCache), del(2, 2, 45, 50),
			with(read(2, 1, 1, 55, 60), noCache)}, false},
		{"an unknown write under its condition", two(
			with(put(1, 3, 0, 50, 60), unknown, on(1)), with(read(3, 3, 3, 70, 80), noCache)), false},
		{"a delete of nothing", []Op{del(1, 0, 10, 20), with(gone(2, 30, 40), noCache)}, true},
		{"a version that is used again after a delete",
			[]Op{put(1, 1, 4, 10, 20), del(1, 5, 30, 40), put(1, 2, 5, 50, 60)}, false},
	} {
		broken, undecided := Linear(c.ops, time.Minute)
		if good := len(broken)+len(undecided) == 0; good != c.good {
			t.Errorf("%s: %v %v; want good: %v", c.name, broken, undecided, c.good)
		}
	}
}

func TestValuesSayWhereTheyBelong(t *testing.T) {
	for seq := range uint64(500) {
		v := Value{"metrics", "key-1", seq, 7}
		if got, err := Parse("metrics", "key-1", v.String()); err != nil || got != v {
			t.Fatalf("%v came back as %v, %v", v, got, err)
		}
	}
	text := Value{"metrics", "key-1", 3, 7}.String()
	for _, c := range []struct{ name, text string }{
		{"another key", Value{"metrics", "key-2", 3, 7}.String()},
		{"another dataset", Value{"routes", "key-1", 3, 7}.String()},
		{"half", text[:len(text)/2]},
		{"nothing", ""},
		{"more", text + "0"},
		{"another number", strings.Replace(text, " 3 ", " 4 ", 1)},
		{"shorter in the middle", strings.Replace(text, "abcdef", "", 1)},
	} {
		if v, err := Parse("metrics", "key-1", c.text); err == nil {
			t.Errorf("%s: %q is %v", c.name, c.text, v)
		}
	}
}

func TestRecorderTakesWhatAllHaveLogged(t *testing.T) {
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
