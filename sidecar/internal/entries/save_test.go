package entries

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/ringside-cache/ringside/sidecar/internal/saved"
)

// save returns what a process with the entries of r leaves to the next.
func (r *rig) save() []byte {
	var b bytes.Buffer
	w := saved.NewWriter(&b)
	r.Save(w)
	if err := w.Close(); err != nil {
		r.t.Fatal(err)
	}
	return b.Bytes()
}

// restoreIn moves the entries of r to next, whose clock is later than that of r by shift.
func (r *rig) restoreIn(next *rig, room, shift int64) *Saved {
	in, err := saved.NewReader(bytes.NewReader(r.save()))
	if err != nil {
		r.t.Fatal(err)
	}
	s := ReadSaved(in, room, shift)
	if err := in.Close(); err != nil {
		r.t.Fatal(err)
	}
	next.Restore(s)
	return s
}

func TestRestoredEntriesAreStaleAnswersOfTheirAge(t *testing.T) {
	old, next := newRig(t), newRig(t)
	e := value(3, "three", 10, 12)
	e.Owner, e.Pinned, e.Reason = "owner", true, WarmUp
	old.take(Load, 10).Put(e)
	next.clock = 5050
	old.restoreIn(next, 1<<20, 5000)
	got, ok := next.Peek("k")
	if !ok {
		t.Fatal("the entry is not there")
	}
	if got.Fresh(5050) || !got.Usable(5050) || got.Began != 5010 || got.Seen != 5012 || got.StaleUntil != e.StaleUntil+5000 {
		t.Errorf("got %+v; want a stale answer that was loaded at 5010, as long as %+v", got, e)
	}
	if string(got.Value) != "three" || got.Version != 3 || got.ETag != e.ETag || got.Owner != "owner" || !got.Pinned || got.Reason != WarmUp {
		t.Errorf("got %+v; want what was saved: %+v", got, e)
	}
	if b := next.BoundOf("k"); b.Version != 3 || b.AsOf != 5012 {
		t.Errorf("the bound of the key is %+v; want version 3, as of 5012", b)
	}
}

func TestNotFoundIsRestoredWhereItMayBeStale(t *testing.T) {
	old, next := newRig(t), newRig(t)
	e := notFound(10, 12)
	e.StaleUntil = 500
	old.take(Load, 10).Put(e)
	next.clock = 20
	old.restoreIn(next, 1<<20, 0)
	if got, ok := next.Peek("k"); !ok || !got.NotFound || !got.Usable(20) || got.Fresh(20) {
		t.Errorf("got %+v, %t; want a stale answer that there is no row", got, ok)
	}
}

func TestRestoredBoundsForbidWhatReadersHaveNotToSeeAgain(t *testing.T) {
	old, next := newRig(t), newRig(t)
	old.take(Load, 10).Put(value(1, "one", 10, 12))
	old.clock = 20
	old.Begin("k", Load).Put(notFound(20, 21)) // it has existed
	old.clock = 22
	old.Begin("wrong", Load).Put(&Entry{DataError: 1, Began: 22, Seen: 22, FreshUntil: 90})
	old.Invalidate("other", Bound{MinLoadTime: 25})
	old.InvalidatePrefix("p", 30)
	old.clock, next.clock = 31, 1031
	old.restoreIn(next, 1<<20, 1000)
	for key, before := range map[string]int64{"k": 1021, "wrong": 1022, "other": 1025, "p1": 1030} {
		b := next.BoundOf(key)
		if b.Allows(value(0, "before", before-1, before-1), before-1) {
			t.Errorf("%q: %+v allows what was loaded at %d", key, b, before-1)
		}
		if !b.Allows(value(0, "after", before, before), before) {
			t.Errorf("%q: %+v forbids what was loaded at %d", key, b, before)
		}
	}
}

// The first reader of a store is an invalidation that another member sends before the entries are there.
func TestRestoredEntryYieldsToAnInvalidation(t *testing.T) {
	old, next := newRig(t), newRig(t)
	old.take(Load, 10).Put(value(1, "one", 10, 12))
	next.clock = 20
	next.Invalidate("k", Bound{MinLoadTime: 20})
	old.restoreIn(next, 1<<20, 0)
	if e, ok := next.Peek("k"); ok {
		t.Errorf("got %+v; want nothing", e)
	}
}

func TestRestoreKeepsWhatWasUsedLast(t *testing.T) {
	old, next := newRig(t), newRig(t)
	const n = 1000
	for i := range int64(n) {
		old.clock = 10 + i/10
		old.Begin(fmt.Sprintf("key-%03d", i), Load).Put(value(i+1, "some value", old.clock, old.clock))
	}
	old.clock += 1
	next.clock = old.clock
	s := old.restoreIn(next, 160_000, 0)
	stats := next.Stats()
	if stats.Entries == 0 || stats.Bytes > 160_000 || stats.Entries+s.Omitted < n*9/10 {
		t.Fatalf("%d entries of %d bytes are restored, and %d omitted; want some in 160 000 bytes", stats.Entries, stats.Bytes, s.Omitted)
	}
	var kept []string
	next.Store.entries.ByUse(func(key string, _ *Entry) bool {
		kept = append(kept, key)
		return true
	})
	slices.Sort(kept)
	if got, want := kept[0], fmt.Sprintf("key-%03d", n-2*len(kept)); got < want {
		t.Errorf("%d entries are restored, from %s on; want the last ones, from about %s on", len(kept), got, want)
	}
	if bounds, _ := next.Bounds(); bounds == 0 {
		t.Error("the entries that were omitted have left no bound")
	}
}

// A small entry that was used long ago must not take the place of a large one.
func TestNothingIsRestoredAfterAnEntryThatDoesNotFit(t *testing.T) {
	old, next := newRig(t), newRig(t)
	old.take(Load, 10).Put(value(1, "small", 10, 10))
	old.clock = 11
	large := value(1, string(make([]byte, 60_000)), 11, 11)
	for i := range 64 { // in every shard
		old.Begin(fmt.Sprint("large-", i), Load).Put(large)
	}
	next.clock = 12
	s := old.restoreIn(next, 30_000, 0)
	if _, ok := next.Peek("k"); ok || s.Omitted != 65 {
		t.Errorf("the small entry is restored: %t; %d omitted, want 65", ok, s.Omitted)
	}
}

func FuzzReadSaved(f *testing.F) {
	r := newRig(f)
	r.take(Load, 10).Put(value(1, "one", 10, 12))
	r.Invalidate("other", Bound{MinLoadTime: 20})
	r.InvalidatePrefix("p", 30)
	f.Add(r.save(), int64(1000), int64(5))
	f.Fuzz(func(t *testing.T, p []byte, room, shift int64) {
		in, err := saved.NewReader(bytes.NewReader(p))
		if err != nil {
			return
		}
		s := ReadSaved(in, room, shift)
		size := 0
		for _, e := range s.entries {
			size += len(e.key) + len(e.entry.Value) + overhead
		}
		if int64(size) > max(room, 0) {
			t.Errorf("%d bytes of entries; room is %d", size, room)
		}
		next := newRig(t)
		next.clock = 50
		next.Restore(s) // whatever it is, it must not panic
		for _, e := range s.entries {
			if held, ok := next.Peek(e.key); ok && (held.Fresh(50) || held.Began > 50) {
				t.Errorf("a restored entry is fresh: %+v", held)
			}
		}
	})
}
