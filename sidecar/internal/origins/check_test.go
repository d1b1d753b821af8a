package origins

import (
	"errors"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin/drivers"
	"github.com/ringside-cache/ringside/origin/sqldb/sqlite/sqlitetest"
	"github.com/ringside-cache/ringside/sidecar/config"
)

const oneDataset = `
origins:
  db: {driver: sqlite, dsn: test.db}
datasets:
  metrics:
    origin: db
    table: cnf_metrics
    key: cnf_id
`

// newDatabase creates a SQLite database with one row and returns its path.
func newDatabase(t *testing.T) string {
	t.Helper()
	return sqlitetest.New(t, `CREATE TABLE cnf_metrics (cnf_id TEXT PRIMARY KEY, value REAL);
		INSERT INTO cnf_metrics VALUES ('CNF-001', 1.5)`)
}

func noVariables(string) (string, bool) { return "", false }

func TestContradictionsOfTheDatabaseHaveAPlace(t *testing.T) {
	text := strings.Replace(oneDataset, "test.db", newDatabase(t), 1) + "    version: nover\n    columns: [cnf_id, nocol]\n"
	getenv := func(name string) (string, bool) { return "nokey", name == "RINGSIDE_DATASETS_METRICS_KEY" }
	c, err := config.Source{File: "ringside.yaml", Getenv: getenv, Drivers: drivers.All()}.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	err = Check(t.Context(), c, drivers.All())
	for _, want := range []string{
		"RINGSIDE_DATASETS_METRICS_KEY: datasets.metrics.key: there is no column \"nokey\": it has cnf_id, value",
		"ringside.yaml:9:14: datasets.metrics.version: there is no column \"nover\"",
		"ringside.yaml:10:14: datasets.metrics.columns: there is no column \"nocol\"",
	} {
		if _, ok := errors.AsType[*config.Error](err); !ok || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

func TestFailedConnectionIsReportedOnce(t *testing.T) {
	const dsn = "postgres://nobody@127.0.0.1:1/none" // nothing listens on port 1 (tcpmux)
	text := strings.Replace(strings.Replace(oneDataset, "test.db", dsn, 1), "sqlite", "postgres", 1) + "cnf_metrics: metrics\n"
	c, err := config.Source{File: "ringside.yaml", Getenv: noVariables, Drivers: drivers.All()}.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	err = Check(t.Context(), c, drivers.All())
	if err == nil || strings.Count(err.Error(), "refused") != 1 {
		t.Errorf("got %v, want the refused connection once", err)
	}
}

func TestMissingColumnsOfMetricsDoNotRepeatOtherFaults(t *testing.T) {
	text := strings.Replace(oneDataset, "test.db", newDatabase(t), 1) + "    version: nover\ncnf_metrics: metrics\n"
	c, err := config.Source{File: "ringside.yaml", Getenv: noVariables, Drivers: drivers.All()}.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	err = Check(t.Context(), c, drivers.All())
	for _, want := range []string{"datasets.metrics.version: there is no column", `cnf_metrics: there is no column "unit"`, "nover\": it"} {
		if err == nil || strings.Count(err.Error(), want) != 1 {
			t.Errorf("got %v, want %q in it once", err, want)
		}
	}
}
