package sidecar

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin/sqldb/sqlite/sqlitetest"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

const warmAll = "warm: {keys: all, wait: 1h}"

// warmFile is newFile with a warm-up and another database.
func warmFile(t *testing.T, database string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ringside.yaml")
	write(t, path, withField(strings.Replace(oneDataset, "test.db", database, 1), warmAll)+allPortsFree)
	return path
}

func TestReadinessWaitsForTheFirstWarmUp(t *testing.T) {
	t.Parallel()
	path := newOrigin(t)
	unlock := sqlitetest.Lock(t, path)
	r := begin(t, load(t, warmFile(t, path)), nil)
	wantGet(t, r.at.Metrics, "/readyz", 503, "warming up: the keys of these datasets are being loaded: metrics")
	wantGet(t, r.at.Metrics, "/startupz", 200, "ok")
	unlock()
	waitFor(t, func() bool { status, _ := get(r.at.Metrics, "/readyz"); return status == 200 })
	wantGet(t, r.at.HTTP, row, 200, rowJSON)
	wantGet(t, r.at.Metrics, "/metrics", 200, `ringside_requests_total{dataset="metrics",result="hit"} 1`)
	wantGet(t, r.at.Metrics, "/metrics", 200, `ringside_warm_keys{dataset="metrics"} 1`)

	missing := begin(t, load(t, warmFile(t, filepath.Join(t.TempDir(), "missing", "origin.db"))), nil)
	waitFor(t, func() bool { status, _ := get(missing.at.Metrics, "/readyz"); return status == 200 })
	wantGet(t, missing.at.Metrics, "/metrics", 200, `ringside_warm_passes_total{dataset="metrics",result="ok"} 0`)
}

func TestReloadOfTheWarmUp(t *testing.T) {
	t.Parallel()
	file := newFile(t, "")
	r := begin(t, load(t, file), nil)
	good := read(t, file)
	warm := func(d *cache.Dataset) bool {
		return d != nil && d.Work().Enabled() && d.Stats().WarmKeys.Load() == 1 && d.Memory().Entries == 1
	}
	const another = "datasets:\n  other: {origin: db, table: cnf_metrics, key: [cnf_id, value], " +
		"warm: {keys: 'SELECT cnf_id, value FROM cnf_metrics', pin: true}}\n"
	r.reloaded(t, strings.Replace(withField(good, warmAll), "datasets:\n", another, 1))
	metrics, other := r.parts.datasets.Lookup("metrics"), r.parts.datasets.Lookup("other")
	waitFor(t, func() bool { return warm(metrics) && warm(other) && other.Memory().Pinned > 0 })
	wantGet(t, r.at.HTTP, "/v1/other/CNF-001/1.5", 200, rowJSON)
	wantGet(t, r.at.Metrics, "/metrics", 200, `ringside_requests_total{dataset="other",result="hit"} 1`)

	r.reloaded(t, withField(good, "writable: true\n    "+warmAll)) // it has another cache.Dataset, with the same entries
	if changed := r.parts.datasets.Lookup("metrics"); changed == metrics {
		t.Error("the dataset was not replaced")
	}
	waitFor(t, func() bool {
		return !other.Work().Enabled() && warm(r.dataset()) && r.dataset().Stats().WarmPasses.Load() == 2
	})

	r.reloaded(t, good)
	waitFor(t, func() bool { return !r.dataset().Work().Enabled() && r.dataset().Stats().WarmKeys.Load() == 0 })
}
