package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A program that knows nothing but openapi.json asks a sidecar whatever the document allows, and much that it does not.
func TestStrangerFindsNothingWrongWithTheOpenAPIDescription(t *testing.T) {
	installLanguages(t)
	c := newCluster(t, 1)
	c.exec(`INSERT INTO cnf_metrics (cnf_id, value) VALUES ('CNF-001', 1)`) // the example of the document
	program, err := filepath.Abs("../.bin/python/bin/schemathesis")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--no-color", "run", "http://"+c.sidecars[0].HTTP+"/openapi.json",
		"--checks", "all", "--phases", "examples,coverage,fuzzing,stateful", "--max-examples", "200", "--max-time", "25",
		"--seed", "1", "--generation-database", "none", "--continue-on-failure")
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No issues found") {
		t.Errorf("schemathesis: %v\n%s", err, out)
	}
	_, summary, _ := strings.Cut(string(out), "= SUMMARY =")
	t.Log(summary)
	if n := c.sidecars[0].Metric("ringside_defects_total"); n != 0 {
		t.Errorf("%v defects", n)
	}
	if n := c.sidecars[0].Metric("ringside_requests_total", `dataset="cnf-metrics"`, `result="hit"`); n < 10 {
		t.Errorf("%v hits: values were hardly ever answered", n)
	}
}
