package watches

import (
	"fmt"
	"slices"
	"testing"
)

func expectNotes(t *testing.T, r *Range, wantAll bool, want ...string) {
	t.Helper()
	keys, all := r.Take()
	slices.Sort(keys)
	if !slices.Equal(keys, want) || all != wantAll {
		t.Errorf("got %d keys %.40q, all %v; want %q, %v", len(keys), fmt.Sprint(keys), all, want, wantAll)
	}
}

func TestRangeNotesTheKeysOfItsPrefix(t *testing.T) {
	var set Set
	r := set.WatchRange("a/")
	for _, key := range []string{"a/1", "a/2", "a/1", "b", "a"} {
		set.NoteInRanges(key)
	}
	expectNotes(t, r, false, "a/1", "a/2")
	<-r.Ready()
	set.NotePrefix("b")
	expectNotes(t, r, false)
	for _, prefix := range []string{"", "a", "a/", "a/1"} { // wider and narrower ones
		set.NotePrefix(prefix)
		<-r.Ready()
		expectNotes(t, r, true)
	}
	if !set.Any() {
		t.Error("a range does not count as watched")
	}
	set.End()
	<-r.Ready()
	if !r.Ended() {
		t.Error("the range has not ended with its set")
	}
	r.Close()
	if set.Any() {
		t.Error("a closed range counts as watched")
	}
}

func TestRangeHoldsAtMostMaxMarks(t *testing.T) {
	var set Set
	r := set.WatchRange("")
	defer r.Close()
	for i := range MaxMarks {
		set.NoteInRanges(fmt.Sprint(i))
	}
	if keys, all := r.Take(); len(keys) != MaxMarks || all {
		t.Errorf("%d keys, all %v", len(keys), all)
	}
	for i := range MaxMarks + 1 {
		set.NoteInRanges(fmt.Sprint(i))
	}
	expectNotes(t, r, true)
}
