package top

import (
	"testing"
	"time"

	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
)

func TestSampleCountsARestartedMemberFromZero(t *testing.T) {
	const second = time.Second
	at := func(id string, uptime time.Duration, d ...adminapi.DatasetState) adminapi.MemberState {
		return adminapi.MemberState{ID: id, State: &adminapi.State{Uptime: uptime, RingID: "r", Datasets: d}}
	}
	before := adminapi.ClusterState{RingID: "r", Members: []adminapi.MemberState{
		at("a", 10*second, adminapi.DatasetState{Name: "d", Hits: 100, Written: 50}), at("b", 10*second, adminapi.DatasetState{Name: "d", Hits: 1000}),
	}}
	after := adminapi.ClusterState{RingID: "r", Members: []adminapi.MemberState{
		{ID: "c", Unreachable: "away"},
		at("b", 2*second, adminapi.DatasetState{Name: "d", Loads: 20, Bytes: 1 << 20, FeedGap: true}),
		{ID: "d", State: &adminapi.State{Uptime: second, RingID: "r", HotKeys: []adminapi.HotKey{{Dataset: "d", Key: "k", KeyBytes: 1, Rate: 250}}}},
		at("a", 12*second, adminapi.DatasetState{Name: "d", Hits: 130, LocalHits: 10, Written: 52, Bytes: 1 << 20}),
	}}
	s := newSample(before, after)
	want := activity{Name: "d", State: "feed gap", Reads: 30, Hits: 20, Loads: 10, Writes: 1, Bytes: 2 << 20}
	if len(s.Datasets) != 1 || s.Datasets[0] != want {
		t.Errorf("got %+v, want %+v", s.Datasets, want)
	}
	if len(s.HotKeys) != 1 || s.HotKeys[0].Owner != "d" || s.HotKeys[0].Rate != 250 {
		t.Errorf("got hot keys %+v", s.HotKeys)
	}
	if len(s.Members) != 4 || s.Members[0].Reads != 20 || s.Members[1].Reads != 10 || s.Members[2].State != "unreachable" {
		t.Errorf("got %+v", s.Members)
	}
}
