package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func change(key, value string) kv.Change { return kv.Change{Key: key, Value: []byte(value)} }

// writeMany fails the test unless the results have these kinds; 0 is committed.
func writeMany(t *testing.T, d *Dataset, cs []kv.Change, kinds ...kv.Kind) []kv.Result {
	t.Helper()
	results := d.WriteMany(t.Context(), cs)
	if len(results) != len(cs) {
		t.Fatalf("got %d results of %d changes", len(results), len(cs))
	}
	for i, r := range results {
		want := kv.Kind(0)
		if i < len(kinds) {
			want = kinds[i]
		}
		switch {
		case want == 0 && r.Err != nil, want != 0 && (r.Err == nil || kv.KindOf(r.Err) != want):
			t.Errorf("%+v: got %v, want kind %v", cs[i], r.Err, want)
		case r.Err == nil && r.Answer.Value != nil:
			t.Errorf("%+v: got value %q, want none", cs[i], r.Answer.Value)
		}
	}
	return results
}

// A batch of one owner is one transaction, its rows succeed or fail on their own, and every member reads them, the owner and others.
func TestBatchOfWritesIsReadByEverybody(t *testing.T) {
	for writer := range 3 {
		synctest.Test(t, func(t *testing.T) {
			o := origintest.New(map[string]string{"a": "1", "b": "1", "c": "1"})
			c := newCluster(t, 3, o, testPolicy())
			for _, d := range c.members {
				for _, key := range []string{"a", "b", "c", "new"} {
					get(t, d, key)
				}
			}
			cs := []kv.Change{
				change("a", "2"), {Key: "b", Value: []byte("2"), If: kv.Condition{Version: 9}}, {Key: "c", Delete: true}, change("new", "2"),
				change("", "2"), {Key: "e", Value: []byte("2"), If: kv.Condition{ETag: kv.ETagOf([]byte("1"))}},
			}
			results := writeMany(t, c.members[writer], cs, 0, kv.KindConflict, 0, 0, kv.KindInvalidKey, kv.KindConflict)
			if v := results[0].Answer.Version; v != 2 || o.Writes() != 1 {
				t.Errorf("writer %d: got version %d after %d transactions, want 2 after 1", writer, v, o.Writes())
			}
			for i, d := range c.members {
				for key, want := range map[string]string{"a": "2", "b": "1", "c": "", "new": "2"} {
					if a := get(t, d, key); string(a.Value) != want || a.NotFound != (want == "") {
						t.Errorf("writer %d, member %d: %s is %q", writer, i, key, a.Value)
					}
				}
			}
			if s := c.members[writer].Stats(); s.Written.Load() != 3 || s.Conflicts.Load() != 2 || s.WritesRefused.Load() != 1 {
				t.Errorf("counted %d written, %d conflicts, %d refused", s.Written.Load(), s.Conflicts.Load(), s.WritesRefused.Load())
			}
		})
	}
}

// halves is a ring whose keys below m belong to member 0, and the others to member 1.
type halves struct{ seenFrom }

func (h halves) Route(_, key string) kv.Route {
	owner := 0
	if key >= "m" {
		owner = 1
	}
	return kv.Route{Owner: h.peer(owner), Successor: h.peer(2)}
}

func TestBatchOfWritesIsOneRequestAndTransactionOfEachOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		c := newCluster(t, 3, o, testPolicy())
		d := newDataset(t, o, halves{seenFrom{c, 3}}, testPolicy())
		var cs []kv.Change
		for i := range 100 {
			cs = append(cs, change(fmt.Sprint("a", i), "v"), change(fmt.Sprint("z", i), "v"))
		}
		writeMany(t, d, cs)
		if c.batches.Load() != 2 || o.Writes() != 2 {
			t.Errorf("got %d requests and %d transactions, want one for each owner", c.batches.Load(), o.Writes())
		}
		c.away[0].Store(true) // its successor makes its changes
		for i := range cs {
			cs[i].Value = []byte("w")
		}
		writeMany(t, d, cs)
		if c.batches.Load() != 5 || o.Writes() != 4 {
			t.Errorf("got %d requests and %d transactions, want another three and two", c.batches.Load(), o.Writes())
		}
		for i := range c.away {
			c.away[i].Store(true)
		}
		writeMany(t, d, cs) // here
		if a := get(t, d, "a7"); string(a.Value) != "w" || a.Version != 3 {
			t.Errorf("got %q at version %d", a.Value, a.Version)
		}
	})
}

func TestBatchOfWritesIsMadeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		c := newCluster(t, 3, o, testPolicy())
		cs := []kv.Change{{Key: "a", Value: []byte("v"), ID: "1"}, {Key: "b", Value: []byte("v"), ID: "2"}}
		var writes sync.WaitGroup
		for i := range 30 {
			writes.Go(func() { writeMany(t, c.members[i%3], cs) })
		}
		writes.Wait()
		time.Sleep(time.Minute)
		if a, err := c.members[2].Write(t.Context(), cs[0]); err != nil || a.Version != 1 || string(a.Value) != "v" { // alone
			t.Errorf("got %q at version %d, %v", a.Value, a.Version, err)
		}
		cs[1].Value = []byte("other")
		cs = append(cs, change("c", "v"))
		results := writeMany(t, c.members[1], cs, 0, kv.KindIDReused, 0)
		if results[0].Answer.Version != 1 || o.Writes() != 2 {
			t.Errorf("got version %d after %d transactions, want 1 after 2", results[0].Answer.Version, o.Writes())
		}
		if a := get(t, c.members[0], "b"); string(a.Value) != "v" {
			t.Errorf("got %q, want that of the first write with the id", a.Value)
		}
	})
}

