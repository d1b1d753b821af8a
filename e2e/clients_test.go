package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// buildClients builds the programs of deploy/examples that do what applications do, with the strict settings of each language.
func buildClients(t *testing.T) []example {
	t.Helper()
	installLanguages(t)
	const root, gson = "../deploy/examples/", "/usr/share/java/gson.jar"
	dir := t.TempDir()
	bin, err := filepath.Abs("../.bin")
	if err != nil {
		t.Fatal(err)
	}
	python := filepath.Join(bin, "python", "bin", "python")
	var all sync.WaitGroup
	for _, command := range [][]string{
		{"go", "build", "-o", dir + "/go", root + "go/client"},
		{"go", "vet", root + "go/client"},
		{"javac", "-Xlint:all", "-Werror", "-cp", gson, "-d", dir, root + "java/Client.java"},
		{"cc", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion", "-Werror", "-o", dir + "/c", root + "c/client.c", "-lcurl", "-lcjson"},
		{"env", "RUSTFLAGS=-D warnings", "CARGO_TARGET_DIR=" + bin + "/rust", "cargo", "build", "--quiet", "--locked", "--offline",
			"--manifest-path", root + "rust/Cargo.toml"},
		{"node", "--check", root + "javascript/client.mjs"},
		{python, "-W", "error", "-c", "import ast, sys; ast.parse(open(sys.argv[1]).read())", root + "python/client.py"},
	} {
		all.Go(func() {
			if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", strings.Join(command, " "), err, out)
			}
		})
	}
	if all.Wait(); t.Failed() {
		t.FailNow()
	}
	return []example{
		{"go", []string{dir + "/go"}, nil},
		{"python", []string{python, "-W", "error", root + "python/client.py"}, nil},
		{"javascript", []string{"node", root + "javascript/client.mjs"}, nil},
		{"java", []string{"java", "-cp", dir + ":" + gson, "Client"}, nil},
		{"rust", []string{bin + "/rust/debug/client"}, nil},
		{"c", []string{dir + "/c"}, nil},
	}
}

// output is what a program has written so far.
type output struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// await waits until the program has written a line with that beginning and that text.
func (o *output) await(t *testing.T, what, begins, contains string) {
	t.Helper()
	rig.Eventually(t, time.Minute, func() error {
		for line := range strings.Lines(o.String()) {
			if strings.HasPrefix(line, begins) && strings.Contains(line, contains) {
				return nil
			}
		}
		return fmt.Errorf("%s: no line begins with %q and contains %q yet:\n%s", what, begins, contains, o)
	})
}

// started is an example that runs.
type started struct {
	out, err *output
	wait     func() error
}

func (e example) start(t *testing.T, s *rig.Sidecar, args ...string) started {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), e.command[0], append(e.command[1:len(e.command):len(e.command)], args...)...)
	cmd.Env = append(os.Environ(), "RINGSIDE_HTTP=http://"+s.HTTP)
	r := started{&output{}, &output{}, cmd.Wait}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = r.out, r.err, time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return r
}

// want runs the example to its end, and checks each line of its output: how it begins, and what it contains after an asterisk.
func (e example) want(t *testing.T, s *rig.Sidecar, args string, lines ...string) {
	t.Helper()
	r := e.start(t, s, strings.Split(args, " ")...)
	if err := r.wait(); err != nil {
		t.Errorf("%s %s: %v\n%s%s", e.name, args, err, r.out, r.err)
		return
	}
	got := strings.Split(strings.TrimSpace(r.out.String()), "\n")
	for i, line := range lines {
		begins, contains, _ := strings.Cut(line, "*")
		if len(got) != len(lines) || !strings.HasPrefix(got[i], begins) || !strings.Contains(got[i], contains) {
			t.Errorf("%s %s: got %q, want %q", e.name, args, got, lines)
			return
		}
	}
}

// Each program runs in each state that an application meets: fresh, stale, not found, unavailable and back, a condition that fails, a
// batch of which a part fails, and a watch of which the sidecar restarts.
func TestClientsDoWhatApplicationsDo(t *testing.T) {
	t.Parallel()
	all := buildClients(t)
	database := rig.NewPostgres(t)
	c := &cluster{t: t, database: database}
	c.open()
	c.exec(`CREATE TABLE rows (id text PRIMARY KEY, value text, ver bigint NOT NULL DEFAULT 1)`)
	for _, e := range all {
		c.exec(`INSERT INTO rows (id, value) VALUES ($1, 'first'), ($1 || ' late', 'back')`, e.name)
	}
	s := rig.NewSidecar(t, "alone", fmt.Sprintf(`
origins: {db: {driver: postgres, dsn: %q}}
datasets:
  rows: {origin: db, table: rows, key: id, version: ver, ttl: 1h, load_timeout: 5s, write_timeout: 5s, writable: true}
  short: {origin: db, table: rows, key: id, version: ver, ttl: 100ms, load_timeout: 5s, stale_if_error: 1h}
`, database.DSN))
	s.Start()
	put := func(key, value string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.URL("rows", key), strings.NewReader(`{"value": "`+value+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if body, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("put %s: %s %s %v", key, response.Status, body, err)
		}
	}
	watches := map[string]started{}
	for _, e := range all {
		e.want(t, s, "get rows "+e.name, `value: {*"first"`)
		e.want(t, s, "get rows none", "not found")
		e.want(t, s, "batch rows "+e.name+"  none", e.name+`: value: {*"first"`, ": error invalid-key", "none: not found")
		e.want(t, s, "replace rows "+e.name+` {"value":"second"}`, "written, version 2")
		e.want(t, s, "replace rows "+e.name+` {"value":"third"} "wrong"`, "condition failed")
		e.want(t, s, "get short "+e.name, `value: {*"second"`)
		watches[e.name] = e.start(t, s, "watch", "rows", e.name)
	}
	for _, e := range all {
		w := watches[e.name]
		w.out.await(t, e.name, e.name+": value: ", `"second"`)
		w.out.await(t, e.name, "current", "")
		put(e.name, "changed")
		w.out.await(t, e.name, e.name+": value: ", `"changed"`)
	}
	s.Stop()
	for _, e := range all {
		watches[e.name].err.await(t, e.name, "", "resuming")
	}
	s.Start()
	for _, e := range all {
		put(e.name, "after the restart")
		watches[e.name].out.await(t, e.name, e.name+": value: ", `"after the restart"`)
		e.want(t, s, "get short "+e.name, `value: {*"after the restart"`)
	}

	database.Kill()
	var reads []started
	for _, e := range all {
		e.want(t, s, "get short "+e.name, `stale, * s old: {`)
		reads = append(reads, e.start(t, s, "get", "rows", e.name+" late"))
	}
	for i, e := range all {
		reads[i].err.await(t, e.name, "unavailable, trying again in ", "1")
	}
	database.Start()
	for i, e := range all {
		if err := reads[i].wait(); err != nil || !strings.HasPrefix(reads[i].out.String(), "value: {") || !strings.Contains(reads[i].out.String(), `"back"`) {
			t.Errorf("%s: got %v %q %q, want the value after the outage", e.name, err, reads[i].out, reads[i].err)
		}
	}
}
