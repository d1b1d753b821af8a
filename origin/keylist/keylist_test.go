package keylist

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
)

// FuzzParse: a key that is accepted has one spelling, and is no key of a row.
func FuzzParse(f *testing.F) {
	for _, s := range append(Parts("a/b", 4), Part{"", 0, 1}.Key(), mark+"4/4/a", mark+"04/1/a", mark+"2/1/a", mark+"4/-1/a", "a", "", mark+"1/0/\xff") {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if p, ok := Parse(key); ok && (p.Key() != key || !strings.Contains(key, "\x00") || !IsPart(key) || p.N >= p.Of || p.Of > MaxParts) {
			t.Errorf("%q: %+v", key, p)
		}
	})
}

func TestPartsAreDisjointAndComplete(t *testing.T) {
	rows := map[string]string{"other": "1"}
	for i := range 1000 {
		rows[fmt.Sprintf("k/%d", i)] = "1"
	}
	fake := origintest.New(rows)
	o := New(fake, fake, nil)
	for _, of := range []int{1, 4, MaxParts} {
		keys := append(Parts("k/", of), "k/7", "absent")
		results, err := o.Load(limited(t), keys)
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, r := range results[:of] {
			part := Split(r.Value.Data)
			if r.Err != nil || !slices.IsSorted(part) {
				t.Errorf("%d parts: %v, %q", of, r.Err, part)
			}
			all = append(all, part...)
		}
		slices.Sort(all)
		if len(all) != 1000 || len(slices.Compact(all)) != 1000 {
			t.Errorf("%d parts have %d keys, want 1000 different ones", of, len(all))
		}
		if results[of].Err != nil || string(results[of].Value.Data) != "1" || !errors.Is(results[of+1].Err, origin.ErrNotFound) {
			t.Errorf("rows beside %d parts: %+v", of, results[of:])
		}
	}
	if n := fake.Lists(); n != 3 {
		t.Errorf("%d lists, want one for all parts of a Load", n)
	}
}

func TestLongListIsADataErrorUntilItIsDivided(t *testing.T) {
	rows := map[string]string{}
	for i := range 1500 {
		rows[fmt.Sprintf("%01000d", i)] = "1"
	}
	fake := origintest.New(rows)
	for of, want := range map[int]bool{1: true, 4: false} {
		results, err := New(fake, fake, nil).Load(limited(t), Parts("", of))
		if err != nil {
			t.Fatal(err)
		}
		if got := origin.CauseOf(results[0].Err) == origin.TooLarge; got != want {
			t.Errorf("%d parts: too long is %v (%v), want %v", of, got, results[0].Err, want)
		}
	}
}

// twice lists each key twice, and keys that nobody can read.
type twice struct{ *origintest.Fake }

func (l twice) ListKeys(ctx context.Context, prefix string, yield func(string) bool) error {
	err := l.Fake.ListKeys(ctx, prefix, func(key string) bool {
		yield(key)
		return yield(key)
	})
	yield("nul\x00")
	yield("\xff")
	return err
}

func TestListHasEachReadableKeyOnce(t *testing.T) {
	fake := origintest.New(map[string]string{"a": "1", "b": "1"})
	results, err := New(fake, twice{fake}, nil).Load(limited(t), Parts("", 1))
	if err != nil || string(results[0].Value.Data) != "a\x00b" {
		t.Errorf("got %q, %v", results[0].Value.Data, err)
	}
}

func TestFailedListIsNoAnswer(t *testing.T) {
	fake := origintest.New(map[string]string{"a": "1"})
	broken := errors.New("broken")
	fake.Fail(broken)
	if _, err := New(fake, fake, nil).Load(limited(t), Parts("", 1)); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	fake.Fail(nil)
	results, err := New(fake, nil, errors.New("no list")).Load(limited(t), append(Parts("", 1), "a"))
	if err != nil || !errors.Is(results[0].Err, origin.ErrInvalidKey) || results[1].Err != nil {
		t.Errorf("without a list: %+v, %v", results, err)
	}
}

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
