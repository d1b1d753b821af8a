package admin_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/sidecar/admin"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
)

const interval = adminapi.HistoryInterval

// recorded is the history of a member with one read of a millisecond (bucket -39) in each of the latest n intervals.
func recorded(n int64, events ...adminapi.Event) *adminapi.MemberHistory {
	h := &adminapi.MemberHistory{Now: time.Now().UnixNano()/int64(interval) - 1, Events: events}
	for i := h.Now - n + 1; i <= h.Now; i++ {
		d := adminapi.DatasetSample{Name: "routes"}
		d.Counts[adminapi.CountHit], d.Times[adminapi.TimeRead] = 1, []int64{-39, 1}
		h.Intervals = append(h.Intervals, adminapi.Interval{Number: i, Datasets: []adminapi.DatasetSample{d}})
	}
	return h
}

// recording is sidecar "a" of a and b. requests counts the requests to b.
func recording(t *testing.T) (s admin.Source, requests *[]int64) {
	s, requests = newSource(t), new([]int64)
	joined := adminapi.Event{At: time.Now().Add(-time.Minute), Kind: adminapi.EventRing, Text: "c joined"}
	s.History.Own = func(int64) *adminapi.MemberHistory { return recorded(200, joined) }
	s.History.Others = func(_ context.Context, after int64, use func(string, *adminapi.MemberHistory)) {
		*requests = append(*requests, after)
		joined.At = joined.At.Add(time.Second)
		own := adminapi.Event{At: joined.At, Kind: adminapi.EventReload, Text: "reloaded"}
		use("b", recorded(10, joined, own))
	}
	return s, requests
}

func series(t *testing.T, h adminapi.History, scope, name string) adminapi.Series {
	t.Helper()
	for _, s := range h.Series {
		if s.Scope == scope && s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no series of %s %q in %+v", scope, name, h.Series)
	return adminapi.Series{}
}

func TestHistoryAddsUpTheMembers(t *testing.T) {
	s, _ := recording(t)
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(interval / 2) // in the middle of an interval, so that the one before is complete
		h := get[adminapi.History](t, s, "/api/history")
		if h.Count != adminapi.HistoryLength || h.First+int64(h.Count) != time.Now().UnixNano()/int64(interval) {
			t.Fatalf("intervals %d to %d", h.First, h.First+int64(h.Count))
		}
		all, b := series(t, h, adminapi.ScopeAll, ""), series(t, h, adminapi.ScopeMember, "b")
		last, early := h.Count-1, h.Count-50
		if all.Members[last] != 2 || all.Counts["hit"][last] != 2 || all.Members[early] != 1 || all.Counts["hit"][early] != 1 ||
			b.Members[last] != 1 || b.Members[early] != 0 || b.Counts["hit"][early] != 0 {
			t.Errorf("all members: %+v, b: %+v", all, b)
		}
		if p50, p99 := all.P50["read"][last], all.P99["read"][last]; p50 < 0.0009 || p50 > 0.0012 || p99 != p50 {
			t.Errorf("quantiles of a millisecond: %v, %v", p50, p99)
		}
		series(t, h, adminapi.ScopeDataset, "routes")
		if all.Counts["error"] != nil {
			t.Errorf("a list of zeros is sent: %v", all.Counts["error"])
		}
		var texts []string
		for _, e := range h.Events {
			texts = append(texts, e.Member+" "+e.Text)
		}
		if want := []string{"a c joined", "b reloaded"}; !slices.Equal(texts, want) {
			t.Errorf("events %q, want %q: a change of the ring once", texts, want)
		}
	})
}

func TestIntervalsAreRequestedOnceHoweverManyConsoles(t *testing.T) {
	s, requests := recording(t)
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(interval / 2)
		h := admin.NewHandler(s)
		for range 10 {
			do(h, request("GET", "/api/history"))
			do(h, request("GET", "/api/history?after=5"))
		}
		time.Sleep(interval)
		do(h, request("GET", "/api/history"))
		now := time.Now().UnixNano() / int64(interval)
		if want := []int64{0, now - 2}; !slices.Equal(*requests, want) {
			t.Errorf("requests to the members after %v, want %v", *requests, want)
		}
		if w := do(h, request("GET", "/api/history?after=x")); w.Code != http.StatusBadRequest {
			t.Errorf("after=x: %d", w.Code)
		}
		time.Sleep(time.Hour) // nobody looks
		do(h, request("GET", "/api/history"))
		if last := (*requests)[2]; last != time.Now().UnixNano()/int64(interval)-1-adminapi.HistoryLength {
			t.Errorf("after an hour: request after %d", last)
		}
	})
}

// A member may report anything: wrong clocks, thousands of names and events.
func TestHistoryOfMembersHasLimits(t *testing.T) {
	s, _ := recording(t)
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(interval / 2)
		now := time.Now().UnixNano() / int64(interval)
		s.History.Others = func(_ context.Context, _ int64, use func(string, *adminapi.MemberHistory)) {
			for i := range 300 {
				h := recorded(1)
				for k := range 200 {
					h.Events = append(h.Events, adminapi.Event{At: time.Unix(int64(k), 0), Text: fmt.Sprint(i, k)})
					h.Intervals[0].Datasets = append(h.Intervals[0].Datasets, adminapi.DatasetSample{Name: fmt.Sprint(i, k)})
				}
				h.Intervals = append(h.Intervals, adminapi.Interval{Number: -1 << 63}, adminapi.Interval{Number: 1<<63 - 1})
				use(fmt.Sprint("member ", i), h)
				late := recorded(1) // its clock is an hour behind
				late.Now, late.Intervals[0].Number = now-700, now-700
				use(fmt.Sprint("late ", i), late)
			}
		}
		h := get[adminapi.History](t, s, "/api/history")
		if len(h.Series) != 201 || h.Omitted != 501 || len(h.Events) != 500 {
			t.Errorf("%d series, %d members without, %d events", len(h.Series), h.Omitted, len(h.Events))
		}
		if all := series(t, h, adminapi.ScopeAll, ""); all.Counts["hit"][h.Count-1] != 601 {
			t.Errorf("the sum has %d reads, want those of all members", all.Counts["hit"][h.Count-1])
		}
	})
}
