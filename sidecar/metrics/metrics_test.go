package metrics_test

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/metrics"
)

var update = flag.Bool("update", false, "write METRICS.md")

func newDataset(t *testing.T, name string) *cache.Dataset {
	t.Helper()
	policy := kv.DefaultPolicy()
	policy.GapTTL = time.Second // it has a change feed
	d, err := cache.New(cache.Config{
		Name: name, Policy: policy, MaxBytes: 1 << 20,
		Origin: origintest.New(map[string]string{"10.0.0.0/8": "eth0"}),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// fullSource has every optional part, with different numbers.
func fullSource(t *testing.T) metrics.Source {
	routes := newDataset(t, "routes")
	if _, err := routes.Get(t.Context(), "10.0.0.0/8", kv.ReadOptions{}); err != nil {
		t.Fatal(err)
	}
	stats := routes.Stats() // the read was one load
	for !stats.LoadTime.Any() {
		time.Sleep(time.Millisecond) // a load is counted after its readers have the value
	}
	stats.Hit.Add(11)
	stats.LocalHit.Add(12)
	stats.PeerHit.Add(13)
	stats.Load.Add(13)
	stats.Stale.Add(15)
	stats.Negative.Add(16)
	stats.Error.Add(17)
	stats.DataError.Add(171)
	for cause := range stats.DataErrors {
		stats.DataErrors[cause].Add(int64(172 + cause))
	}
	stats.Queries.Add(18)
	stats.BatchDropped.Add(102)
	stats.PeerFetchTime.Observe(20 * time.Microsecond)
	stats.Written.Add(101)
	stats.Conflicts.Add(102)
	stats.WritesUnknown.Add(103)
	stats.WriteErrors.Add(104)
	stats.WritesRefused.Add(108)
	stats.WritesServed.Add(105)
	stats.Invalidations.Add(106)
	stats.CopiesExpired.Add(107)
	stats.BoundsEvicted.Add(108)
	stats.FeedGaps.Add(109)
	stats.WriteTime.Observe(20 * time.Microsecond)
	stats.ReadTime[kv.ResultLocalHit].ObserveN(300*time.Nanosecond, kv.SampledHits)
	http := &kv.Histogram{}
	http.Observe(time.Millisecond)
	http.Observe(time.Minute)
	return metrics.Source{
		Version:  "v1.2.3",
		Revision: "abc",
		Protocols: []metrics.Protocol{{Name: "http", Duration: http, Load: func() metrics.ProtocolLoad {
			return metrics.ProtocolLoad{Conns: 61, MaxConns: 62, AcceptErrors: 119, Refused: map[string]int64{"host": 63}}
		}}},
		Configured: func() metrics.Configured {
			return metrics.Configured{
				Datasets: []*cache.Dataset{routes},
				ChangeFeeds: []metrics.ChangeFeed{{
					Dataset: "routes", Reading: func() bool { return true },
					Log: func() metrics.ChangeLog {
						return metrics.ChangeLog{Rows: 118001, MaxRows: 118002, PruneFailed: true, WAL: 118003, MaxWAL: 118004}
					},
				}},
				Origins: []metrics.Origin{{Name: "db", Load: func() metrics.OriginLoad {
					return metrics.OriginLoad{InFlight: 31, MaxInFlight: 32, Queued: 33, MaxQueued: 34, Refused: 35, BreakerOpen: true,
						QueueTimeouts: 37}
				}}},
			}
		},
		Ring: func() metrics.Ring {
			return metrics.Ring{ID: "00ff", Members: 41, Unlisted: 38, Changes: 39, Unreachable: 40, Refused: 115, OtherSettings: 127, Off: true, NotReached: 128, Role: "member", Promotions: 133}
		},
		Peers: func() metrics.Peers {
			return metrics.Peers{
				Conns: 42, MaxConns: 43, BreakersOpen: 44, BreakersOpened: 116, MaxCalls: 45, Unreachable: 46, Refused: 47, PingTimeouts: 48,
				Disagreements: 49, Subscriptions: 91, Published: 92, Received: 93, Gaps: 94, BroadcastFailures: 95, Merged: 130,
			}
		},
		PeerListener: func() metrics.PeerListener {
			return metrics.PeerListener{
				Conns: 81, MaxConns: 82, ConnsRefused: 83, AcceptErrors: 120, InFlight: 84, MaxInFlight: 85, FetchesRefused: 86,
				Writing: 96, MaxWriting: 97, WritesRefused: 98, Disagreements: 117,
				Subscribers: 87, MaxSubscribers: 88, SubscribersRefused: 89, SlowSubscribersClosed: 90,
				InvalidationsMerged: 131, InvalidationsRefused: 132, Clients: 134, MaxClients: 135, ClientsRefused: 136,
			}
		},
		Listeners: []metrics.Listener{{Name: "admin", Load: func() metrics.ListenerLoad {
			return metrics.ListenerLoad{Conns: 111, MaxConns: 112, ConnsRefused: 113, AcceptErrors: 121}
		}}},
		PeerTLS: func() metrics.PeerTLS {
			return metrics.PeerTLS{
				ReloadFailures: 114, LastFailed: true, Expires: time.Unix(117, 0), Lifetime: 119 * time.Second, Rejected: map[string]int64{"expired": 118},
			}
		},
		Directory: func() metrics.Directory {
			return metrics.Directory{
				Registered: true, Connected: true, Members: 51, Registrations: 52, Lists: 53, WatchRestarts: 54,
				InvalidRecords: map[string]int64{"malformed": 55}, ContactAge: 1500 * time.Millisecond,
			}
		},
		Budget: func() []metrics.BudgetUse {
			return []metrics.BudgetUse{{Use: "requests", Bytes: 122, Limit: 123, Refusals: 124}}
		},
		Local: func() metrics.Local {
			return metrics.Local{BatchTruncated: 66, InternalErrors: 67,
				Watches: 68, MaxWatches: 69, WatchesRefused: 70, SlowWatchersClosed: 73, WatchEvents: 118,
				WatchedSets: 218, MaxWatchedSets: 219, WatchedSetKeys: 220, SetsRefused: 221, SetResets: 222}
		},
		XDS: func() metrics.XDS {
			return metrics.XDS{Clients: 76, MaxClients: 77, Endpoints: 78, Updates: 79, NACKs: 80, ClientsRefused: 110}
		},
		Access: func() []metrics.Access {
			return []metrics.Access{{
				Dataset: "routes", Denied: map[string]int64{"write": 131}, Limited: map[string]int64{"no_cache": 132}}}
		},
		Audit: func() metrics.Audit { return metrics.Audit{Written: 133, Dropped: 134} },
		OTLP: func() metrics.OTLP {
			return metrics.OTLP{Points: map[string]int64{"written": 140}, Superseded: 141, Memory: 142, MaxMemory: 143, Refused: 144}
		},
		Traces: func() metrics.Traces {
			return metrics.Traces{Exported: 135, Failed: 136, Dropped: 137, Waiting: 138, MaxWaiting: 139}
		},
		LogLinesDropped: func() int64 { return 140 },
		Reloads:         func() metrics.Reloads { return metrics.Reloads{OK: 71, Failed: 72, LastFailed: true} },
	}
}

func gather(t *testing.T, s metrics.Source) map[string]*dto.MetricFamily {
	t.Helper()
	r, err := metrics.NewGatherer(s)
	if err != nil {
		t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	byName := make(map[string]*dto.MetricFamily, len(families))
	for _, f := range families {
		byName[f.GetName()] = f
	}
	return byName
}

func TestMetricsPassPromlint(t *testing.T) {
	r, err := metrics.NewGatherer(fullSource(t))
	if err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.GatherAndLint(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestValuesReachTheirMetric(t *testing.T) {
	text := scrape(t, fullSource(t))
	for _, want := range []string{
		`ringside_requests_total{dataset="routes",result="hit"} 11`,
		`ringside_requests_total{dataset="routes",result="local_hit"} 12`,
		`ringside_requests_total{dataset="routes",result="peer_hit"} 13`,
		`ringside_requests_total{dataset="routes",result="load"} 14`,
		`ringside_requests_total{dataset="routes",result="stale"} 15`,
		`ringside_requests_total{dataset="routes",result="negative"} 16`,
		`ringside_requests_total{dataset="routes",result="error"} 17`,
		`ringside_requests_total{dataset="routes",result="data_error"} 171`,
		`ringside_data_errors_total{dataset="routes",reason="several-rows"} 173`,
		`ringside_data_errors_total{dataset="routes",reason="too-large"} 174`,
		`ringside_data_errors_total{dataset="routes",reason="invalid-version"} 175`,
		`ringside_data_errors_total{dataset="routes",reason="invalid-expiry"} 176`,
		`ringside_data_errors_total{dataset="routes",reason="unknown"} 177`,
		`ringside_origin_queries_total{dataset="routes"} 18`,
		`ringside_writes_total{dataset="routes",result="written"} 101`,
		`ringside_writes_total{dataset="routes",result="conflict"} 102`,
		`ringside_writes_total{dataset="routes",result="unknown"} 103`,
		`ringside_writes_total{dataset="routes",result="error"} 104`,
		`ringside_writes_total{dataset="routes",result="refused"} 108`,
		`ringside_writes_served_total{dataset="routes"} 105`,
		`ringside_invalidations_total{dataset="routes"} 106`,
		`ringside_copies_expired_total{dataset="routes"} 107`,
		`ringside_read_bounds_evicted_total{dataset="routes"} 108`,
		`ringside_read_bounds{dataset="routes"} 0`,
		`ringside_max_read_bounds{dataset="routes"} 4096`,
		`ringside_change_feed_gaps_total{dataset="routes"} 109`,
		`ringside_change_feed_gap{dataset="routes"} 1`,
		`ringside_change_feed_reading{dataset="routes"} 1`,
		`ringside_change_log_rows{dataset="routes"} 118001`,
		`ringside_change_log_max_rows{dataset="routes"} 118002`,
		`ringside_change_log_prune_failed{dataset="routes"} 1`,
		`ringside_change_slot_bytes{dataset="routes"} 118003`,
		`ringside_change_slot_max_bytes{dataset="routes"} 118004`,
		`ringside_loads_total{dataset="routes"} 1`,
		`ringside_entries{dataset="routes"} 1`,
		`ringside_memory_max_bytes{dataset="routes"} 1.048576e+06`,
		`ringside_evictions_total{dataset="routes"} 0`,
		`ringside_loads_in_flight{dataset="routes"} 0`,
		`ringside_max_in_flight{dataset="routes"} 10000`,
		`ringside_origin_in_flight{origin="db"} 31`,
		`ringside_origin_max_in_flight{origin="db"} 32`,
		`ringside_origin_queued{origin="db"} 33`,
		`ringside_origin_max_queued{origin="db"} 34`,
		`ringside_origin_refused_total{origin="db"} 35`,
		`ringside_origin_breaker_open{origin="db"} 1`,
		`ringside_origin_queue_timeouts_total{origin="db"} 37`,
		`ringside_ring_members 41`,
		`ringside_ring_unlisted_members 38`,
		`ringside_ring_changes_total 39`,
		`ringside_ring_unreachable_members_total 40`,
		`ringside_peer_breakers_opened_total 116`,
		`ringside_served_ring_disagreements_total 117`,
		`ringside_watch_events_total 118`,
		`ringside_ring_refused_members_total 115`,
		`ringside_member_role{role="member"} 1`,
		`ringside_member_promotions_total 133`,
		`ringside_ring_clients 134`,
		`ringside_ring_max_clients 135`,
		`ringside_ring_clients_refused_total 136`,
		`ringside_ring_other_settings_members 127`,
		`ringside_ring_off 1`,
		`ringside_ring_not_reached_members 128`,
		`ringside_ring_info{ring_id="00ff"} 1`,
		`ringside_peer_connections 42`,
		`ringside_peer_max_connections 43`,
		`ringside_peer_breakers_open 44`,
		`ringside_peer_max_calls 45`,
		`ringside_peer_unreachable_total 46`,
		`ringside_peer_refused_total 47`,
		`ringside_peer_ping_timeouts_total 48`,
		`ringside_ring_disagreements_total 49`,
		`ringside_subscriptions 91`,
		`ringside_invalidations_published_total 92`,
		`ringside_invalidations_received_total 93`,
		`ringside_subscription_gaps_total 94`,
		`ringside_broadcast_failures_total 95`,
		`ringside_served_writes_in_flight 96`,
		`ringside_served_writes_max_in_flight 97`,
		`ringside_served_writes_refused_total 98`,
		`ringside_subscribers 87`,
		`ringside_max_subscribers 88`,
		`ringside_subscribers_refused_total 89`,
		`ringside_slow_subscribers_closed_total 90`,
		`ringside_peer_listener_connections 81`,
		`ringside_peer_listener_max_connections 82`,
		`ringside_peer_listener_refused_connections_total 83`,
		`ringside_served_in_flight 84`,
		`ringside_served_max_in_flight 85`,
		`ringside_served_refused_total 86`,
		`ringside_directory_connected 1`,
		`ringside_directory_registered 1`,
		`ringside_directory_members 51`,
		`ringside_directory_registrations_total 52`,
		`ringside_directory_lists_total 53`,
		`ringside_directory_watch_restarts_total 54`,
		`ringside_directory_invalid_records_total{reason="malformed"} 55`,
		`ringside_directory_contact_age_seconds 1.5`,
		`ringside_connections{protocol="http"} 61`,
		`ringside_max_connections{protocol="http"} 62`,
		`ringside_listener_refused_total{reason="host"} 63`,
		`ringside_batch_truncated_total 66`,
		`ringside_batch_values_dropped_total{dataset="routes"} 102`,
		`ringside_internal_errors_total 67`,
		`ringside_watches 68`,
		`ringside_max_watches 69`,
		`ringside_watches_refused_total 70`,
		`ringside_slow_watchers_closed_total 73`,
		`ringside_denied_total{dataset="routes",reason="write"} 131`,
		`ringside_rate_limited_total{dataset="routes",reason="no_cache"} 132`,
		`ringside_audit_lines_total 133`,
		`ringside_audit_dropped_total 134`,
		`ringside_config_reloads_total{result="ok"} 71`,
		`ringside_config_reloads_total{result="error"} 72`,
		`ringside_config_last_reload_failed 1`,
		`ringside_listener_connections{listener="admin"} 111`,
		`ringside_listener_max_connections{listener="admin"} 112`,
		`ringside_listener_refused_connections_total{listener="admin"} 113`,
		`ringside_accept_errors_total 360`,
		`ringside_budget_bytes{use="requests"} 122`,
		`ringside_budget_limit_bytes{use="requests"} 123`,
		`ringside_budget_refused_total{use="requests"} 124`,
		`ringside_peer_tls_reload_failures_total 114`,
		`ringside_peer_tls_last_reload_failed 1`,
		`ringside_peer_tls_certificate_expiry_timestamp_seconds 117`,
		`ringside_peer_tls_certificate_lifetime_seconds 119`,
		`ringside_peer_tls_rejected_total{reason="expired"} 118`,
		`ringside_build_info{revision="abc",version="v1.2.3"} 1`,
		`ringside_request_duration_seconds_bucket{protocol="http",le="0.001"} 1`,
		`ringside_request_duration_seconds_bucket{protocol="http",le="10"} 1`,
		`ringside_request_duration_seconds_bucket{protocol="http",le="+Inf"} 2`,
		`ringside_load_duration_seconds_count{dataset="routes"} 1`,
		`ringside_write_duration_seconds_bucket{dataset="routes",le="0.0001220703125"} 1`,
		`ringside_peer_fetch_duration_seconds_bucket{dataset="routes",le="0.0001220703125"} 1`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("the scrape lacks %s", want)
		}
	}
}

func TestMissingPartsHaveNoMetric(t *testing.T) {
	for name := range gather(t, metrics.Source{}) {
		ours := strings.HasPrefix(name, "ringside_")
		if ours && name != "ringside_build_info" {
			t.Errorf("%s is exported without a source", name)
		}
	}
}

// TestLabelsAreAFixedSet keeps keys, addresses and error texts out of labels.
func TestLabelsAreAFixedSet(t *testing.T) {
	allowed := []string{"dataset", "protocol", "result", "origin", "reason", "listener", "use", "ring_id", "role", "version", "revision", "zone"}
	for name, f := range gather(t, fullSource(t)) {
		if !strings.HasPrefix(name, "ringside_") {
			continue
		}
		for _, l := range f.GetMetric()[0].GetLabel() {
			if !slices.Contains(allowed, l.GetName()) {
				t.Errorf("%s has label %q", name, l.GetName())
			}
		}
	}
}

func TestInvalidSourcesAreRejected(t *testing.T) {
	many := make([]*cache.Dataset, metrics.MaxLabelValues+1)
	for i := range many {
		many[i] = newDataset(t, fmt.Sprint(i))
	}
	a := newDataset(t, "a")
	of := func(c metrics.Configured) metrics.Source {
		return metrics.Source{Configured: func() metrics.Configured { return c }}
	}
	for name, s := range map[string]metrics.Source{
		"too many datasets":  of(metrics.Configured{Datasets: many}),
		"one dataset twice":  of(metrics.Configured{Datasets: []*cache.Dataset{a, a}}),
		"name is not UTF-8":  of(metrics.Configured{Datasets: []*cache.Dataset{newDataset(t, "\xff")}}),
		"one origin twice":   of(metrics.Configured{Origins: []metrics.Origin{{Name: "a"}, {Name: "a"}}}),
		"protocol not UTF-8": {Protocols: []metrics.Protocol{{Name: "\xff"}}},
	} {
		if _, err := metrics.NewGatherer(s); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func scrape(t *testing.T, s metrics.Source) string {
	t.Helper()
	r, err := metrics.NewGatherer(s)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	started := metrics.Probes{Started: func() error { return nil }}
	metrics.NewHandler(r, started).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("GET /metrics = %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestHandlerServesOnlyMetricsAndProbes(t *testing.T) {
	r, err := metrics.NewGatherer(fullSource(t))
	if err != nil {
		t.Fatal(err)
	}
	h := metrics.NewHandler(r, metrics.Probes{
		Started: func() error { return nil },
		Ready:   func() error { return errors.New("leaving") },
	})
	for _, c := range []struct {
		method, path string
		code         int
		body         string
	}{
		{"GET", "/startupz", 200, "ok\n"},
		{"HEAD", "/startupz", 200, "ok\n"},
		{"GET", "/livez", 200, "ok\n"},
		{"GET", "/readyz", 503, "leaving\n"},
		{"POST", "/metrics", 405, ""},
		{"PUT", "/livez", 405, ""},
		{"GET", "/", 404, ""},
		{"GET", "/metrics/", 404, ""},
		{"GET", "/debug/pprof/", 404, ""},
		{"GET", "/v1/routes/a", 404, ""},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		body, err := io.ReadAll(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		if w.Code != c.code || (c.body != "" && string(body) != c.body) {
			t.Errorf("%s %s = %d %q, want %d %q", c.method, c.path, w.Code, body, c.code, c.body)
		}
	}
}

// During startup, parts of the source do not exist yet.
func TestScrapeBeforeStartReadsNothing(t *testing.T) {
	source := prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) { panic("read") })
	w := httptest.NewRecorder()
	starting := metrics.Probes{Started: func() error { return errors.New("starting") }}
	metrics.NewHandler(source, starting).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("GET /metrics = %d, want 503", w.Code)
	}
}

func TestFullSourceIsFull(t *testing.T) {
	v := reflect.ValueOf(fullSource(t))
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("Source.%s is not set: METRICS.md would lack its metrics", v.Type().Field(i).Name)
		}
	}
}

// TestDocumentListsEveryMetric compares METRICS.md with the exported metrics. `make generate` writes it.
func TestDocumentListsEveryMetric(t *testing.T) {
	want := document(gather(t, fullSource(t)))
	if *update {
		if err := os.WriteFile("METRICS.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("METRICS.md is out of date: run make generate")
	}
}

// documentHead has tildes in place of backquotes.
const documentHead = `# Metrics

~/metrics~ exports these, and of the Go runtime and the process those that the dashboards use: %s.
Counters start at 0 when the sidecar starts. A part that a sidecar does not have has no series: for example, there is no member
directory if the configuration lists the members. Nor has a histogram that has counted nothing, or a refusal that has not occurred
(~ringside_denied_total~, ~ringside_rate_limited_total~). The number of series is in [INSTALL.md](../../deploy/INSTALL.md#cost).

The main figure is the number of origin queries per request:

~~~promql
sum by (dataset) (rate(ringside_origin_queries_total[5m]))
  / sum by (dataset) (rate(ringside_requests_total[5m]))
~~~

~result~ of ~ringside_requests_total~ is one of ~hit~ (fresh, in memory, loaded by this sidecar),
~local_hit~ (fresh, a local copy), ~peer_hit~ (from the owner's memory), ~load~ (loaded from the origin, here or by the
owner), ~stale~, ~negative~ (the key does not exist), ~data_error~ (its rows cannot be a value) and ~error~. ~result~ of ~ringside_writes_total~ is one of ~written~
(committed), ~conflict~ (the condition of the write was not met), ~refused~ (invalid: a value or key that the table does
not accept), ~unknown~ (the write may or may not have been applied) and ~error~ (nothing was written). No label ever has
keys as values. A label has at most %d values.

The histograms of loads, writes, peer fetches, reads and ages have native buckets, each a fifth above the one before, for a
Prometheus with ~scrape_native_histograms: true~; set ~always_scrape_classic_histograms: true~ with it, because the rules of
[deploy/prometheus](../../deploy/prometheus) use the others. ~ringside_request_duration_seconds~ has the others only: it counts each
request, hits included. ~ringside_read_duration_seconds~ and ~ringside_answer_age_seconds~ measure one hit in 64, chosen by the
clock, so that a hit costs no more.

| metric | type | labels | meaning |
|---|---|---|---|
`

func document(families map[string]*dto.MetricFamily) string {
	var names, others []string
	for name := range families {
		if strings.HasPrefix(name, "ringside_") {
			names = append(names, name)
		} else {
			others = append(others, "`"+name+"`")
		}
	}
	slices.Sort(names)
	slices.Sort(others)
	var b strings.Builder
	fmt.Fprintf(&b, strings.ReplaceAll(documentHead, "~", "`"), strings.Join(others, ", "), metrics.MaxLabelValues)
	for _, name := range names {
		f := families[name]
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, "`"+l.GetName()+"`")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n",
			name, strings.ToLower(f.GetType().String()), strings.Join(labels, ", "), f.GetHelp())
	}
	return b.String()
}

// Prometheus asks for protobuf if it wants native histograms.
func TestHistogramsHaveBothForms(t *testing.T) {
	s := fullSource(t)
	registry, err := metrics.NewGatherer(s)
	if err != nil {
		t.Fatal(err)
	}
	request := httptest.NewRequest("GET", "/metrics", nil)
	request.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	w := httptest.NewRecorder()
	ready := func() error { return nil }
	metrics.NewHandler(registry, metrics.Probes{Started: ready, Ready: ready}).ServeHTTP(w, request)
	decoder := expfmt.NewDecoder(w.Body, expfmt.ResponseFormat(w.Header()))
	for {
		var family dto.MetricFamily
		if err := decoder.Decode(&family); err != nil {
			t.Fatalf("ringside_read_duration_seconds is not found: %v", err)
		}
		if family.GetName() != "ringside_read_duration_seconds" {
			continue
		}
		for _, m := range family.GetMetric() {
			if h := m.GetHistogram(); labelOf(m, "result") == "local_hit" {
				native := int64(0)
				for _, n := range h.GetPositiveDelta() {
					native += n
				}
				if h.GetSchema() != kv.DistributionSchema || native != kv.SampledHits || h.GetSampleCount() != kv.SampledHits {
					t.Errorf("native: got %v", h)
				}
				if b := h.GetBucket(); len(b) != 14 || b[0].GetCumulativeCount() != 0 || b[1].GetCumulativeCount() != kv.SampledHits {
					t.Errorf("classic: got %v, want 300 ns in the second bucket", h.GetBucket())
				}
				break
			}
		}
		break
	}
	if text := scrape(t, s); !strings.Contains(text, `ringside_read_duration_seconds_bucket{dataset="routes",result="local_hit",le="9.5367431640625e-07"} 64`) {
		t.Errorf("the text has no classic buckets of the read:\n%.2000s", text)
	}
}

func labelOf(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}
