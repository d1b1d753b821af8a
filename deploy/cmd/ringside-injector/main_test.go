package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/ringside-cache/ringside/deploy/inject"
)

func write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const template = "image: registry.example/ringside:1.2.3"

func TestRender(t *testing.T) {
	const pod = "{apiVersion: v1, kind: Pod, metadata: {name: app%s}, spec: {containers: [{name: app, image: 'app:1'}]}}"
	asks := strings.Replace(pod, "%s", `, annotations: {ringside.dev/inject: "true", ringside.dev/image: x}`, 1)
	silent := strings.Replace(pod, "%s", "", 1)
	tests := []struct {
		name, stdin    string
		args           []string
		code           int
		stdout, stderr string
	}{
		{"a pod that asks", asks, nil, 0, "image: registry.example/ringside:1.2.3",
			"warning: Pod app: ringside: annotation ringside.dev/image: unknown"},
		{"a pod that does not", silent, nil, 0, "image: app:1", ""},
		{"a namespace that asks", silent, []string{"--namespace-asks"}, 0, "name: ringside-config", ""},
		{"a refusal", strings.Replace(asks, `"true"`, `"yes"`, 1), nil, 1, "",
			`Pod app would be rejected: annotation ringside.dev/inject: "yes": want "true" or "false"`},
		{"no pod", "{kind: Service}", nil, 1, "", "found no pod"},
		{"nothing", "# nothing\n---\n", nil, 1, "", "found no pod"},
		{"no YAML", "{", nil, 1, "", "decode document 1"},
		{"a field twice", "{kind: Pod, kind: Pod}", nil, 1, "", "decode document 1"},
		{"no template", silent, []string{"--template", "/none"}, 1, "", "read the template: open /none"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			args := append([]string{"render", "--template", write(t, "template.yaml", template)}, test.args...)
			code := run(t.Context(), args, strings.NewReader(test.stdin), &stdout, &stderr)
			if code != test.code || !strings.Contains(stdout.String(), test.stdout) ||
				!strings.Contains(stderr.String(), test.stderr) {
				t.Errorf("exit code %d\n%s\n%s", code, &stdout, &stderr)
			}
			if test.stderr == "" && stderr.Len() > 0 {
				t.Errorf("said %s", &stderr)
			}
		})
	}
}

// Every object with a pod template gets the sidecar that its pods will get, and nothing else changes.
func TestRenderOfObjectsWithPods(t *testing.T) {
	const template = `{metadata: {labels: {app: a}}, spec: {containers: [{name: app, image: "app:1"}], activeDeadlineSeconds: 9007199254740993}}`
	const service = "apiVersion: v1\nkind: Service\nmetadata:\n  name: unchanged\n"
	for _, test := range []struct {
		stdin string
		pods  int
	}{
		{"kind: Deployment\nmetadata: {name: app}\nspec: {template: " + template + "}", 1},
		{"kind: CronJob\nmetadata: {name: app}\nspec: {jobTemplate: {spec: {template: " + template + "}}}", 1},
		{"kind: PodTemplate\nmetadata: {name: app}\ntemplate: " + template, 1},
		{"kind: Rollout\nmetadata: {name: app}\nspec: {template: " + template + "}", 1},
		{"kind: List\nitems: [{kind: Service}, {kind: DaemonSet, spec: {template: " + template + "}}, {kind: Job, spec: {template: " + template + "}}]", 2},
		{"kind: StatefulSet\nspec: {template: " + template + "}\n---\n# a comment\n--- {kind: Pod, spec: {containers: [{name: app}]}}\n", 2},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), []string{"render", "--namespace-asks"}, strings.NewReader(service+"---\n"+test.stdin), &stdout, &stderr)
		text := stdout.String()
		if code != 0 || strings.Count(text, "image: ghcr.io/ringside-cache/ringside:") != test.pods {
			t.Errorf("%s\nexit code %d, %s; want %d sidecars in\n%s", test.stdin, code, &stderr, test.pods, text)
		}
		if !strings.HasPrefix(text, service+"---\n") || strings.Count(text, "9007199254740993") != strings.Count(test.stdin, "9007199254740993") {
			t.Errorf("%s\nhas become\n%s", test.stdin, text)
		}
		if strings.Contains(text, "kind: Pod\n") && !strings.Contains(test.stdin, "kind: Pod,") {
			t.Errorf("a template has become a pod:\n%s", text)
		}
	}
}

