package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/e2e/rig"
)

func TestOpenAPIDescriptionIsRight(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	c.exec(`INSERT INTO cnf_metrics (cnf_id, value) VALUES ('CNF-001', 1)`) // the example of the document
	schemathesis(t, c.sidecars[0], "/openapi.json")
}

func TestOpenAPIDescriptionOfWritesIsRight(t *testing.T) {
	t.Parallel()
	sidecar := newCNFMetrics(t, 1)[0]
	schemathesis(t, sidecar, "/openapi.json")
	if n := sidecar.Metric("ringside_writes_total", `dataset="cnf-metrics"`, `result="written"`); n < 1 {
		t.Error("nothing was written")
	}
}

func TestOpenAPIDescriptionOfCNFMetricsIsRight(t *testing.T) {
	t.Parallel()
	schemathesis(t, newCNFMetrics(t, 1)[0], "/cnfmetrics/openapi.json")
}

// schemathesis generates requests that an OpenAPI description allows, and many that it does not, and compares the responses with
// the description. The check that the sidecar accepts all allowed requests is off: a description cannot express that three
// conditions exclude each other, which columns a table has, or which token is valid.
func schemathesis(t *testing.T, sidecar *rig.Sidecar, description string) {
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
		t.Error("no read was answered from memory")
	}
}
