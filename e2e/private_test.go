package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin/sqldb/sqlite/sqlitetest"
)

// sameUser runs commands as one unprivileged user: that of the test, or as root that of the sidecar's image.
func sameUser(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 57072, Gid: 57072}
	}
	return cmd
}

// Another process of the same user, such as one in another container of the pod, cannot read the secrets of the sidecar.
func TestProcessesOfTheSameUserCannotReadTheSidecar(t *testing.T) {
	rig.NeedServers(t)
	dir, err := os.MkdirTemp("", "ringside-private")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil { // t.TempDir is below a folder that only its owner may enter
		t.Fatal(err)
	}
	config := filepath.Join(dir, "ringside.yaml")
	metrics := rig.FreeAddress(t)
	text := fmt.Sprintf("listen: {http: %q, grpc: %q, metrics: %q, admin: %q}\n"+
		"origins: {db: {driver: sqlite, dsn: %q}}\ndatasets: {d: {origin: db, table: t, key: k}}\n",
		rig.FreeAddress(t), rig.FreeAddress(t), metrics, rig.FreeAddress(t), filepath.Join(dir, "rows.db"))
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	sqlitetest.Exec(t, filepath.Join(dir, "rows.db"), "CREATE TABLE t (k TEXT PRIMARY KEY)")
	if err := os.Chmod(filepath.Join(dir, "rows.db"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, debuggable := range []bool{false, true} {
		t.Run(fmt.Sprintf("debuggable=%v", debuggable), func(t *testing.T) {
			var log strings.Builder
			cmd := sameUser(rig.Binary(t), "run", "--config", config, fmt.Sprintf("--debuggable=%v", debuggable))
			cmd.Env, cmd.Stderr, cmd.Dir = append(os.Environ(), "CANARY=secret-of-the-sidecar"), &log, dir
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			t.Cleanup(func() {
				_ = cmd.Process.Kill() // fails if it has exited
				<-ended
				if t.Failed() {
					t.Logf("the sidecar's log:\n%s", &log)
				}
			})
			read := func(file string) (string, error) {
				out, err := sameUser("head", "--bytes=1000000", fmt.Sprintf("/proc/%d/%s", cmd.Process.Pid, file)).CombinedOutput()
				return string(out), err
			}
			rig.Eventually(t, time.Minute, func() error { return respondsOK("http://" + metrics + "/startupz") })
			if n := openFilesOf(t, metrics); n == 0 {
				t.Error("the sidecar does not see its own open files in /proc/self")
			}
			text, err := read("environ")
			if (err == nil) != debuggable || strings.Contains(text, "secret-of-the-sidecar") != debuggable {
				t.Errorf("another process of the user reads the environment: %.100q, %v; want it readable: %v", text, err, debuggable)
			}
			out, err := sameUser("ls", fmt.Sprintf("/proc/%d/fd", cmd.Process.Pid)).CombinedOutput()
			if (err == nil) != debuggable {
				t.Errorf("another process of the user lists the open files: %s, want possible: %v", out, debuggable)
			}
			mem := sameUser("dd", fmt.Sprintf("if=/proc/%d/mem", cmd.Process.Pid), "bs=1", "count=1", "skip=4194304", "of=/dev/null")
			if out, _ := mem.CombinedOutput(); strings.Contains(string(out), "Permission denied") == debuggable {
				t.Errorf("another process of the user opens the memory: %s, want possible: %v", out, debuggable)
			}
		})
	}
}

func respondsOK(url string) error {
	response, err := http.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

var openFilesMetric = regexp.MustCompile(`(?m)^process_open_fds (\d+)`)

// openFilesOf returns the number of open files that a sidecar reports of itself.
func openFilesOf(t *testing.T, metrics string) int {
	t.Helper()
	response, err := http.Get("http://" + metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	match := openFilesMetric.FindSubmatch(text)
	if match == nil {
		return 0
	}
	n, err := strconv.Atoi(string(match[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
