package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/e2e/rig/proc"
)

// upCluster is a cluster of `make up` with its own files and ports.
type upCluster struct {
	t         *testing.T
	db, state string
	base      int // the first of its 100 ports
}

func newUpCluster(t *testing.T, db string) *upCluster {
	t.Helper()
	rig.NeedServers(t)
	if err := buildForUp(); err != nil {
		t.Fatal(err)
	}
	u := &upCluster{t: t, db: db, state: filepath.Join(t.TempDir(), "a cluster"), base: rig.FreePorts(t)}
	t.Cleanup(func() { u.run("down") })
	return u
}

// buildForUp builds the prerequisites of make up.
var buildForUp = sync.OnceValue(func() error {
	cmd := exec.Command("make", "build", "collector")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make build collector: %w\n%s", err, out)
	}
	return nil
})

// run runs the script of make up, make status or make down. err is not nil if the script fails.
func (u *upCluster) run(target string) (out string, err error) {
	u.t.Helper()
	cmd := exec.Command("deploy/processes/cluster.sh", target)
	cmd.Dir, cmd.Env = "..", append(os.Environ(), "DB="+u.db, "STATE="+u.state, fmt.Sprint("BASE_PORT=", u.base))
	b, err := cmd.CombinedOutput()
	return string(b), err
}

func (u *upCluster) must(target string) (out string) {
	u.t.Helper()
	out, err := u.run(target)
	if err != nil {
		u.t.Fatalf("make %s: %v\n%s", target, err, out)
	}
	return out
}

// pid returns the pid of a process from the output of make status, or 0 if it does not run.
func (u *upCluster) pid(table, name string) int {
	u.t.Helper()
	for line := range strings.Lines(table) {
		if fields := strings.Fields(line); len(fields) > 3 && fields[0] == name {
			pid, _ := strconv.Atoi(fields[2]) // "-" is 0
			return pid
		}
	}
	u.t.Fatalf("no %s in:\n%s", name, table)
	return 0
}

func (u *upCluster) kill(table, name string) {
	u.t.Helper()
	if err := syscall.Kill(u.pid(table, name), syscall.SIGKILL); err != nil {
		u.t.Fatalf("kill %s: %v", name, err)
	}
}

// readThroughEach reads the row of the machine's CPU through each sidecar.
func (u *upCluster) readThroughEach() {
	u.t.Helper()
	for i := range 3 {
		response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/v1/cnf-metrics/CNF-001", u.base+70+10*i))
		if err != nil {
			u.t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || !strings.Contains(string(body), `"metric_type":"cpu.total"`) {
			u.t.Errorf("sidecar-%d: %s %s %v", i+1, response.Status, body, err)
		}
	}
}

// processes returns the processes in the output of make status.
func (u *upCluster) processes(table string) map[string]proc.Process {
	found := map[string]proc.Process{}
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		if pid, err := strconv.Atoi(fields[2]); err == nil {
			found[fields[0]] = proc.Of(pid)
		}
	}
	return found
}

func (u *upCluster) wantNothingLeft(before map[string]proc.Process) {
	u.t.Helper()
	if len(before) == 0 {
		u.t.Error("make status shows no process")
	}
	for name, process := range before {
		if process.Runs() {
			u.t.Errorf("%s still runs: %+v", name, process)
		}
	}
	rig.Eventually(u.t, time.Minute, func() error { // the threads of a killed process close its files one after the other
		for port := u.base; port < u.base+100; port++ {
			if !rig.PortFree(port) {
				return fmt.Errorf("port %d is still in use", port)
			}
		}
		return nil
	})
	if _, err := os.Stat(u.state); !os.IsNotExist(err) {
		u.t.Errorf("%s was not removed: %v", u.state, err)
	}
}

func TestUpStatusDown(t *testing.T) {
	t.Parallel()
	for _, db := range []string{"postgres", "mysql", "mariadb", "sqlite"} {
		t.Run(db, func(t *testing.T) {
			t.Parallel()
			u := newUpCluster(t, db)
			u.must("up")
			u.readThroughEach()
			if out := u.must("up"); !strings.Contains(out, "up already, with DB="+db) {
				t.Errorf("the output of a second make up:\n%s", out)
			}
			running := u.processes(u.must("status"))
			folder, _ := os.Readlink(filepath.Join(u.state, "database")) // SQLite has none
			u.must("down")
			u.wantNothingLeft(running)
			if _, err := os.Stat(folder); folder != "" && !os.IsNotExist(err) {
				t.Errorf("%s was not removed: %v", folder, err)
			}
		})
	}
}

func TestDownStopsTheProcessesOfAKilledGoreman(t *testing.T) {
	t.Parallel()
	u := newUpCluster(t, "sqlite")
	u.must("up")
	table := u.must("status")
	running := u.processes(table)
	u.kill(table, "goreman")
	u.kill(table, "sidecar-2")
	rig.Eventually(t, time.Minute, func() error {
		table, err := u.run("status")
		if err == nil || u.pid(table, "sidecar-2") != 0 || u.pid(table, "sidecar-1") == 0 {
			return fmt.Errorf("make status after a kill: %v\n%s", err, table)
		}
		return nil
	})
	u.must("down")
	u.wantNothingLeft(running)
}

func TestUpNamesThePortInUse(t *testing.T) {
	t.Parallel()
	u := newUpCluster(t, "sqlite")
	l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", u.base+80))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	out, err := u.run("up")
	if err == nil || !strings.Contains(out, fmt.Sprint("port ", u.base+80, ", of sidecar-2, is taken")) {
		t.Errorf("make up: %v\n%s", err, out)
	}
	if _, err := os.Stat(u.state); !os.IsNotExist(err) {
		t.Errorf("%s was not removed: %v", u.state, err)
	}
}

// make down would delete all files in a folder that make up did not create.
func TestUpRejectsAForeignFolder(t *testing.T) {
	t.Parallel()
	u := newUpCluster(t, "sqlite")
	if err := os.Mkdir(u.state, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"up", "down"} {
		if out, err := u.run(target); err == nil || !strings.Contains(out, "is not a cluster's") {
			t.Errorf("make %s: %v\n%s", target, err, out)
		}
	}
	if _, err := os.Stat(u.state); err != nil {
		t.Error(err)
	}
}
