package sidecar

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/sidecar/config"
)

// statusOf sends a request, with a token unless that is empty, and returns the status of the response.
func statusOf(t *testing.T, method, url, body, token string) int {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		q.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || strings.Contains(string(text), canary) {
		t.Errorf("%s %s: %v, %s", method, url, err, text)
	}
	return resp.StatusCode
}

// The rules of the configuration apply to the whole sidecar, also to the typed service, and a reload changes them at once.
func TestAccessIsEnforcedAndReloaded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	token, log := filepath.Join(dir, "token"), filepath.Join(dir, "audit.log")
	write(t, token, canary+"\n")
	more := "cnf_metrics: metrics\ntokens: {deploy: {file: " + token + "}}\naudit: {file: " + log + "}\n"
	file := newFile(t, more)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	with := func(lines string) string {
		return strings.Replace(string(good), "    key: cnf_id\n", "    key: cnf_id\n    "+lines+"\n", 1)
	}
	write(t, file, with("allow: {read: [\"token:deploy\"], invalidate: []}\n    limits: {no_cache: 1/h}"))
	r := begin(t, load(t, file), nil)
	url := "http://" + r.at.HTTP
	for _, tt := range []struct {
		method, path, body, token string
		want                      int
	}{
		{"GET", row, "", "", 401}, {"GET", row, "", "x", 401}, {"GET", row, "", canary, 200},
		{"GET", "/cnfmetrics/v1/metrics/CNF-001", "", "", 401}, {"GET", "/cnfmetrics/v1/metrics", "", "", 401},
		{"POST", "/v1/metrics:invalidate", `{"all": true}`, canary, 403},
	} {
		if got := statusOf(t, tt.method, url+tt.path, tt.body, tt.token); got != tt.want {
			t.Errorf("%s %s with token %q: got %d, want %d", tt.method, tt.path, tt.token, got, tt.want)
		}
	}
	reload := func(text string) {
		r.parts.reloader.reload(func() (config.Config, error) { return r.config.Source().Parse([]byte(text)) })
	}
	reload(with("allow: {read: [nobody]}"))
	if got := statusOf(t, "GET", url+row, "", ""); got != 401 {
		t.Errorf("after a rejected reload: got %d, want 401", got)
	}
	reload(with("allow: {read: [loopback]}"))
	if got := statusOf(t, "GET", url+row, "", ""); got != 200 {
		t.Errorf("after a reload: got %d, want 200", got)
	}
	if got := statusOf(t, "POST", url+"/v1/metrics:invalidate", `{"keys": ["CNF-001"]}`, ""); got != 200 {
		t.Errorf("an invalidation after a reload: got %d, want 200", got)
	}
	_, metrics := get(r.at.Metrics, "/metrics")
	for _, want := range []string{
		`ringside_denied_total{dataset="metrics",reason="read"} 5`, `ringside_denied_total{dataset="metrics",reason="invalidate"} 1`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
	r.end(t)
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(text), "\n"); got != 5+1+2+1 {
		t.Errorf("the audit log has %d lines, want 9:\n%s", got, text)
	}
	for _, want := range []string{
		`"action":"access","result":"unauthenticated","caller":"loopback"`, `"action":"reload","result":"rejected"`,
		`"action":"reload","result":"ok"`, `"action":"invalidate","result":"ok","caller":"loopback"`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the audit log has no %s:\n%s", want, text)
		}
	}
	if strings.Contains(string(text), canary) {
		t.Errorf("the audit log has the token:\n%s", text)
	}
}
