package origintest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// Rows is an origin that can also be written and listed.
type Rows interface {
	origin.Origin
	origin.Writer
	origin.Lister
}

// WriterSubject makes the origins that ConformanceWriter tests. Their values are plain bytes.
type WriterSubject struct {
	// New returns an origin that has exactly these rows, each at version 1.
	New func(t *testing.T, rows map[string]string) Rows
	// Unversioned returns an origin without versions that has the key a.
	Unversioned func(t *testing.T) Rows
	// Stuck returns an origin that has the key a with the value old at version 1, and that blocks each change of it until
	// release is called.
	Stuck func(t *testing.T) (rows Rows, release func())
}

// ConformanceWriter tests the contracts of origin.Writer and origin.Lister.
func ConformanceWriter(t *testing.T, s WriterSubject) {
	t.Run("a write returns what a load returns", s.returnsWhatALoadReturns)
	t.Run("conditions", s.conditions)
	t.Run("a version without versions", s.versionWithoutVersions)
	t.Run("a recreated row is newer", s.recreatedIsNewer)
	t.Run("writes distinguish hard keys", s.writesHardKeys)
	t.Run("an invalid key is not written", s.invalidKey)
	t.Run("no update is lost", s.noUpdateIsLost)
	t.Run("one creates", s.oneCreates)
	t.Run("concurrent writes and deletes", s.concurrent)
	t.Run("a write whose context is done", s.done)
	t.Run("an abandoned write is not made later", s.abandoned)
	t.Run("pages", s.pages)
	s.conformanceMany(t)
}

func write(t *testing.T, w origin.Writer, c origin.Change) origin.Value {
	t.Helper()
	v, err := w.Write(deadline(t), c)
	if err != nil {
		t.Fatalf("%+v: %v", c, err)
	}
	return v
}

// held fails the test unless the key has the value that a write returned.
func held(t *testing.T, o origin.Origin, key string, v origin.Value) {
	t.Helper()
	r := load(t, o, key)[0]
	if r.Err != nil || string(r.Value.Data) != string(v.Data) || r.Value.Version != v.Version {
		t.Errorf("%q: %q at version %d, error %v; want %q at version %d", key, r.Value.Data, r.Value.Version, r.Err,
			v.Data, v.Version)
	}
}

func (s WriterSubject) returnsWhatALoadReturns(t *testing.T) {
	o := s.New(t, map[string]string{"a": "1"})
	for _, value := range []string{"2", "", "é 😀\n\"'\\", "2", "2"} {
		v := write(t, o, origin.Change{Key: "a", Data: []byte(value)})
		if string(v.Data) != value {
			t.Errorf("wrote %q, got %q", value, v.Data)
		}
		held(t, o, "a", v)
	}
	held(t, o, "new", write(t, o, origin.Change{Key: "new", Data: []byte("n")}))
	if v := write(t, o, origin.Change{Key: "a", Delete: true}); v.Data != nil || v.Version != 7 {
		t.Errorf("deleted version 6: %q at version %d", v.Data, v.Version)
	}
	absent(t, "a", load(t, o, "a")[0])
	if v := write(t, o, origin.Change{Key: "a", Delete: true}); v.Data != nil || v.Version != 0 {
		t.Errorf("deleted nothing: %q at version %d", v.Data, v.Version)
	}
}

func (s WriterSubject) conditions(t *testing.T) {
	for _, c := range []struct {
		cond        origin.Condition
		there, gone bool // whether it is satisfied by a row at version 1, and by no row
	}{
		{origin.Condition{}, true, true},
		{origin.Condition{Absent: true}, false, true},
		{origin.Condition{Present: true}, true, false},
		{origin.Condition{Version: 1}, true, false},
		{origin.Condition{Version: 2}, false, false},
	} {
		for key, holds := range map[string]bool{"there": c.there, "gone": c.gone} {
			for _, change := range []origin.Change{
				{Key: key, If: c.cond, Data: []byte("new")}, {Key: key, If: c.cond, Delete: true},
			} {
				if change.Delete && c.cond.Absent {
					continue
				}
				s.condition(t, change, holds)
			}
		}
	}
}

