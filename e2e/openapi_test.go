package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/e2e/rig"
)

func TestStrangerFindsNothingWrongWithTheOpenAPIDescription(t *testing.T) {
	stranger(t, newCNFMetrics(t, 1)[0], "/openapi.json", "45")
}

func TestStrangerFindsNothingWrongWithTheCNFMetricsDescription(t *testing.T) {
	stranger(t, newCNFMetrics(t, 1)[0], "/cnfmetrics/openapi.json", "25")
}

// stranger is a program that knows nothing but a description, and asks a sidecar whatever it allows, and much that it
// does not. One check is left out, that all the description allows is taken: it cannot say that three conditions exclude
// each other, which columns a table has, or what is a good token.
func stranger(t *testing.T, sidecar *rig.Sidecar, description, seconds string) {
	t.Helper()
	installLanguages(t)
	program, err := filepath.Abs("../.bin/python/bin/schemathesis")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--no-color", "run", "http://"+sidecar.HTTP+description,
		"--checks", "all", "--exclude-checks", "positive_data_acceptance", "--phases", "examples,coverage,fuzzing,stateful",
		"--max-examples", "200", "--max-time", seconds, "--seed", "1", "--generation-database", "none", "--continue-on-failure")
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "FAILURES") {
		t.Errorf("schemathesis: %v\n%s", err, out)
	}
	_, summary, _ := strings.Cut(string(out), "= SUMMARY =")
	t.Log(summary)
	if n := sidecar.Metric("ringside_defects_total"); n != 0 {
		t.Errorf("%v defects", n)
	}
	hits := sidecar.Metric("ringside_requests_total", `dataset="cnf-metrics"`, `result="hit"`)
	written := sidecar.Metric("ringside_writes_total", `dataset="cnf-metrics"`, `result="written"`)
	if hits+written < 10 {
		t.Errorf("%v hits and %v writes: values were hardly ever answered", hits, written)
	}
	t.Logf("%v hits, %v writes", hits, written)
}
