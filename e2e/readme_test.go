package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

func shellBlocks(t *testing.T, page string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", page))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, b := range shellBlock.FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, b[1])
	}
	if len(blocks) == 0 {
		t.Fatalf("%s has no block marked sh", page)
	}
	return blocks
}

// Every block marked sh of these pages runs unchanged, in one shell per page. The shell starts in the repository with the
// first block of README.md, which starts a sidecar.
func TestDocumentedCommandsWork(t *testing.T) {
	readme := shellBlocks(t, "README.md")
	for _, page := range []struct {
		path   string
		blocks []string
		want   []string // in the output
	}{
		{"README.md", readme[1:], []string{
			"HTTP/1.1 200 OK", `"cnf_id":"CNF-001"`, "reason:", "ringside_requests_total", "DATASET",
		}},
		{"sidecar/local/API.md", shellBlocks(t, "sidecar/local/API.md"), []string{
			"Ringside-Version: ", "event: current", `"members":1`, `"metrics":[`,
		}},
		{"sidecar/config/CONFIG.md", shellBlocks(t, "sidecar/config/CONFIG.md"), []string{"CREATE TRIGGER", "ok, 1 origin, 1 dataset"}},
		{"deploy/OPERATIONS.md", shellBlocks(t, "deploy/OPERATIONS.md"), []string{"route key", "MEMBER", "\nok\n"}},
	} {
		t.Run(page.path, func(t *testing.T) {
			script := "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n" +
				readme[0] + strings.Join(page.blocks, "")
			cmd := exec.Command("bash", "-c", script)
			cmd.Dir = ".."
			cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			for _, want := range page.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("the output lacks %q:\n%s", want, out)
				}
			}
		})
	}
}
