package metrics

import (
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxScrapes limits concurrent scrapes, because the listener is open to the whole pod network.
const maxScrapes = 4

// Probes are the checks behind the kubelet's probes. They depend on nothing outside the process, so that an outage of a
// database or of the member directory never restarts a sidecar.
type Probes struct {
	// Started returns why the sidecar has not started yet, or nil.
	Started func() error
	// Ready returns why the sidecar should get no requests, or nil if it can serve reads, perhaps stale ones.
	Ready func() error
	// Detail returns what is wrong although the sidecar is ready; may be nil.
	Detail func() string
}

// NewHandler serves /metrics, /startupz, /livez and /readyz to GET and HEAD. It does not use g before the sidecar has
// started, because parts of the source do not exist until then.
func NewHandler(g prometheus.Gatherer, p Probes) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", afterStart(p.Started, promhttp.HandlerFor(g, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
		EnableOpenMetrics:   true,
	})))
	mux.Handle("GET /startupz", probe(p.Started, nil))
	mux.Handle("GET /livez", probe(func() error { return nil }, nil))
	mux.Handle("GET /readyz", probe(p.Ready, p.Detail))
	return mux
}

func afterStart(started func() error, next http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := started(); err != nil { //guard:scrape-before-start
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	}
}

func probe(check func() error, detail func() string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		if err := check(); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, err.Error()+"\n")
			return
		}
		_, _ = io.WriteString(w, "ok\n")
		if detail == nil {
			return
		}
		if text := detail(); text != "" {
			_, _ = io.WriteString(w, text+"\n")
		}
	}
}
