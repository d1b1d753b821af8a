package sidecar

import (
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
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

// Clients on the peer listener have the permissions of their certificates. The audit log has who was rejected.
func TestCertificatesHavePermissions(t *testing.T) {
	t.Parallel()
	ca := peertest.NewAuthority(t)
	files := peertest.WriteFiles(t, ca.Issue(t, peertest.AsMember("m")), ca.PEM())
	log := filepath.Join(t.TempDir(), "audit.log")
	file := newFile(t, "node: {id: m}\naudit: {file: "+log+"}\n")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const allow = `allow: {read: ["spiffe://example.org/ringside/default/client/a", "spiffe://example.org/ringside/default/client/team/*"],
      write: ["spiffe://example.org/ringside/default/client/team/b"]}`
	write(t, file, strings.NewReplacer(
		"    key: cnf_id\n", "    key: cnf_id\n    writable: true\n    "+allow+"\n",
		"peer_tls: {insecure: true}", "peer_tls: {cert_file: "+files.CertFile+", key_file: "+files.KeyFile+", ca_file: "+files.CAFile+"}",
		"listen: {", "listen: {peer: 127.0.0.1:0, ",
	).Replace(string(text)))
	c := load(t, file)
	r := begin(t, c, nil)
	try := func(certificates ...tls.Certificate) (read, changed int) {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{
			Certificates: certificates, InsecureSkipVerify: true, // the test is about the certificate of the client
		}}}
		defer client.CloseIdleConnections()
		send := func(method, body string) int {
			q, err := http.NewRequestWithContext(t.Context(), method, "https://"+r.at.Peer+row, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(q)
			if err != nil {
				return 0
			}
			_ = resp.Body.Close()
			return resp.StatusCode
		}
		return send("GET", ""), send("PUT", `{"value": 2.5}`)
	}
	for name, want := range map[string][2]int{"a": {200, 403}, "ab": {403, 403}, "team/b": {200, 200}, "team/c": {200, 403}, "team": {403, 403}} {
		if read, changed := try(ca.Issue(t, peertest.AsClient(name)).Parse(t)); read != want[0] || changed != want[1] {
			t.Errorf("client %s: GET %d, PUT %d, want %v", name, read, changed, want)
		}
	}
	if read, _ := try(); read != 0 {
		t.Errorf("without a certificate: GET %d", read)
	}
	if read, _ := try(peertest.NewAuthority(t).Issue(t, peertest.AsClient("a")).Parse(t)); read != 0 {
		t.Errorf("with a certificate of another authority: GET %d", read)
	}
	r.end(t)
	lines, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"action":"handshake","result":"no_certificate","caller":"`, `"action":"handshake","result":"untrusted"`,
		`"action":"put","result":"ok","caller":"client:spiffe://example.org/ringside/default/client/team/b","address":"127.0.0.1:`,
		`"action":"access","result":"permission-denied","caller":"client:spiffe://example.org/ringside/default/client/ab"`,
	} {
		if !strings.Contains(string(lines), want) {
			t.Errorf("the audit log has no %s:\n%s", want, lines)
		}
	}
}
