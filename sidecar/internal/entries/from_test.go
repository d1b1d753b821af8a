package entries

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func TestEntryOfALoad(t *testing.T) {
	p := kv.Policy{TTL: 100, NegativeTTL: 40, FailoverTTL: 20, GapTTL: 10, StaleIfError: 500}
	for _, tt := range []struct {
		name string
		err  error
		why  Reason
		gap  bool
		want int64 // FreshUntil
	}{
		{name: "value", want: 1100},
		{name: "not found", err: origin.ErrNotFound, want: 1040},
		{name: "data error", err: origin.NewDataError(origin.SeveralRows, "two rows"), want: 1040},
		{name: "failover", why: Failover, want: 1020},
		{name: "gap in the feed", gap: true, want: 1010},
	} {
		r := origin.Result{Value: origin.Value{Data: []byte("v"), Version: 7}, Err: tt.err}
		e := FromLoad(p, r, 1000, 1050, tt.why, tt.gap)
		if e.FreshUntil != tt.want || e.Began != 1000 || e.Seen != 1050 {
			t.Errorf("%s: fresh until %d, began %d, seen %d; want %d, 1000, 1050", tt.name, e.FreshUntil, e.Began, e.Seen, tt.want)
		}
		if e.Usable(1030) != (tt.err == nil) || (e.ETag != "") != (tt.err == nil) {
			t.Errorf("%s: usable as a stale answer: %t, ETag %s", tt.name, e.Usable(1030), e.ETag)
		}
	}
}

// A row shortens the lifetime of its entry, and never lengthens it.
func TestEntryEndsWithItsRow(t *testing.T) {
	p := kv.Policy{TTL: 100, GapTTL: 10, StaleIfError: 500}
	for _, tt := range []struct {
		name         string
		left         time.Duration // until the end of the row, from the end of the load at 1050
		gap          bool
		fresh, stale int64
	}{
		{name: "earlier than the ttl", left: 20, fresh: 1070, stale: 1570},
		{name: "later than the ttl", left: time.Hour, fresh: 1100, stale: 1600},
		{name: "in 8000 years", left: 1 << 62, fresh: 1100, stale: 1600},
		{name: "in a gap of the feed", left: 20, gap: true, fresh: 1010, stale: 1570},
		{name: "past", left: -time.Hour, fresh: 1050, stale: 1550},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := origin.Result{Value: origin.Value{Data: []byte("v"), Expires: time.Now().Add(tt.left)}}
			e := FromLoad(p, r, 1000, 1050, Miss, tt.gap)
			if e.FreshUntil != tt.fresh || e.StaleUntil != tt.stale {
				t.Errorf("%s: fresh until %d, stale until %d; want %d, %d", tt.name, e.FreshUntil, e.StaleUntil, tt.fresh, tt.stale)
			}
		})
	}
}

// An origin may forbid or shorten stale answers, and never lengthens them.
func TestOriginLimitsStaleAnswers(t *testing.T) {
	p := kv.Policy{TTL: 100, StaleIfError: 500, StaleWhileRevalidate: 50}
	for most, want := range map[time.Duration][2]int64{ // StaleUntil, RevalidateUntil
		0: {1100, 1100}, 20: {1120, 1120}, 200: {1300, 1150}, 1 << 62: {1600, 1150}, -1: {1100, 1100},
	} {
		e := FromLoad(p, origin.Result{Value: origin.Value{Data: []byte("v"), MaxStale: &most}}, 1000, 1050, Miss, false)
		if e.FreshUntil != 1100 || e.StaleUntil != want[0] || e.RevalidateUntil != want[1] {
			t.Errorf("%d: fresh until %d, stale until %d and %d; want 1100, %v", most, e.FreshUntil, e.StaleUntil, e.RevalidateUntil, want)
		}
	}
}

