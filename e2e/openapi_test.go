package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/e2e/rig"
)

func TestStrangerFindsNothingWrongWithTheOpenAPIDescription(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	c.exec(`INSERT INTO cnf_metrics (cnf_id, value) VALUES ('CNF-001', 1)`) // the example of the document
	stranger(t, c.sidecars[0], "/openapi.json")
}

func TestStrangerWhoWritesFindsNothingWrong(t *testing.T) {
	t.Parallel()
	sidecar := newCNFMetrics(t, 1)[0]
	stranger(t, sidecar, "/openapi.json")
	if n := sidecar.Metric("ringside_writes_total", `dataset="cnf-metrics"`, `result="written"`); n < 1 {
		t.Error("nothing was written")
	}
}

func TestStrangerFindsNothingWrongWithTheCNFMetricsDescription(t *testing.T) {
	t.Parallel()
	stranger(t, newCNFMetrics(t, 1)[0], "/cnfmetrics/openapi.json")
}

// stranger is a program that knows nothing but a description, and asks a sidecar whatever it allows, and much that it
// does not. One check is left out, that all the description allows is taken: it cannot say that three conditions exclude
// each other, which columns a table has, or what is a good token.
func stranger(t *testing.T, sidecar *rig.Sidecar, description string) {
	t.Helper()
	installLanguages(t)
	program, err := filepath.Abs("../.bin/python/bin/schemathesis")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--no-color", "run", "http://"+sidecar.HTTP+description,
		"--checks", "all", "--exclude-checks", "positive_data_acceptance", "--phases", "examples,coverage,fuzzing,stateful",
		"--max-examples", "200", "--max-time", "25", "--seed", "1", "--generation-database", "none", "--continue-on-failure")
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "FAILURES") {
		t.Errorf("schemathesis: %v\n%s", err, out)
	}
	_, summary, _ := strings.Cut(string(out), "= SUMMARY =")
	t.Log(summary)
	if n := sidecar.Metric("ringside_internal_errors_total"); n != 0 {
		t.Errorf("%v defects", n)
	}
	if n := sidecar.Metric("ringside_requests_total", `dataset="cnf-metrics"`, `result="hit"`); n < 1 {
		t.Error("no value was ever answered from memory")
	}
}