func FuzzRender(f *testing.F) {
	f.Add([]byte("kind: List\nitems: [{kind: Job, spec: {template: {spec: {containers: [{name: a}]}}}}]\n--- {kind: Pod}\n"))
	template, err := inject.ParseTemplate(inject.DefaultTemplate)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r := renderer{template: template, asker: inject.Namespace, warn: func(string) {}}
		rendered, err := r.documents(text)
		if err != nil {
			return
		}
		again := renderer{template: template, asker: inject.Namespace, warn: func(string) {}}
		if twice, err := again.documents(rendered); err != nil || !bytes.Equal(twice, rendered) {
			t.Errorf("%q\nbecomes\n%s\nand then (%v)\n%s", text, rendered, err, twice)
		}
	})
}

// logs is written by the server and read by the test.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
	line chan struct{}
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer func() { l.line <- struct{}{} }()
	return l.text.Write(b)
}

var listening = regexp.MustCompile(`"address":"(127\.0\.0\.1:\d+)"`)

// addresses waits until both listeners have logged their addresses.
func (l *logs) addresses() (webhook, metrics string) {
	for {
		<-l.line
		l.mu.Lock()
		found := listening.FindAllStringSubmatch(l.text.String(), -1)
		l.mu.Unlock()
		if len(found) == 2 {
			return found[0][1], found[1][1]
		}
	}
}

func TestServe(t *testing.T) {
	dir, roots := certificateDir(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	log, done := &logs{line: make(chan struct{}, 100)}, make(chan int)
	go func() {
		done <- run(ctx, []string{
			"serve", "--template", write(t, "template.yaml", template), "--cert-dir", dir,
			"--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--drain", "0s",
		}, nil, io.Discard, log)
	}()
	webhook, metrics := log.addresses()
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "example.com"},
	}}
	defer client.CloseIdleConnections()

	answer := body(t)(client.Post("https://"+webhook+"/inject/namespace", "application/json",
		strings.NewReader(`{"request": {"uid": "1", "kind": {"kind": "Pod"}, "object": {}}}`)))
	if !strings.Contains(answer, `"patchType":"JSONPatch"`) {
		t.Errorf("answer %s", answer)
	}
	for path, want := range map[string]string{
		"/livez": "", "/readyz": "", "/metrics": `ringside_injector_reviews_total{result="injected"} 1`,
	} {
		if got := body(t)(client.Get("http://" + metrics + path)); !strings.Contains(got, want) {
			t.Errorf("%s: %s", path, got)
		}
	}
	cancel(errors.New("terminated signal received")) // the cause set by signal.NotifyContext
	if code := <-done; code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func body(t *testing.T) func(*http.Response, error) string {
	return func(response *http.Response, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", response.Status, text, err)
		}
		return string(text)
	}
}

// certificateDir writes the certificate of net/http/httptest, which is valid for example.com.
func certificateDir(t *testing.T) (string, *x509.CertPool) {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	defer server.Close()
	pair := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, "tls.key": {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return dir, roots
}

func TestServeRejectsInvalidOptions(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"no template", []string{"--template", "/none"}, "read the template"},
		{"no host", []string{"--namespace", "x"}, "--namespace, and --service or --host, are required"},
		{"an authority without files", []string{"--publish-ca"}, "--publish-ca requires --cert-dir"},
		{"an address that is taken", []string{
			"--cert-dir", "/none", "--listen", "127.0.0.1:0", "--metrics", busy.Addr().String(),
		}, "address already in use"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var stderr bytes.Buffer
			args := append([]string{"serve", "--template", write(t, "template.yaml", template)}, test.args...)
			code := run(t.Context(), args, nil, io.Discard, &stderr)
			if code != 1 || !strings.Contains(stderr.String(), test.want) {
				t.Errorf("exit code %d: %s", code, &stderr)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	var stdout bytes.Buffer
	if code := run(t.Context(), []string{"version"}, nil, &stdout, io.Discard); code != 0 ||
		!strings.HasPrefix(stdout.String(), "ringside-injector ") {
		t.Errorf("%d %s", code, &stdout)
	}
}
