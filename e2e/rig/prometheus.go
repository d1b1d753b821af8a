package rig

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Prometheus starts a Prometheus that scrapes the targets (host:port) as the job "ringside" once a second, and evaluates
// the rule files (absolute paths) at the same rate. It returns its host:port.
func Prometheus(t testing.TB, rules, targets []string) (address string) {
	t.Helper()
	config, err := json.Marshal(map[string]any{ // JSON is YAML
		"global":     map[string]string{"scrape_interval": "1s", "evaluation_interval": "1s"},
		"rule_files": rules,
		"scrape_configs": []any{map[string]any{
			"job_name": "ringside", "static_configs": []any{map[string]any{"targets": targets}},
		}},
	})
	if err != nil {
		t.Fatalf("rig: %v", err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatalf("rig: %v", err)
	}
	address = FreeAddress(t)
	run(t, &process{
		t: t, name: "prometheus", path: Program(t, "prometheus"), dir: dir, quit: syscall.SIGTERM,
		args: []string{"--config.file", file, "--storage.tsdb.path", filepath.Join(dir, "data"),
			"--web.listen-address", address, "--enable-feature=exemplar-storage"},
		ready: func(int) error {
			_, err := fetch(fmt.Sprintf("http://%s/-/ready", address))
			return err
		},
	})
	return address
}
