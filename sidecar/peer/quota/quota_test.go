package quota

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

func numbered(n int, prefix bool) []kv.Invalidation {
	list := make([]kv.Invalidation, n)
	for i := range list {
		list[i] = kv.Invalidation{Dataset: fmt.Sprint("d", i%2), Key: fmt.Sprint(i), Prefix: prefix, Age: time.Hour}
	}
	return list
}

// No invalidation is lost: what a member sends beyond its quota expires the datasets, once per second.
func TestInvalidationsBeyondTheQuotaAreMerged(t *testing.T) {
	for name, test := range map[string]struct {
		list  []kv.Invalidation
		exact int // lists that are applied as they are
	}{
		"keys":     {numbered(1000, false), keysBurst / 1000},
		"prefixes": {numbered(16, true), prefixesBurst / 16},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := NewMember()
			began := time.Now()
			for range test.exact {
				got, merged, err := m.Admit(t.Context(), test.list)
				if len(got) != len(test.list) || merged || err != nil || time.Since(began) != 0 {
					t.Fatalf("%s: got %d after %v, error %v, want all at once", name, len(got), time.Since(began), err)
				}
			}
			for n := range 3 {
				for m.allow(test.list) { // what the quota allows meanwhile
				}
				got, merged, err := m.Admit(t.Context(), test.list)
				want := []kv.Invalidation{{Dataset: "d0", Prefix: true}, {Dataset: "d1", Prefix: true}}
				if fmt.Sprint(got) != fmt.Sprint(want) || !merged || err != nil {
					t.Fatalf("%s: got %+v, error %v, want %+v", name, got, err, want)
				}
				if at := time.Duration(n) * time.Second; time.Since(began) != at {
					t.Errorf("%s: got merged list %d after %v, want %v", name, n, time.Since(began), at)
				}
			}
		})
	}
}

func TestWaitForMergedInvalidationsEndsWithTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMember()
		for m.allow(numbered(16, true)) {
		}
		_, _, _ = m.Admit(t.Context(), numbered(16, true))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, _, err := m.Admit(ctx, numbered(16, true)); err == nil {
			t.Error("got no error, want one: nothing may be applied after it")
		}
	})
}

func TestMessagesAndFeedChangesAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, began := NewMember(), time.Now()
		for range messagesBurst + messagesPerSecond {
			if err := m.Message(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if got := time.Since(began).Round(time.Millisecond); got != time.Second {
			t.Errorf("%d messages: got %v, want 1 s", messagesBurst+messagesPerSecond, got)
		}
		n := 0
		for m.FeedsChange() {
			n++
		}
		if n != feedChanges {
			t.Errorf("got %d changes of feeds at once, want %d", n, feedChanges)
		}
	})
}

func TestRunningCallsOfOneMemberAreLimited(t *testing.T) {
	var s Members
	var exits []func()
	for range MaxCalls {
		_, exit, ok := s.Enter("a")
		if !ok {
			t.Fatal("refused a call below the limit")
		}
		exits = append(exits, exit)
	}
	if _, _, ok := s.Enter("a"); ok {
		t.Errorf("got %d running calls, want %d", MaxCalls+1, MaxCalls)
	}
	if _, _, ok := s.Enter("b"); !ok {
		t.Error("the calls of one member keep another one out")
	}
	exits[0]()
	if _, _, ok := s.Enter("a"); !ok {
		t.Error("refused a call after another one ended")
	}
	for i := range 3 * maxMembers {
		_, exit, ok := s.Enter(fmt.Sprint(i))
		if !ok {
			t.Fatal(errors.New("refused a new member"))
		}
		exit()
	}
	if len(s.byID) > maxMembers {
		t.Errorf("got %d quotas, want at most %d", len(s.byID), maxMembers)
	}
}
