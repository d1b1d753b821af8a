package metrics

import (
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// maxScrapes bounds the scrapes that are answered at once: the listener is open to the whole pod network.
const maxScrapes = 4

// Probes are what the kubelet asks. They look at nothing outside of the process, so that an outage of a database or of
// the member directory never restarts a sidecar.
type Probes struct {
	// Started says why the sidecar has not started yet; nil once it has.
	Started func() error
	// Ready says why applications should not be sent here; nil when reads are answered, perhaps stale.
	Ready func() error
}

// NewHandler serves the metrics listener: /metrics, /startupz, /livez and /readyz to GET and HEAD, and nothing else.
// Nothing is read of g before the sidecar has started: until then parts of it are still being made.
func NewHandler(g prometheus.Gatherer, p Probes) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", afterStart(p.Started, promhttp.HandlerFor(g, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
		EnableOpenMetrics:   true,
	})))
	mux.Handle("GET /startupz", probe(p.Started))
	mux.Handle("GET /livez", probe(func() error { return nil }))
	mux.Handle("GET /readyz", probe(p.Ready))
	return mux
}

func afterStart(started func() error, next http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := started(); err != nil { //guard:scrape-reads-still-being-made
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		next.ServeHTTP(w, r)
	}
}

func probe(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		if err := check(); err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, err.Error()+"\n")
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	}
}
