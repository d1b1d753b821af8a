package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// example is one of deploy/examples, ready to run.
type example struct {
	name    string
	command []string
	env     []string
}

// installLanguages runs e2e/languages.sh, which does nothing if everything is installed.
func installLanguages(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("./languages.sh").CombinedOutput(); err != nil {
		t.Fatalf("e2e/languages.sh: %v\n%s", err, out)
	}
}

// examples returns the examples, copied out of the repository as a developer would copy them.
func examples(t *testing.T) []example {
	t.Helper()
	installLanguages(t)
	const root = "../deploy/examples/"
	bin, err := filepath.Abs("../.bin")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run(t, "go", "build", "-o", dir, "../deploy/examples/go")
	run(t, "cp", root+"python/example.py", root+"javascript/example.mjs", root+"shell/example.sh", dir)
	run(t, "cp", "-r", "../proto", filepath.Join(dir, "proto"))
	run(t, "ln", "-s", filepath.Join(bin, "node", "node_modules"), dir)
	generate := exec.Command(root+"python/generate.sh", filepath.Join(dir, "proto"), dir)
	generate.Env = append(os.Environ(), "PATH="+filepath.Join(bin, "python", "bin")+":"+os.Getenv("PATH"))
	if out, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("generate the Python stubs: %v\n%s", err, out)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	return []example{
		{"go", []string{in("go")}, nil},
		{"python", []string{filepath.Join(bin, "python", "bin", "python"), in("example.py")}, nil},
		{"javascript", []string{"node", in("example.mjs")}, []string{"RINGSIDE_PROTO=" + in("proto")}},
		{"shell", []string{in("example.sh")}, []string{"PATH=" + bin + ":" + os.Getenv("PATH")}},
	}
}

func run(t *testing.T, command ...string) {
	t.Helper()
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
}

// read runs the example and returns its output for each protocol.
func (e example) read(t *testing.T, s *rig.Sidecar, dataset, key string) map[string]string {
	t.Helper()
	cmd := exec.Command(e.command[0], append(e.command[1:], dataset, key)...)
	cmd.Env = append(append(os.Environ(), "RINGSIDE_HTTP=http://"+s.HTTP, "RINGSIDE_GRPC="+s.GRPC, "RINGSIDE_UNIX="+s.Unix),
		e.env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", e.command, err, out)
	}
	output := map[string]string{}
	for line := range strings.Lines(string(out)) {
		protocol, text, _ := strings.Cut(strings.TrimSpace(line), ": ")
		output[protocol] = text
	}
	return output
}

// Each example handles each state that a client must handle.
func TestExamplesHandleEveryState(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	c.fill("key-", 1)
	all := examples(t)
	_, row, err := c.get(0, "short-metrics", "key-0") // of the same table as cnf-metrics, whose rows do not become stale meanwhile
	if err != nil {
		t.Fatal(err)
	}
	check := func(state, dataset, key string, ok func(text string) bool) {
		t.Helper()
		for _, e := range all {
			output := e.read(t, c.sidecars[0], dataset, key)
			for _, protocol := range []string{"http", "grpc", "unix"} {
				if !ok(output[protocol]) {
					t.Errorf("%s over %s, %s: %q", e.name, protocol, state, output[protocol])
				}
			}
		}
	}
	check("found", "cnf-metrics", "key-0", func(text string) bool { return text == row })
	check("not found", "short-metrics", "none", func(text string) bool { return text == "not found" })
	c.database.Kill()
	awaitStale(t, c, "key-0")
	check("stale", "short-metrics", "key-0", func(text string) bool {
		return strings.HasPrefix(text, "stale, ") && strings.HasSuffix(text, " s old: "+row)
	})
	check("unavailable", "short-metrics", "never-read", func(text string) bool { return strings.HasPrefix(text, "unavailable") })
	for _, protocol := range []string{"http", "grpc", "unix"} {
		if text := all[0].read(t, c.sidecars[0], "short-metrics", "never-read")[protocol]; text != "unavailable, try again in 1 s" {
			t.Errorf("over %s: got %q, want the time of the next attempt", protocol, text)
		}
	}
}

func awaitStale(t *testing.T, c *cluster, key string) {
	t.Helper()
	rig.Eventually(t, time.Minute, func() error {
		response, err := c.client.Get(c.sidecars[0].URL("short-metrics", key))
		if err != nil {
			return err
		}
		defer response.Body.Close()
		_, err = io.Copy(io.Discard, response.Body)
		if response.StatusCode != http.StatusOK || response.Header.Get("Ringside-Stale") != "true" {
			return fmt.Errorf("%s is not stale yet: %s %w", key, response.Status, err)
		}
		return nil
	})
}