func (s WriterSubject) condition(t *testing.T, c origin.Change, holds bool) {
	o := s.New(t, map[string]string{"there": "old", "other": "x"})
	before := load(t, o, c.Key)[0]
	v, err := o.Write(deadline(t), c)
	after := load(t, o, c.Key)[0]
	switch {
	case !holds && !errors.Is(err, origin.ErrConflict):
		t.Errorf("%+v: got %v, want a conflict", c, err)
	case !holds && (string(after.Value.Data) != string(before.Value.Data) || after.Value.Version != before.Value.Version):
		t.Errorf("%+v: a conflict has written %q", c, after.Value.Data)
	case holds && err != nil:
		t.Errorf("%+v: %v", c, err)
	case holds && c.Delete:
		absent(t, c.Key, after)
	case holds:
		held(t, o, c.Key, v)
	}
	want(t, "other", load(t, o, "other")[0], "x")
}

func (s WriterSubject) versionWithoutVersions(t *testing.T) {
	o := s.Unversioned(t)
	for _, c := range []origin.Change{{Key: "a", Data: []byte("new")}, {Key: "a", Delete: true}} {
		if v := write(t, o, c); v.Version != 0 {
			t.Errorf("%+v: version %d of rows without versions", c, v.Version)
		}
		c.If.Version = 1
		if _, err := o.Write(deadline(t), c); !errors.Is(err, origin.ErrInvalidValue) {
			t.Errorf("%+v: got %v, want ErrInvalidValue", c, err)
		}
	}
}

func (s WriterSubject) recreatedIsNewer(t *testing.T) {
	o := s.New(t, nil)
	var last int64
	for range 20 {
		for _, c := range []origin.Change{
			{Key: "a", Data: []byte("x"), If: origin.Condition{Absent: true}}, {Key: "a", Data: []byte("y")},
			{Key: "a", Delete: true},
		} {
			v := write(t, o, c)
			if v.Version <= last {
				t.Fatalf("%+v: version %d after %d", c, v.Version, last)
			}
			last = v.Version
		}
	}
}

func (s WriterSubject) writesHardKeys(t *testing.T) {
	o := s.New(t, nil)
	written := map[string]origin.Value{}
	for i, key := range HardKeys {
		written[key] = write(t, o, origin.Change{
			Key: key, Data: []byte(fmt.Sprint("value ", i)), If: origin.Condition{Absent: true},
		})
	}
	for i, key := range HardKeys[:len(HardKeys)/2] {
		written[key] = write(t, o, origin.Change{
			Key: key, Data: []byte(fmt.Sprint("changed ", i)), If: origin.Condition{Version: written[key].Version},
		})
	}
	for _, key := range HardKeys {
		held(t, o, key, written[key])
	}
	s.listsEachOnce(t, o, written)
	for i, key := range HardKeys {
		write(t, o, origin.Change{Key: key, Delete: true, If: origin.Condition{Present: true}})
		for _, other := range HardKeys[i+1:] {
			held(t, o, other, written[other])
		}
	}
}

func (s WriterSubject) listsEachOnce(t *testing.T, o Rows, want map[string]origin.Value) {
	seen := map[string]bool{}
	for _, row := range listAll(t, o, 7) {
		v, ok := want[row.Key]
		if !ok || seen[row.Key] || string(v.Data) != string(row.Value.Data) || v.Version != row.Value.Version {
			t.Errorf("listed %q: %q at version %d, seen before: %v", row.Key, row.Value.Data, row.Value.Version, seen[row.Key])
		}
		seen[row.Key] = true
	}
	if len(seen) != len(want) {
		t.Errorf("listed %d rows of %d", len(seen), len(want))
	}
}

func listAll(t *testing.T, o origin.Lister, limit int) (rows []origin.Row) {
	t.Helper()
	after := ""
	for {
		page, err := o.List(deadline(t), origin.ListQuery{After: after, Limit: limit})
		if err != nil {
			t.Fatal(err)
		}
		if len(page) > limit {
			t.Fatalf("got a page of %d rows, want at most %d", len(page), limit)
		}
		rows = append(rows, page...)
		if len(page) < limit {
			return rows
		}
		after = page[len(page)-1].Key
	}
}

func (s WriterSubject) invalidKey(t *testing.T) {
	o := s.New(t, nil)
	for _, key := range []string{"nul\x00", "broken \xff"} {
		for _, c := range []origin.Change{{Key: key, Data: []byte("x")}, {Key: key, Delete: true}} {
			if _, err := o.Write(deadline(t), c); !errors.Is(err, origin.ErrInvalidKey) {
				t.Errorf("%+v: %v, want ErrInvalidKey", c, err)
			}
		}
	}
}

