package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/e2e/rig"
)

var block = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// Every block of README.md that is marked sh is run as it stands, one after the other, in one shell that starts in the
// repository, as a reader would.
func TestReadmeCommandsAreTrue(t *testing.T) {
	rig.NeedServers(t)
	text, err := os.ReadFile(filepath.Join("..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	script := "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"
	blocks := block.FindAllStringSubmatch(string(text), -1)
	for _, b := range blocks {
		script += b[1]
	}
	if len(blocks) == 0 {
		t.Fatal("README.md has no commands")
	}
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"HTTP/1.1 200 OK", `"cnf_id":"CNF-001"`, "reason:", "ringside_requests_total"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the output lacks %q:\n%s", want, out)
		}
	}
}
