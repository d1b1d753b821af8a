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
)

// upCluster is a cluster of `make up` with files and ports of its own.
type upCluster struct {
	t         *testing.T
	db, state string
	base      int // the first of its ports
}

func newUpCluster(t *testing.T, db string) *upCluster {
	t.Helper()
	if err := buildForUp(); err != nil {
		t.Fatal(err)
	}
	u := &upCluster{t: t, db: db, state: filepath.Join(t.TempDir(), "a cluster"), base: freeBase(t)}
	t.Cleanup(func() { u.run("down") })
	return u
}

// buildForUp is what make up does before its recipe.
var buildForUp = sync.OnceValue(func() error {
	cmd := exec.Command("make", "build", "collector")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make build collector: %w\n%s", err, out)
	}
	return nil
})

// freeBase returns a multiple of 100 whose hundred ports are free: below those that the kernel gives to connections.
func freeBase(t *testing.T) int {
	t.Helper()
	for base := 20000; base < 30000; base += 100 {
		if !anyOf(base, base+100, taken) {
			return base
		}
	}
	t.Fatal("no hundred free ports")
	return 0
}

func anyOf(from, to int, is func(int) bool) bool {
	for i := from; i < to; i++ {
		if is(i) {
			return true
		}
	}
	return false
}

func taken(port int) bool {
	l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return true
	}
	l.Close()
	return false
}

// run is the recipe of make up, make status or make down; err is of its exit code.
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

// pid returns the pid of a process from the table of make status, 0 when it does not run.
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

// readThroughEach wants the row of the machine's CPU from each sidecar.
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

func (u *upCluster) wantNothingLeft(table string) {
	u.t.Helper()
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		if stat, err := os.ReadFile("/proc/" + fields[2] + "/stat"); err == nil && !strings.Contains(string(stat), ") Z ") {
			u.t.Errorf("%s is left: %s", fields[0], stat)
		}
	}
	if anyOf(u.base, u.base+100, taken) {
		u.t.Errorf("a port of %d to %d is still taken", u.base, u.base+99)
	}
	if _, err := os.Stat(u.state); !os.IsNotExist(err) {
		u.t.Errorf("%s is left: %v", u.state, err)
	}
}

func TestUpStatusDown(t *testing.T) {
	for _, db := range []string{"postgres", "mariadb", "sqlite"} {
		t.Run(db, func(t *testing.T) {
			u := newUpCluster(t, db)
			u.must("up")
			u.readThroughEach()
			if out := u.must("up"); !strings.Contains(out, "up already, with DB="+db) {
				t.Errorf("a second make up says:\n%s", out)
			}
			table := u.must("status")
			folder, _ := os.Readlink(filepath.Join(u.state, "database")) // SQLite has none
			u.must("down")
			u.wantNothingLeft(table)
			if _, err := os.Stat(folder); folder != "" && !os.IsNotExist(err) {
				t.Errorf("%s is left: %v", folder, err)
			}
		})
	}
}

func TestDownEndsWhatAKilledGoremanLeaves(t *testing.T) {
	u := newUpCluster(t, "sqlite")
	u.must("up")
	table := u.must("status")
	u.kill(table, "goreman")
	u.kill(table, "sidecar-2")
	rig.Eventually(t, 10*time.Second, func() error {
		table, err := u.run("status")
		if err == nil || u.pid(table, "sidecar-2") != 0 || u.pid(table, "sidecar-1") == 0 {
			return fmt.Errorf("make status after a kill: %v\n%s", err, table)
		}
		return nil
	})
	u.must("down")
	u.wantNothingLeft(table)
}

func TestUpNamesATakenPort(t *testing.T) {
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
		t.Errorf("%s is left: %v", u.state, err)
	}
}

// A folder that make up did not make may hold anything; make down would delete it.
func TestUpLeavesAForeignFolderAlone(t *testing.T) {
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