func TestUncertainBatchOfWrites(t *testing.T) {
	for _, writer := range []int{0, 2} {
		synctest.Test(t, func(t *testing.T) {
			o := origintest.New(map[string]string{"a": "old", "b": "old"})
			c := newCluster(t, 3, o, testPolicy())
			for _, d := range c.members {
				get(t, d, "a")
			}
			o.LoseAnswers(true)
			cs := []kv.Change{change("a", "new"), {Key: "b", Value: []byte("new"), If: kv.Condition{Absent: true}}}
			writeMany(t, c.members[writer], cs, kv.KindUnknown, kv.KindConflict)
			synctest.Wait()
			for i, d := range c.members {
				if a := get(t, d, "a"); string(a.Value) != "new" {
					t.Errorf("writer %d, member %d: got %q, want the row as it is", writer, i, a.Value)
				}
			}
			o.LoseAnswers(false)
			o.FailWrites(origin.ErrOverloaded)
			writeMany(t, c.members[writer], cs, kv.KindOverloaded, kv.KindOverloaded)
		})
	}
}

// The invalidations of the owner are lost: what is left is what the sender knows itself.
func TestBatchOfWritesIsReadByItsSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"a": "old", "b": "old"})
		c := newCluster(t, 3, o, testPolicy())
		c.publicationsLost.Store(true)
		sender := c.members[2]
		get(t, sender, "a")
		get(t, sender, "b")
		writeMany(t, sender, []kv.Change{change("a", "new"), {Key: "b", Delete: true}})
		if a, b := get(t, sender, "a"), get(t, sender, "b"); string(a.Value) != "new" || !b.NotFound {
			t.Errorf("read %q and %q after the batch", a.Value, b.Value)
		}
	})
}

// lost is an owner that makes changes and does not answer.
type lost struct{ seenFrom }

func (l lost) Route(string, string) kv.Route { return kv.Route{Owner: lostLink{l.peer(0)}} }

type lostLink struct{ kv.Peer }

func (l lostLink) WriteMany(ctx context.Context, cs []kv.Change) []kv.Outcome {
	outcomes := l.Peer.WriteMany(ctx, cs)
	for i := range outcomes {
		outcomes[i] = kv.Outcome{Err: &kv.Error{Kind: kv.KindUnknown, Err: errors.New("no answer")}}
	}
	return outcomes
}

func TestRowOfABatchThatTheOwnerDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"a": "old", "b": "old"})
		c := newCluster(t, 3, o, testPolicy())
		c.publicationsLost.Store(true)
		d := newDataset(t, o, lost{seenFrom{c, 3}}, testPolicy())
		get(t, d, "a")
		writeMany(t, d, []kv.Change{change("a", "new"), change("b", "new")}, kv.KindUnknown, kv.KindUnknown)
		if a := get(t, d, "a"); string(a.Value) != "new" {
			t.Errorf("read %q, want the row as it is", a.Value)
		}
	})
}

func TestBatchOfWritesGoesOnWithoutItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		c := newCluster(t, 2, o, testPolicy())
		release := o.BlockWrites()
		ctx, cancel := context.WithTimeout(t.Context(), tick)
		defer cancel()
		key, value := []byte("a"), []byte("v")
		for _, r := range c.members[1].WriteMany(ctx, []kv.Change{{Key: string(key), Value: value}, change("b", "v")}) {
			expectKind(t, r.Err, kv.KindUnknown)
		}
		copy(value, "x") // the caller reuses its memory
		release()
		synctest.Wait()
		if a := get(t, c.members[1], "a"); string(a.Value) != "v" {
			t.Errorf("got %q, want v", a.Value)
		}
	})
}

// older is a member of a release that makes single changes only.
type older struct{ halves }

func (o older) Route(dataset, key string) kv.Route {
	r := o.halves.Route(dataset, key)
	return kv.Route{Owner: olderLink{r.Owner}, Successor: r.Successor}
}

type olderLink struct{ kv.Peer }

func (olderLink) WriteMany(_ context.Context, cs []kv.Change) []kv.Outcome {
	outcomes := make([]kv.Outcome, len(cs))
	for i := range outcomes {
		outcomes[i] = kv.Outcome{Err: errors.New("no such call"), Alone: true}
	}
	return outcomes
}

func TestBatchOfWritesToAnOlderRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		c := newCluster(t, 3, o, testPolicy())
		d := newDataset(t, o, older{halves{seenFrom{c, 3}}}, testPolicy())
		writeMany(t, d, []kv.Change{change("a", "1"), change("b", "1"), {Key: "c", Value: []byte("1"), If: kv.Condition{Present: true}}, change("z", "1")},
			0, 0, kv.KindConflict)
		if a := get(t, d, "b"); string(a.Value) != "1" || o.Writes() != 4 {
			t.Errorf("got %q after %d writes", a.Value, o.Writes())
		}
	})
}

func TestBatchOfWritesToAReadOnlyDataset(t *testing.T) {
	d, err := New(Config{Name: "test", Policy: testPolicy(), Origin: origintest.New(nil), MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	writeMany(t, d, []kv.Change{change("a", "1"), {Key: "b", Value: bytes.Repeat([]byte("x"), kv.MaxValueBytes+1)}}, kv.KindReadOnly, kv.KindReadOnly)
}