func (s WriterSubject) noUpdateIsLost(t *testing.T) {
	const writers, each = 4, 10
	o := s.New(t, map[string]string{"a": "0"})
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for done := 0; done < each; {
				now := load(t, o, "a")[0].Value
				n, err := strconv.Atoi(string(now.Data))
				if err != nil {
					t.Error(err)
					return
				}
				_, err = o.Write(deadline(t), origin.Change{
					Key: "a", Data: []byte(strconv.Itoa(n + 1)), If: origin.Condition{Version: now.Version},
				})
				switch {
				case err == nil:
					done++
				case !errors.Is(err, origin.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	held(t, o, "a", origin.Value{Data: []byte(strconv.Itoa(writers * each)), Version: 1 + writers*each})
}

func (s WriterSubject) oneCreates(t *testing.T) {
	o := s.New(t, nil)
	for round := range 10 {
		key := fmt.Sprint("key-", round)
		var mu sync.Mutex // guards winners
		var winners []origin.Value
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				v, err := o.Write(deadline(t), origin.Change{
					Key: key, Data: []byte(strconv.Itoa(i)), If: origin.Condition{Absent: true},
				})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					winners = append(winners, v)
				} else if !errors.Is(err, origin.ErrConflict) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(winners) != 1 {
			t.Fatalf("%d of 4 have created %q", len(winners), key)
		}
		held(t, o, key, winners[0])
	}
}

// concurrent requires a distinct version for each outcome: two with the same version could not be distinguished.
func (s WriterSubject) concurrent(t *testing.T) {
	o := s.New(t, nil)
	var mu sync.Mutex // guards seen
	seen := map[int64]string{}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 15 {
				c := origin.Change{Key: "a", Data: []byte(fmt.Sprint(i, " ", j))}
				if j%3 == 2 {
					c = origin.Change{Key: "a", Delete: true}
				}
				v, err := o.Write(deadline(t), c)
				if err != nil {
					t.Errorf("%+v: %v", c, err)
					return
				}
				mu.Lock()
				if before, ok := seen[v.Version]; ok && !c.Delete {
					t.Errorf("version %d is %q and %q", v.Version, before, v.Data)
				}
				if !c.Delete {
					seen[v.Version] = string(v.Data)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func (s WriterSubject) done(t *testing.T) {
	o := s.New(t, map[string]string{"a": "old"})
	ctx, cancel := context.WithCancel(deadline(t))
	cancel()
	_, err := o.Write(ctx, origin.Change{Key: "a", Data: []byte("new")})
	if !errors.Is(err, context.Canceled) || errors.Is(err, origin.ErrUnknown) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	want(t, "a", load(t, o, "a")[0], "old")
}

// abandoned makes the next write queue behind what the abandoned write may have left in the database.
func (s WriterSubject) abandoned(t *testing.T) {
	o, release := s.Stuck(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	returned := make(chan error, 1)
	go func() {
		_, err := o.Write(ctx, origin.Change{Key: "a", Data: []byte("abandoned")})
		returned <- err
	}()
	select {
	case err := <-returned:
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, origin.ErrUnknown) {
			t.Errorf("got %v, want a deadline exceeded, and nothing written", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Write is still running long after its context was done")
	}
	release()
	want(t, "a", load(t, o, "a")[0], "old")
	v := write(t, o, origin.Change{Key: "a", Data: []byte("next"), If: origin.Condition{Version: 1}})
	held(t, o, "a", v)
}

func (s WriterSubject) pages(t *testing.T) {
	rows := map[string]string{}
	for i := range 25 {
		rows[fmt.Sprintf("key-%02d", i)] = fmt.Sprint(i)
	}
	o := s.New(t, rows)
	for _, limit := range []int{1, 7, 25, 1000} {
		got := listAll(t, o, limit)
		if len(got) != len(rows) {
			t.Fatalf("limit %d: %d rows, want %d", limit, len(got), len(rows))
		}
		for i, row := range got {
			if row.Key != fmt.Sprintf("key-%02d", i) || string(row.Value.Data) != rows[row.Key] || row.Value.Version != 1 {
				t.Errorf("limit %d, row %d: %q is %q at version %d", limit, i, row.Key, row.Value.Data, row.Value.Version)
			}
		}
	}
	write(t, o, origin.Change{Key: "key-07", Delete: true})
	page, err := o.List(deadline(t), origin.ListQuery{After: "key-07", Limit: 2})
	if err != nil || len(page) != 2 || page[0].Key != "key-08" || page[1].Key != "key-09" {
		t.Errorf("after a deleted key: got %v, %v, want key-08 and key-09", page, err)
	}
}
