package origintest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

func (s WriterSubject) conformanceMany(t *testing.T) {
	t.Run("a batch writes what a load returns", s.manyReturnWhatALoadReturns)
	t.Run("conditions in a batch", s.manyConditions)
	t.Run("an invalid key in a batch", s.manyInvalidKey)
	t.Run("a batch of hard keys", s.manyHardKeys)
	t.Run("concurrent batches", s.manyConcurrent)
	t.Run("a batch that is abandoned", s.manyAbandoned)
}

// writeMany returns the results of a batch, of which those at failed are errors.
func writeMany(t *testing.T, w origin.Writer, cs []origin.Change, failed map[int]error) []origin.Result {
	t.Helper()
	results := w.WriteMany(deadline(t), cs)
	if len(results) != len(cs) {
		t.Fatalf("got %d results of %d changes", len(results), len(cs))
	}
	for i, r := range results {
		if !errors.Is(r.Err, failed[i]) {
			t.Errorf("%+v: got %v, want %v", cs[i], r.Err, failed[i])
		}
	}
	return results
}

func (s WriterSubject) manyReturnWhatALoadReturns(t *testing.T) {
	o := s.New(t, map[string]string{"a": "1", "b": "2", "c": "3", "d": "4"})
	cs := []origin.Change{
		{Key: "new", Data: []byte("n")}, {Key: "c", Data: []byte("33")}, {Key: "b", Delete: true}, {Key: "gone", Delete: true},
		{Key: "a", Data: []byte("")},
	}
	results := writeMany(t, o, cs, nil)
	for _, i := range []int{0, 1, 4} {
		held(t, o, cs[i].Key, results[i].Value)
	}
	if r := results[1].Value; r.Version != 2 || string(r.Data) != "33" {
		t.Errorf("got %q at version %d, want 33 at version 2", r.Data, r.Version)
	}
	absent(t, "b", load(t, o, "b")[0])
	if b, gone := results[2].Value, results[3].Value; b.Version != 2 || b.Data != nil || gone.Version != 0 {
		t.Errorf("deleted: got versions %d and %d, want 2 and 0", b.Version, gone.Version)
	}
	want(t, "d", load(t, o, "d")[0], "4")
	if got := o.WriteMany(deadline(t), nil); len(got) != 0 {
		t.Errorf("a batch of nothing has %d results", len(got))
	}
}

// manyConditions has conditions that hold and others that do not in one batch: each decides about its row alone.
func (s WriterSubject) manyConditions(t *testing.T) {
	o := s.New(t, map[string]string{"a": "1", "b": "2", "c": "3", "d": "4", "e": "5", "f": "6"})
	cs := []origin.Change{
		{Key: "a", Data: []byte("x"), If: origin.Condition{Version: 1}},
		{Key: "b", Data: []byte("x"), If: origin.Condition{Version: 2}},
		{Key: "c", Data: []byte("x"), If: origin.Condition{Absent: true}},
		{Key: "d", Data: []byte("x"), If: origin.Condition{Present: true}},
		{Key: "e", Delete: true, If: origin.Condition{Version: 7}},
		{Key: "f", Delete: true, If: origin.Condition{Version: 1}},
		{Key: "g", Data: []byte("x"), If: origin.Condition{Present: true}},
		{Key: "h", Data: []byte("x"), If: origin.Condition{Absent: true}},
	}
	conflict := origin.ErrConflict
	results := writeMany(t, o, cs, map[int]error{1: conflict, 2: conflict, 4: conflict, 6: conflict})
	for _, i := range []int{0, 3, 7} {
		held(t, o, cs[i].Key, results[i].Value)
	}
	for key, value := range map[string]string{"b": "2", "c": "3", "e": "5"} {
		want(t, key, load(t, o, key)[0], value)
	}
	absent(t, "f", load(t, o, "f")[0])
	absent(t, "g", load(t, o, "g")[0])
}

func (s WriterSubject) manyInvalidKey(t *testing.T) {
	o := s.New(t, map[string]string{"a": "1"})
	cs := []origin.Change{{Key: "nul\x00", Data: []byte("x")}, {Key: "a", Data: []byte("2")}, {Key: "broken \xff", Delete: true}}
	results := writeMany(t, o, cs, map[int]error{0: origin.ErrInvalidKey, 2: origin.ErrInvalidKey})
	held(t, o, "a", results[1].Value)
}

func (s WriterSubject) manyHardKeys(t *testing.T) {
	o := s.New(t, nil)
	cs := make([]origin.Change, len(HardKeys))
	for i, key := range HardKeys {
		cs[i] = origin.Change{Key: key, Data: []byte(fmt.Sprint("value ", i)), If: origin.Condition{Absent: true}}
	}
	for i, r := range writeMany(t, o, cs, nil) {
		held(t, o, HardKeys[i], r.Value)
	}
}

// manyConcurrent lets batches lock the same rows in opposite orders.
func (s WriterSubject) manyConcurrent(t *testing.T) {
	const writers, rounds, rows = 4, 5, 20
	o := s.New(t, nil)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for range rounds {
				cs := make([]origin.Change, rows)
				for n := range cs {
					at := n
					if i%2 == 1 {
						at = rows - 1 - n
					}
					cs[at] = origin.Change{Key: fmt.Sprint("key-", n), Data: []byte(fmt.Sprint(i))}
				}
				for n, r := range o.WriteMany(deadline(t), cs) {
					if r.Err != nil || string(r.Value.Data) != fmt.Sprint(i) {
						t.Errorf("%+v: got %q, %v", cs[n], r.Value.Data, r.Err)
					}
				}
			}
		})
	}
	wg.Wait()
	first := load(t, o, "key-0")[0].Value
	for n := range rows {
		if v := load(t, o, fmt.Sprint("key-", n))[0].Value; string(v.Data) != string(first.Data) {
			t.Errorf("key-%d is of batch %q, key-0 of batch %q: they are not one transaction", n, v.Data, first.Data)
		}
	}
}

func (s WriterSubject) manyAbandoned(t *testing.T) {
	o, release := s.Stuck(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	for _, r := range o.WriteMany(ctx, []origin.Change{{Key: "0", Data: []byte("before")}, {Key: "a", Data: []byte("abandoned")}}) {
		if !errors.Is(r.Err, context.DeadlineExceeded) || errors.Is(r.Err, origin.ErrUnknown) {
			t.Errorf("got %v, want a deadline exceeded, and nothing written", r.Err)
		}
	}
	release()
	want(t, "a", load(t, o, "a")[0], "old")
	absent(t, "0", load(t, o, "0")[0])
}
