package origintest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// Subject makes the origins that Conformance tests.
type Subject struct {
	// New returns an origin that has exactly these rows, each at version 1, or without a version if Unversioned.
	New func(t *testing.T, rows map[string]string) origin.Origin
	// Stuck returns an origin that needs minutes to answer.
	Stuck func(t *testing.T) origin.Origin
	// Unversioned says that the origin has no versions.
	Unversioned bool
}

func (s Subject) version() int64 {
	if s.Unversioned {
		return 0
	}
	return 1
}

// HardKeys are distinct texts that databases tend to confuse with each other, or with SQL.
var HardKeys = []string{
	"plain", "Plain", "plain ", " plain", "plåin", "pla\u030ain", "NULL", "null",
	"0", "00", "1", "+1", "1.0", "1abc", "true",
	"'", "''", `"`, "`", `\`, `\'`, "'; DROP TABLE conformance; --", "' OR '1'='1", "{a,b}", `{"a"}`,
	"$1", "?", "(?)", ":x", "%", "_",
	"a/b/c", "line\nbreak", "tab\t", "\u200b", "ключ", "鍵", "😀", "\u2028", strings.Repeat("long", 60),
}

// Conformance tests the contract of origin.Origin.
func Conformance(t *testing.T, s Subject) {
	t.Run("returns results in the order of keys", s.returnsInOrder)
	t.Run("distinguishes hard keys", s.distinguishesHardKeys)
	t.Run("finds only the hard keys that it has", s.findsOnlyItsOwn)
	t.Run("an invalid key fails alone", s.invalidKeyFailsAlone)
	t.Run("a thousand keys", s.thousandKeys)
	t.Run("concurrent loads", s.concurrentLoads)
	t.Run("returns when its context is done", s.returnsWhenDone)
	t.Run("a done context is not reported as not found", s.doneIsNotNotFound)
}

func (s Subject) returnsInOrder(t *testing.T) {
	o := s.New(t, map[string]string{"a": "1", "b": "2", "empty": ""})
	results := load(t, o, "b", "no such key", "empty", "a")
	s.want(t, "b", results[0], "2")
	absent(t, "no such key", results[1])
	s.want(t, "empty", results[2], "")
	s.want(t, "a", results[3], "1")
	absent(t, "c", load(t, o, "c")[0])
}

func (s Subject) distinguishesHardKeys(t *testing.T) {
	rows := map[string]string{}
	for i, key := range HardKeys {
		rows[key] = fmt.Sprintf("value %d <&>'\"\\ é", i)
	}
	o := s.New(t, rows)
	for i, result := range load(t, o, HardKeys...) {
		s.want(t, HardKeys[i], result, rows[HardKeys[i]])
	}
	for _, key := range HardKeys {
		s.want(t, key, load(t, o, key)[0], rows[key])
	}
}

func (s Subject) findsOnlyItsOwn(t *testing.T) {
	o := s.New(t, map[string]string{"plain": "v", "1": "one"})
	for i, result := range load(t, o, HardKeys...) {
		switch key := HardKeys[i]; key {
		case "plain":
			s.want(t, key, result, "v")
		case "1":
			s.want(t, key, result, "one")
		default:
			absent(t, key, result)
		}
	}
}

func (s Subject) invalidKeyFailsAlone(t *testing.T) {
	o := s.New(t, map[string]string{"a": "1"})
	results := load(t, o, "nul\x00", "a", "broken \xff", "b")
	for _, i := range []int{0, 2} {
		if !errors.Is(results[i].Err, origin.ErrInvalidKey) {
			t.Errorf("result %d: %v, want ErrInvalidKey", i, results[i].Err)
		}
	}
	s.want(t, "a", results[1], "1")
	absent(t, "b", results[3])
}

func (s Subject) thousandKeys(t *testing.T) {
	rows := map[string]string{}
	for i := range 1000 {
		rows[fmt.Sprintf("key-%04d", i)] = fmt.Sprint(i)
	}
	keys := slices.Sorted(maps.Keys(rows))
	slices.Reverse(keys)
	for i, result := range load(t, s.New(t, rows), keys...) {
		s.want(t, keys[i], result, rows[keys[i]])
	}
}

func (s Subject) concurrentLoads(t *testing.T) {
	o := s.New(t, map[string]string{"a": "1", "b": "2"})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 20 {
				results, err := o.Load(deadline(t), []string{"b", "c", "a"})
				if err != nil {
					t.Error(err)
					return
				}
				s.want(t, "b", results[0], "2")
				absent(t, "c", results[1])
				s.want(t, "a", results[2], "1")
			}
		})
	}
	wg.Wait()
}

func (s Subject) returnsWhenDone(t *testing.T) {
	o := s.Stuck(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	returned := make(chan error, 1)
	go func() {
		_, err := o.Load(ctx, []string{"a"})
		returned <- err
	}()
	select {
	case err := <-returned:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want a deadline exceeded", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Load is still running long after its context was done")
	}
}

func (s Subject) doneIsNotNotFound(t *testing.T) {
	ctx, cancel := context.WithCancel(deadline(t))
	cancel()
	results, err := s.New(t, map[string]string{"a": "1"}).Load(ctx, []string{"a", "b"})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v and %v, want context.Canceled", results, err)
	}
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func load(t *testing.T, o origin.Origin, keys ...string) []origin.Result {
	t.Helper()
	results, err := o.Load(deadline(t), keys)
	if err != nil {
		t.Fatalf("Load of %d keys: %v", len(keys), err)
	}
	if len(results) != len(keys) {
		t.Fatalf("%d results for %d keys", len(results), len(keys))
	}
	return results
}

// want fails the test unless got is a value at version 1.
func want(t *testing.T, key string, got origin.Result, value string) {
	t.Helper()
	Subject{}.want(t, key, got, value)
}

func (s Subject) want(t *testing.T, key string, got origin.Result, value string) {
	t.Helper()
	if got.Err != nil || !bytes.Equal(got.Value.Data, []byte(value)) || got.Value.Version != s.version() {
		t.Errorf("%q: %q at version %d, error %v; want %q at version %d", key, got.Value.Data, got.Value.Version, got.Err,
			value, s.version())
	}
}

func absent(t *testing.T, key string, got origin.Result) {
	t.Helper()
	if !errors.Is(got.Err, origin.ErrNotFound) {
		t.Errorf("%q: %q, error %v; want ErrNotFound", key, got.Value.Data, got.Err)
	}
}
