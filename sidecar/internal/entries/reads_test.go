package entries

import (
	"testing"
	"time"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

func TestRecentReadsAreWindowsWithARead(t *testing.T) {
	r := newRig(t)
	want := func(what string, windows int, last time.Duration) {
		t.Helper()
		e, ok := r.Peek("k")
		if !ok {
			t.Fatal("there is no entry")
		}
		w := kv.RecentReads{Windows: windows, Of: 64, Window: 100 * time.Millisecond, Last: last}
		if got := e.Explain(r.clock).Reads; got != w {
			t.Errorf("%s: got %+v, want %+v", what, got, w)
		}
	}
	put := func() {
		t.Helper()
		now := r.clock
		if _, ok := r.take(Load, now).Put(value(0, "v", now, now)); !ok {
			t.Fatal("not stored")
		}
	}
	r.clock = int64(time.Hour)
	put()
	want("never read", 0, 0)
	for range 3 {
		for range 10 {
			r.Get("k", r.clock)
		}
		r.clock += useInterval
	}
	want("three windows", 3, 100*time.Millisecond)
	r.clock += useInterval / 2
	put()
	want("after a refresh", 3, 150*time.Millisecond)
	r.clock += 5 * useInterval
	r.Get("k", r.clock)
	want("after a pause", 4, 0)
	r.clock += 60 * useInterval
	want("nearly forgotten", 1, 6*time.Second)
	r.clock += 10 * useInterval
	want("forgotten", 0, 7*time.Second)
}

func TestBoundIsExplainedAsAnAge(t *testing.T) {
	for _, tt := range []struct {
		b    Bound
		want kv.ReadBound
	}{
		{Bound{}, kv.ReadBound{}},
		{Bound{Version: 7, AsOf: 90}, kv.ReadBound{Version: 7, LoadedWithin: 10}},
		{Bound{MinLoadTime: 100, AsOf: 40}, kv.ReadBound{LoadedWithin: 1}},
	} {
		if got := tt.b.Explain(100); got != tt.want {
			t.Errorf("%+v: got %+v, want %+v", tt.b, got, tt.want)
		}
	}
}
