package admin

import (
	"time"

	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

// State returns the counters of this member.
func (s Source) State() adminapi.State {
	datasets := s.Datasets()
	state := adminapi.State{
		Node:     s.Node,
		Version:  s.Version,
		RingID:   adminapi.FormatRingID(s.Ring().ID()),
		Uptime:   time.Since(s.Started),
		Datasets: make([]adminapi.DatasetState, 0, len(datasets)),
	}
	for _, d := range datasets {
		state.Datasets = append(state.Datasets, newDatasetState(d))
	}
	return state
}

func newDatasetState(d *cache.Dataset) adminapi.DatasetState {
	st, memory := d.Stats(), d.Memory()
	live, has := d.FeedLive()
	return adminapi.DatasetState{
		Name:          d.Name(),
		Hits:          st.Hit.Load(),
		LocalHits:     st.LocalHit.Load(),
		PeerHits:      st.PeerHit.Load(),
		Loads:         st.Load.Load(),
		Stale:         st.Stale.Load(),
		Negative:      st.Negative.Load(),
		Errors:        st.Error.Load(),
		OriginQueries: st.Queries.Load(),
		Served:        st.Served.Load(),
		Written:       st.Written.Load(),
		Entries:       int64(memory.Entries),
		Bytes:         memory.Bytes,
		MaxBytes:      memory.MaxBytes,
		FeedGap:       has && !live,
		Warm:          newWarmState(d),
	}
}

func newWarmState(d *cache.Dataset) *adminapi.WarmState {
	if !d.Work().Enabled() {
		return nil
	}
	st := d.Stats()
	return &adminapi.WarmState{
		Keys: st.WarmKeys.Load(), Omitted: st.WarmOmitted.Load(), Loaded: st.WarmLoaded.Load(),
		Passes: st.WarmPasses.Load(), Failures: st.WarmFailures.Load(), Pinned: d.Memory().Pinned,
	}
}
