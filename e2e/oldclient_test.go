package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/endpoints"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// oldClient is a running e2e/oldclient.
type oldClient struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Scanner
}

func startOldClient(t *testing.T, etcd string) *oldClient {
	t.Helper()
	path := filepath.Join(t.TempDir(), "oldclient")
	build := exec.Command("go", "build", "-o", path, ".")
	build.Dir = "oldclient"
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the old client: %v\n%s", err, out)
	}
	cmd := exec.Command(path, etcd)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start the old client: %v", err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the old client: %v", err)
		}
	})
	return &oldClient{t: t, in: in, out: bufio.NewScanner(out)}
}

// get returns the gRPC code and the value or the message.
func (o *oldClient) get(group, key string) (code, text string) {
	o.t.Helper()
	if _, err := fmt.Fprintln(o.in, group, key); err != nil {
		o.t.Fatalf("write to the old client: %v", err)
	}
	if !o.out.Scan() {
		o.t.Fatalf("the old client says nothing: %v", o.out.Err())
	}
	code, text, _ = strings.Cut(o.out.Text(), " ")
	return code, text
}

// legacyCluster is a cluster of three that publishes its members for old clients.
func legacyCluster(t *testing.T) *cluster {
	c := newCluster(t, 0)
	c.sidecars = rig.Sidecars(t, 3, strings.Replace(c.config(), "lease_ttl: 2s", "lease_ttl: 2s, legacy_prefix: GroupCache", 1))
	return c
}

// awaitLegacy waits until exactly the given sidecars are where old clients look.
func (c *cluster) awaitLegacy(sidecars ...*rig.Sidecar) {
	c.t.Helper()
	etcd, err := clientv3.New(clientv3.Config{Endpoints: []string{c.etcd.Endpoint()}})
	if err != nil {
		c.t.Fatal(err)
	}
	defer etcd.Close()
	names, err := endpoints.NewManager(etcd, "GroupCache")
	if err != nil {
		c.t.Fatal(err)
	}
	rig.Eventually(c.t, time.Minute, func() error {
		listed, err := names.List(c.t.Context())
		if err != nil || len(listed) != len(sidecars) {
			return fmt.Errorf("%v, %w; want %d endpoints", listed, err, len(sidecars))
		}
		for _, s := range sidecars {
			if listed["GroupCache/"+s.Peer].Addr != s.Peer {
				return fmt.Errorf("%v; want %s", listed, s.Peer)
			}
		}
		return nil
	})
}

func TestOldClientWorksUnchanged(t *testing.T) {
	t.Parallel()
	c := legacyCluster(t)
	c.fill("key-", 100)
	c.awaitLegacy(c.sidecars...)
	old := startOldClient(t, c.etcd.Endpoint())
	for i := range 100 { // of every owner
		key := fmt.Sprint("key-", i)
		status, want, err := c.get(i%3, "cnf-metrics", key)
		if err != nil || status != http.StatusOK {
			t.Fatalf("%s: %d %s %v", key, status, want, err)
		}
		if code, value := old.get("cnf-metrics", key); code != "OK" || value != want {
			t.Errorf("%s: %s %s, want %s", key, code, value, want)
		}
	}
	for _, tt := range []struct{ group, key, code string }{
		{"cnf-metrics", "none", "NotFound"},
		{"none", "key-1", "NotFound"},
		{"cnf-metrics", "", "InvalidArgument"},
		{"cnf-metrics", strings.Repeat("k", 1025), "InvalidArgument"},
		{"cnf-metrics", strings.Repeat("k", 60_000), "InvalidArgument"},
	} {
		if code, text := old.get(tt.group, tt.key); code != tt.code {
			t.Errorf("%s/%.20s: %s %s, want %s", tt.group, tt.key, code, text, tt.code)
		}
	}
	c.database.Kill()
	if code, text := old.get("cnf-metrics", "never-read"); code != "Unavailable" {
		t.Errorf("without the database: %s %s", code, text)
	}
	if code, text := old.get("cnf-metrics", "key-1"); code != "OK" {
		t.Errorf("a cached key without the database: %s %s", code, text)
	}
}

// Members that stop in an orderly way fail no call of an old client. One that dies fails at most the call that it handles.
func TestOldClientSurvivesMembers(t *testing.T) {
	t.Parallel()
	c := legacyCluster(t)
	c.fill("key-", 10)
	c.awaitLegacy(c.sidecars...)
	old := startOldClient(t, c.etcd.Endpoint())
	left := make(chan struct{})
	go func() {
		defer close(left)
		for _, s := range c.sidecars {
			s.Stop()
			s.Start()
		}
	}()
	reads := 0
	for done := false; !done; reads++ {
		select {
		case <-left:
			done = true
		default:
		}
		if code, text := old.get("short-metrics", fmt.Sprint("key-", reads%10)); code != "OK" {
			t.Fatalf("read %d while members stop: %s %s", reads, code, text)
		}
	}
	if reads < 100 {
		t.Errorf("invalid run: only %d reads while members stopped", reads)
	}
	c.awaitLegacy(c.sidecars...)
	for _, s := range c.sidecars[1:] {
		s.Kill()
	}
	c.awaitLegacy(c.sidecars[0])
	rig.Eventually(t, time.Minute, func() error {
		if code, text := old.get("short-metrics", "key-0"); code != "OK" {
			return fmt.Errorf("after two of three were killed: %s %s", code, text)
		}
		return nil
	})
}
