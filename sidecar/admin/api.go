package admin

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	"github.com/ringside-cache/ringside/sidecar/admin/adminapi"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// api serves /api.
type api struct {
	Source
	cluster clusterCache
	history clusterHistory
}

func (a *api) state(w http.ResponseWriter, r *http.Request) { respond(w, a.readable(r, a.State())) }

// readable returns s without the hot keys of datasets that the caller may not read: they say which keys exist.
func (a *api) readable(r *http.Request, s adminapi.State) adminapi.State {
	s.HotKeys = slices.DeleteFunc(slices.Clone(s.HotKeys), func(k adminapi.HotKey) bool {
		return a.authorize(r, k.Dataset) != nil //guard:hot-keys-without-permission
	})
	return s
}

// authorize returns an error if the caller may not read a dataset.
func (a *api) authorize(r *http.Request, dataset string) error {
	var gate *access.Gate
	if a.Gate != nil {
		gate = a.Gate(dataset)
	}
	_, err := gate.Authorize(caller.Caller{Kind: caller.Loopback}, access.Read, r.Header.Get("Authorization"))
	return err
}

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
	cluster := a.cluster.get(r.Context(), a.Source)
	cluster.Members = slices.Clone(cluster.Members) // all callers share the states
	for i, m := range cluster.Members {
		if m.State != nil {
			state := a.readable(r, *m.State)
			cluster.Members[i].State = &state
		}
	}
	respond(w, cluster)
}

// histories answers with what came after the interval of the parameter after; without it, with all that is known.
func (a *api) histories(w http.ResponseWriter, r *http.Request) {
	after, err := int64(0), error(nil)
	if text := r.URL.Query().Get("after"); text != "" {
		after, err = strconv.ParseInt(text, 10, 64)
	}
	if err != nil {
		apierror.New(apierror.InvalidRequest, "after must be the number of an interval").Write(w)
		return
	}
	respond(w, a.history.get(r.Context(), a.Source, after))
}

// explain explains a key.
func (a *api) explain(w http.ResponseWriter, r *http.Request) {
	key := r.URL.Query().Get("key")
	if key == "" || len(key) > kv.MaxKeyBytes {
		apierror.New(apierror.TypeOf(kv.KindInvalidKey), "the length of the key must be 1 to "+strconv.Itoa(kv.MaxKeyBytes)+" bytes").Write(w)
		return
	}
	if d := a.dataset(w, r); d != nil {
		e, err := a.Explain(r.Context(), d.Name(), key)
		a.respond(w, e, err)
	}
}

// verification says what comparisons with the database have found.
func (a *api) verification(w http.ResponseWriter, r *http.Request) {
	if d := a.dataset(w, r); d != nil {
		respond(w, a.Verification(d))
	}
}

// audit compares entries with the database now. It ends when the client leaves.
func (a *api) audit(w http.ResponseWriter, r *http.Request) {
	keys := 0
	if text := r.URL.Query().Get("keys"); text != "" {
		var err error
		if keys, err = strconv.Atoi(text); err != nil || keys < 1 {
			apierror.New(apierror.MalformedRequest, "keys must be a number of entries, at least 1").Write(w)
			return
		}
	}
	if d := a.dataset(w, r); d != nil {
		result, err := a.Audit(r.Context(), d, keys)
		a.respond(w, result, err)
	}
}

// dataset returns the dataset of a request whose client may read it; otherwise nil, and has responded. What the API says of a
// dataset has no value, but keys.
func (a *api) dataset(w http.ResponseWriter, r *http.Request) *cache.Dataset {
	name := r.URL.Query().Get("dataset")
	all := a.Datasets()
	i := slices.IndexFunc(all, func(d *cache.Dataset) bool { return d.Name() == name })
	if i < 0 {
		apierror.New(apierror.UnknownDataset, "there is no dataset "+strconv.Quote(name)).Write(w)
		return nil
	}
	if err := a.authorize(r, name); err != nil { //guard:explanation-without-permission
		apierror.From(err, a.Errors.Report).Write(w)
		return nil
	}
	return all[i]
}

// respond writes v, or the error of making it.
func (a *api) respond(w http.ResponseWriter, v any, err error) {
	if err != nil {
		apierror.From(err, a.Errors.Report).Write(w)
		return
	}
	respond(w, v)
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
