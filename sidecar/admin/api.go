package admin

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/routekey"
	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// api serves /api.
type api struct {
	Source
	cluster clusterCache
}

func (a *api) state(w http.ResponseWriter, _ *http.Request) { respond(w, a.State()) }

func (a *api) ring(w http.ResponseWriter, _ *http.Request) {
	ring := newRingState(a.Ring(), a.Node, a.Directory())
	ring.XDS = a.xds()
	respond(w, ring)
}

func (a *api) xds() *adminapi.XDS {
	if a.XDS == nil {
		return nil
	}
	return a.XDS()
}

func (a *api) clusterStates(w http.ResponseWriter, r *http.Request) {
	respond(w, a.cluster.get(r.Context(), a.Source))
}

// maxSuccessors is the number of members that an explanation lists after the owner. A read uses at most one of them.
const maxSuccessors = 3

func (a *api) explain(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	name, key := q.Get("dataset"), q.Get("key")
	if key == "" || len(key) > kv.MaxKeyBytes {
		apierror.New(apierror.TypeOf(kv.KindInvalidKey), "the length of the key must be 1 to "+strconv.Itoa(kv.MaxKeyBytes)+" bytes").Write(w)
		return
	}
	for _, d := range a.Datasets() {
		if d.Name() == name {
			respond(w, a.newExplanation(d, key))
			return
		}
	}
	apierror.New(apierror.UnknownDataset, "there is no dataset "+strconv.Quote(name)).Write(w)
}

func (a *api) newExplanation(d *cache.Dataset, key string) adminapi.Explanation {
	r, routeKey := a.Ring(), routekey.Format(d.Name(), key)
	e := adminapi.Explanation{
		Dataset:    d.Name(),
		Key:        key,
		RouteKey:   routeKey,
		Position:   position(ring.Hash(routeKey)),
		RingID:     adminapi.FormatRingID(r.ID()),
		Node:       a.Node,
		Owner:      a.Node, // unless the ring has members
		Successors: []string{},
		Memory:     d.Explain(key),
		XDS:        a.xds(),
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

func respond(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		apierror.New(apierror.TypeOf(kv.KindInternal), err.Error()).Write(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(body, '\n'))
}