func TestEntryOfAnAnswer(t *testing.T) {
	p := kv.Policy{TTL: 100, LocalTTL: 50, StaleIfError: 500}
	for _, tt := range []struct {
		name  string
		a     kv.Answer
		began int64
		fresh int64 // FreshUntil
	}{
		{"local ttl", kv.Answer{Age: 10, Fresh: 90}, 990, 1050},
		{"end of the owner's entry", kv.Answer{Age: 70, Fresh: 30}, 930, 1030},
		{"time at the owner", kv.Answer{Age: 10, Fresh: 90, Took: 20}, 1010, 1070},
		{"more time than the request took", kv.Answer{Age: 10, Fresh: 90, Took: time.Hour}, 1030, 1090},
		{"negative durations", kv.Answer{Age: -10, Fresh: -10, Took: -10}, 1000, 1000},
	} {
		e := FromPeer(p, tt.a, "owner", p.CopyTTL(tt.a.HotRate > 0), 1000, 1040)
		if e.Began != tt.began || e.FreshUntil != tt.fresh || !e.Local() {
			t.Errorf("%s: began %d, fresh until %d; want %d, %d", tt.name, e.Began, e.FreshUntil, tt.began, tt.fresh)
		}
	}
	stale := FromPeer(p, kv.Answer{Age: 200, Stale: true}, "owner", p.LocalTTL, 1000, 1040)
	_, before := stale.BacksOff(1049, 50)
	_, after := stale.BacksOff(1050, 50)
	if !before || after {
		t.Error("a stale answer must be used without a peer fetch for local_ttl, and no longer")
	}
}

func TestCopyOfAStaleAnswerHasItsReason(t *testing.T) {
	for sent, want := range map[string]struct {
		detail  string
		failing bool
	}{
		kv.DetailRevalidating: {kv.DetailRevalidating, false},
		kv.DetailOverloaded:   {kv.DetailOverloaded, true},
		"of-a-later-release":  {"of-a-later-release", true},
		"":                    {kv.DetailOriginError, true},
	} {
		e := FromPeer(kv.Policy{TTL: 100, LocalTTL: 50}, kv.Answer{Age: 200, Stale: true, Detail: sent}, "owner", 50, 1000, 1040)
		if detail, _ := e.BacksOff(1041, 50); detail != want.detail || e.Failing() != want.failing {
			t.Errorf("%q: got %q, failing %t; want %q, %t", sent, detail, e.Failing(), want.detail, want.failing)
		}
	}
}

func TestEntryOfAHandover(t *testing.T) {
	e := FromHandover(kv.Policy{TTL: 100}, kv.Answer{Age: 30, Fresh: 500}, 1000, 1040)
	if e.Began != 970 || e.FreshUntil != 1070 || e.Local() || e.Reason != Handover {
		t.Errorf("got began %d, fresh until %d, local %t, %v; want 970, 1070, false, handover", e.Began, e.FreshUntil, e.Local(), e.Reason)
	}
}

func TestDataErrorReplacesAValue(t *testing.T) {
	r := newRig(t)
	r.put(value(1, "v", 10, 11))
	twoRows := func(began int64) *Entry {
		return &Entry{DataError: origin.SeveralRows, Began: began, Seen: began + 1, FreshUntil: began + 100}
	}
	r.put(twoRows(20))
	r.put(notFound(30, 31))
	r.put(twoRows(40))
	if len(r.changes) != 4 {
		t.Errorf("%d changes were reported; want 4", len(r.changes))
	}
	held, _ := r.Peek("k")
	if held.DataError != origin.SeveralRows || held.Usable(50) || held.Explain(50).DataError != "several-rows" {
		t.Errorf("got %+v; want a data error, and no stale answer", held.Explain(50))
	}
	r.wantAllowed(value(2, "v", 35, 36), false) // loaded before the error was seen
	r.wantAllowed(value(1, "v", 45, 46), true)
}

func TestExpiredEntryIsNotExplainedAsFresh(t *testing.T) {
	e := value(1, "v", 1000, 1010)
	if got := e.Explain(1050).Fresh; got != 50 {
		t.Errorf("got %d; want 50", got)
	}
	e.expired.Store(true)
	if got := e.Explain(1050).Fresh; got != 0 {
		t.Errorf("expired: got %d; want 0", got)
	}
}
