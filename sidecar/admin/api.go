package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

// State is one member's counters since its start.
type State struct {
	Node     string         `json:"node"`
	Version  string         `json:"version"`
	RingID   string         `json:"ring_id"`
	Uptime   time.Duration  `json:"uptime_ns"`
	Datasets []DatasetState `json:"datasets"`
}

// DatasetState is one dataset of a State.
type DatasetState struct {
	Name          string `json:"name"`
	Hits          int64  `json:"hits"`
	LocalHits     int64  `json:"local_hits"`
	PeerHits      int64  `json:"peer_hits"`
	Loads         int64  `json:"loads"`
	Stale         int64  `json:"stale"`
	Negative      int64  `json:"negative"`
	Errors        int64  `json:"errors"`
	OriginQueries int64  `json:"origin_queries"`
	Served        int64  `json:"served"`  // requests answered to other members
	Written       int64  `json:"written"` // rows, for applications
	Entries       int64  `json:"entries"`
	Bytes         int64  `json:"bytes"` // overhead included
	MaxBytes      int64  `json:"max_bytes"`
	// FeedGap: the dataset has a change feed, and its changes are not heard of now.
	FeedGap bool `json:"feed_gap,omitempty"`
}

// State returns the counters of this member.
func (s Source) State() State {
	state := State{
		Node:     s.Node,
		Version:  s.Version,
		RingID:   FormatRingID(s.Ring().ID()),
		Uptime:   time.Since(s.Started),
		Datasets: make([]DatasetState, 0, len(s.Datasets)),
	}
	for _, d := range s.Datasets {
		state.Datasets = append(state.Datasets, datasetState(d))
	}
	return state
}

func datasetState(d *cache.Dataset) DatasetState {
	st, memory := d.Stats(), d.Memory()
	live, has := d.FeedLive()
	return DatasetState{
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
	}
}

// FormatRingID is how pages, metrics and the CLI show a Ring.ID: JavaScript cannot hold 64 bits.
func FormatRingID(id uint64) string { return fmt.Sprintf("%016x", id) }

// api answers /api.
type api struct {
	Source
	cluster cluster
}

func (a *api) state(w http.ResponseWriter, _ *http.Request) { answer(w, a.State()) }

func (a *api) ring(w http.ResponseWriter, _ *http.Request) {
	view := newRingView(a.Ring(), a.Node, a.Directory())
	view.Feed = a.feed()
	answer(w, view)
}

func (a *api) feed() *Feed {
	if a.Feed == nil {
		return nil
	}
	return a.Feed()
}

func (a *api) clusterStates(w http.ResponseWriter, r *http.Request) {
	answer(w, a.cluster.gather(r.Context(), a.Source))
}

// maxSuccessors bounds the members that an explanation lists after the owner. A read asks one of them at most.
const maxSuccessors = 3

type explanation struct {
	Dataset    string            `json:"dataset"`
	Key        string            `json:"key"`
	RouteKey   string            `json:"route_key"`
	Position   float64           `json:"position"` // on the ring, 0 to 1
	RingID     string            `json:"ring_id"`
	Node       string            `json:"node"` // this member
	Owner      string            `json:"owner"`
	Successors []string          `json:"successors"`
	Memory     cache.Explanation `json:"memory"` // of this member
	Feed       *Feed             `json:"feed,omitempty"`
}

func (a *api) explain(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	name, key := q.Get("dataset"), q.Get("key")
	if key == "" || len(key) > cache.MaxKeyBytes {
		apierror.New(apierror.TypeOf(cache.KindInvalidKey), "the key must have 1 to "+strconv.Itoa(cache.MaxKeyBytes)+" bytes").Write(w)
		return
	}
	for _, d := range a.Datasets {
		if d.Name() == name {
			answer(w, a.explanationOf(d, key))
			return
		}
	}
	apierror.New(apierror.UnknownDataset, "there is no dataset "+strconv.Quote(name)).Write(w)
}

func (a *api) explanationOf(d *cache.Dataset, key string) explanation {
	r, routeKey := a.Ring(), ring.RouteKey(d.Name(), key)
	e := explanation{
		Dataset:    d.Name(),
		Key:        key,
		RouteKey:   routeKey,
		Position:   position(ring.Hash(routeKey)),
		RingID:     FormatRingID(r.ID()),
		Node:       a.Node,
		Owner:      a.Node, // alone, unless the ring says otherwise
		Successors: []string{},
		Memory:     d.Explain(key),
		Feed:       a.feed(),
	}
	n := 0
	for m := range r.Successors(routeKey) {
		if n == 0 {
			e.Owner = m.ID
		} else {
			e.Successors = append(e.Successors, m.ID)
		}
		if n++; n > maxSuccessors {
			break
		}
	}
	return e
}

func answer(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		apierror.New(apierror.TypeOf(cache.KindInternal), err.Error()).Write(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n'))
}
