package history

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func newDataset(t *testing.T, name string) *cache.Dataset {
	t.Helper()
	d, err := cache.New(cache.Config{Name: name, Policy: kv.DefaultPolicy(), MaxBytes: 1 << 20, Origin: origintest.New(map[string]string{"k": "v"})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// start runs a Recorder until the test ends.
func start(t *testing.T, r *Recorder) {
	t.Helper()
	running := task.NewGroup(func(err error) { t.Error(err) }).Go("history", r.Run)
	t.Cleanup(running.Stop)
	synctest.Wait()
}

func decode(t *testing.T, r *Recorder, after int64) *adminapi.MemberHistory {
	t.Helper()
	h, err := adminapi.DecodeMemberHistory(r.After(after))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestRecorderRecordsTheIncrementsOfTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDataset(t, "routes")
		var lost atomic.Bool
		r := New(Config{
			Datasets: func() []*cache.Dataset { return []*cache.Dataset{d} },
			Observe:  func() State { return State{Connected: !lost.Load()} },
		})
		d.Stats().Hit.Add(1000) // before the recorder begins
		start(t, r)
		time.Sleep(lookInterval / 2) // so that the test looks between two ticks
		for range 3 {
			d.Stats().Hit.Add(7)
			d.Stats().ReadTime[0].ObserveN(time.Millisecond, 7)
			time.Sleep(adminapi.HistoryInterval)
		}
		h := decode(t, r, 0)
		if len(h.Intervals) != 3 || h.Now != h.Intervals[2].Number {
			t.Fatalf("got %d intervals up to %d of %+v, want 3", len(h.Intervals), h.Now, h.Intervals)
		}
		for _, i := range h.Intervals {
			if len(i.Datasets) != 1 || i.Datasets[0].Name != "routes" || i.Datasets[0].Counts[adminapi.CountHit] != 7 ||
				len(i.Datasets[0].Times[adminapi.TimeRead]) != 2 || i.Datasets[0].Times[adminapi.TimeRead][1] != 7 {
				t.Errorf("interval %+v, want 7 hits of a millisecond", i)
			}
		}
		if got := decode(t, r, h.Intervals[1].Number).Intervals; len(got) != 1 || got[0].Number != h.Now {
			t.Errorf("after the second interval: %+v, want the third", got)
		}
		lost.Store(true)
		time.Sleep(lookInterval)
		if e := decode(t, r, 0).Events; len(e) != 1 || !e[0].Bad || e[0].Kind != adminapi.EventDirectory || time.Since(e[0].At) > lookInterval {
			t.Errorf("events %+v, want that the directory is lost", e)
		}
		time.Sleep(2 * adminapi.HistoryLength * adminapi.HistoryInterval)
		if h := decode(t, r, 0); len(h.Intervals) != adminapi.HistoryLength || len(h.Intervals[0].Datasets) != 0 {
			t.Errorf("%d intervals after 20 minutes without reads, the first %+v", len(h.Intervals), h.Intervals[0])
		}
	})
}

func TestHistoryHasALimitInBytes(t *testing.T) {
	r := New(Config{})
	for i := range int64(10 * adminapi.HistoryLength) {
		r.keep(encoded{i, []byte(strings.Repeat("x", 50_000))})
		r.Add(adminapi.Event{Text: fmt.Sprint(i)})
	}
	if n := len(r.intervals); n == 0 || n*50_000 > maxIntervalBytes || r.intervals[n-1].number != 10*adminapi.HistoryLength-1 {
		t.Errorf("%d intervals of 50 kB are kept, up to %d", n, r.intervals[n-1].number)
	}
	if n := len(r.events); n != adminapi.MaxEvents || r.events[n-1].Text != "1199" {
		t.Errorf("%d events are kept, the last %+v", n, r.events[n-1])
	}
}

// A dataset that a reload replaced begins again at zero.
func TestReplacedDatasetHasNoNegativeIncrements(t *testing.T) {
	old, fresh := newDataset(t, "routes"), newDataset(t, "routes")
	old.Stats().Hit.Add(100)
	fresh.Stats().Hit.Add(3)
	list := []*cache.Dataset{old}
	r := New(Config{Datasets: func() []*cache.Dataset { return list }})
	r.before = r.read()
	list[0] = fresh
	r.record(r.number + 1)
	fresh.Stats().Hit.Add(2)
	r.record(r.number + 1)
	h := decode(t, r, 0)
	if len(h.Intervals) != 2 || len(h.Intervals[0].Datasets) != 0 || h.Intervals[1].Datasets[0].Counts[adminapi.CountHit] != 2 {
		t.Errorf("got %+v", h.Intervals)
	}
}

func TestChangesOfStateAreEvents(t *testing.T) {
	before := State{
		Ring: []string{"a", "b", "c"}, Connected: true, Listed: true, BreakersOpen: []string{"b", "c"}, Reloads: 1,
		Feeds:   map[string]Feed{"x": {Live: true}, "y": {Live: true, Gaps: 1}, "z": {}},
		Origins: map[string]bool{"db": false, "old": true},
	}
	if got := before.changes(before); len(got) != 0 {
		t.Errorf("without a change: %+v", got)
	}
	after := State{
		Ring: []string{"a", "c", "d", "e", "f", "g"}, BreakersOpen: []string{"a"}, Reloads: 2, Rejected: 1,
		Feeds:   map[string]Feed{"x": {Gaps: 1}, "y": {Live: true, Gaps: 2}, "z": {Live: true}, "new": {}},
		Origins: map[string]bool{"db": true, "old": false},
	}
	var got []string
	for _, e := range before.changes(after) {
		text := e.Kind + ": " + e.Text
		if e.Bad {
			text += " (bad)"
		}
		got = append(got, text)
	}
	want := []string{
		"ring: d, e, f and 1 more joined the ring",
		"ring: b left the ring (bad)",
		"directory: member directory lost; the ring stays as it is (bad)",
		"directory: registration lost or withdrawn (bad)",
		"reload: configuration reloaded",
		"reload: changed configuration rejected; the old one stays in use (bad)",
		"feed: change feed of x interrupted; entries expire earlier (bad)",
		"feed: change feed of y interrupted and live again (bad)",
		"feed: change feed of z live",
		"breaker: circuit breaker of origin db opened: it failed repeatedly (bad)",
		"breaker: circuit breaker of origin old closed: it answers again",
		"breaker: a not responding: requests go to successors (bad)",
		"breaker: c responding again",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// What a member sends must fit in one message, whatever the names are.
func TestHistoryFitsInAMessage(t *testing.T) {
	r := New(Config{})
	for i := range int64(10_000) {
		text, err := json.Marshal(adminapi.Interval{Number: i, Datasets: []adminapi.DatasetSample{{Name: strings.Repeat("é", 2000)}}})
		if err != nil {
			t.Fatal(err)
		}
		r.keep(encoded{i, text})
		r.Add(adminapi.Event{At: time.Now(), Kind: adminapi.EventRing, Text: strings.Repeat("é", 1000)})
	}
	if n := len(r.After(0)); n > 512<<10 {
		t.Errorf("the history has %d bytes", n)
	}
}
