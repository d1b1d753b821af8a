package sidecar

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"sync/atomic"
	"testing"
)

// Reads of a service over HTTP: its values are renewed without a body, and served stale while it is down, as far as it permits that.
func TestReadsOfAService(t *testing.T) {
	t.Parallel()
	var down atomic.Bool
	var renewals atomic.Int64
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("ETag", `"1"`)
		switch {
		case down.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.URL.Path == "/things/none":
			w.WriteHeader(http.StatusNotFound)
		case r.URL.Path == "/things/strict":
			w.Header().Set("Cache-Control", "no-store")
			_, _ = w.Write([]byte("2"))
		case r.Header.Get("If-None-Match") == `"1"`:
			renewals.Add(1)
			w.WriteHeader(http.StatusNotModified)
		default:
			_, _ = w.Write([]byte(`{"a":1}`))
		}
	}))
	t.Cleanup(service.Close)
	path := filepath.Join(t.TempDir(), "ringside.yaml")
	write(t, path, fmt.Sprintf(`
origins: {service: {driver: http, dsn: %q}}
datasets: {things: {origin: service, url: "/things/{key}", ttl: 1ms, local_ttl: 0s, load_timeout: 30s, verify_rate: 0}}
`, service.URL)+allPortsFree)
	r := begin(t, load(t, path), nil)
	waitFor(t, func() bool { // each read after the end of the ttl is a load
		wantGet(t, r.at.HTTP, "/v1/things/a", 200, `{"a":1}`)
		return renewals.Load() > 0
	})
	wantGet(t, r.at.HTTP, "/v1/things/none", 404, "")
	wantGet(t, r.at.HTTP, "/v1/things/strict", 200, "2")
	wantGet(t, r.at.HTTP, "/v1/things/a%5Cb", 400, "invalid-key")
	down.Store(true)
	isStale := regexp.MustCompile(`ringside_requests_total{dataset="things",result="stale"} [1-9]`)
	waitFor(t, func() bool {
		wantGet(t, r.at.HTTP, "/v1/things/a", 200, `{"a":1}`)
		_, metrics := get(r.at.Metrics, "/metrics")
		return isStale.MatchString(metrics)
	})
	wantGet(t, r.at.HTTP, "/v1/things/strict", 503, "")
	wantGet(t, r.at.HTTP, "/v1/things/unread", 503, "")
	wantGet(t, r.at.Admin, "/api/explain?dataset=things&key=a", 200, "service")
	wantGet(t, r.at.Metrics, "/metrics", 200, `ringside_origin_queries_total{dataset="things"`)
}
