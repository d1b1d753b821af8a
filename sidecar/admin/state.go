package admin

import (
	"time"

	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/hotkeys"
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
	if s.HotKeys != nil {
		for _, k := range s.HotKeys() {
			state.HotKeys = append(state.HotKeys, newHotKey(k))
		}
	}
	return state
}

// newHotKey cuts a long key, and makes it printable: anybody may have chosen it.
func newHotKey(k hotkeys.Key) adminapi.HotKey {
	text := k.Key
	if len(text) > adminapi.MaxHotKeyBytes {
		text = text[:adminapi.MaxHotKeyBytes]
	}
	return adminapi.HotKey{Dataset: k.Dataset, Key: printable.Text(text), KeyBytes: len(k.Key), Rate: k.Rate}
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
