package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// idleConns is the number of idle connections to each listener.
const idleConns = 200

// D2: with a limit of 256 open files, client connections leave enough files to probes, peers and origins.
func TestPromiseD2FewFilesAndManyIdleConnections(t *testing.T) {
	c := newFilesCluster(t, 256)
	s := c.sidecars[0]
	if !strings.Contains(s.Log(), "the limit of open files reduces") {
		t.Errorf("the sidecar does not log that the limit lowers its bounds:\n%s", s.Log())
	}
	stop := openIdle(t, s.HTTP, s.Peer)
	failed, n, most := c.probe(t, 6*time.Second)
	closed := 0.0 // a full listener closes idle connections for new ones, and refuses those for which it finds none
	for _, reason := range []string{`reason="connections"`, `reason="evicted"`} {
		closed += s.Metric("ringside_listener_refused_total", reason)
	}
	stop()
	c.awaitReads(t)
	report(t, promise{
		number: "D2", n: n, held: failed == 0 && n > 0 && closed > 0 && most < 256,
		done:   fmt.Sprintf("%d idle connections to each of two listeners, limit of 256 files", idleConns),
		figure: fmt.Sprintf("%d of %d probes and scrapes failed, at most %d files open", failed, n, most),
	})
}

// Lowering the limit of a running sidecar has the same effect as files that something else has opened.
func TestListenersRecoverFromTooManyOpenFiles(t *testing.T) {
	t.Parallel()
	c := newFilesCluster(t, 1024)
	s := c.sidecars[0]
	lowerFileLimit(t, s, 64)
	stop := openIdle(t, s.HTTP, s.Peer)
	rig.Eventually(t, time.Minute, func() error {
		if n := openFiles(t, s); n < 64 {
			return fmt.Errorf("%d files are open; want 64", n)
		}
		return nil
	})
	time.Sleep(time.Second) // during which each listener fails to accept
	stop()
	c.awaitReads(t)
}

func newFilesCluster(t *testing.T, files int) *cluster {
	c := newClusterOf(t, 1, func(t testing.TB, _ int, config string) []*rig.Sidecar {
		s := rig.NewSidecar(t, "sidecar-1", config)
		s.LimitFiles(files)
		s.Start()
		rig.AwaitRing(t, []*rig.Sidecar{s})
		return []*rig.Sidecar{s}
	})
	c.fill("key-", 1)
	return c
}

func lowerFileLimit(t *testing.T, s *rig.Sidecar, files int) {
	t.Helper()
	out, err := exec.Command("prlimit", fmt.Sprintf("--pid=%d", s.Pid()), fmt.Sprintf("--nofile=%d", files)).CombinedOutput()
	if err != nil {
		t.Fatalf("prlimit: %v\n%s", err, out)
	}
}

func openFiles(t *testing.T, s *rig.Sidecar) int {
	t.Helper()
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.Pid()))
	if err != nil {
		t.Fatalf("list the open files of the sidecar: %v\n%s", err, s.Log())
	}
	return len(files)
}

// openIdle keeps idle connections open, and replaces those that the sidecar closes.
func openIdle(t *testing.T, addresses ...string) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var holding sync.WaitGroup
	for i := range len(addresses) * idleConns {
		holding.Go(func() {
			for ctx.Err() == nil {
				holdIdle(ctx, addresses[i%len(addresses)])
				time.Sleep(500 * time.Millisecond)
			}
		})
	}
	return func() { cancel(); holding.Wait() }
}

// holdIdle keeps one connection open until the other end closes it.
func holdIdle(ctx context.Context, address string) {
	conn, err := net.DialTimeout("tcp", address, 2*time.Second)
	if err != nil {
		return
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	_, _ = io.Copy(io.Discard, conn) // until it is closed
}

// probe sends the requests of a kubelet and of Prometheus, each on a new connection.
func (c *cluster) probe(t *testing.T, d time.Duration) (failed, n, most int) {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		most = max(most, openFiles(t, c.sidecars[0]))
		for _, path := range []string{"/livez", "/readyz", "/metrics"} {
			n++
			if err := get(client, "http://"+c.sidecars[0].Metrics+path); err != nil {
				failed++
				t.Logf("%s: %v", path, err)
			}
		}
	}
	return failed, n, most
}

// awaitReads waits until a read through each of the listeners succeeds.
func (c *cluster) awaitReads(t *testing.T) {
	t.Helper()
	for _, address := range []string{c.sidecars[0].HTTP, c.sidecars[0].Peer} {
		rig.Eventually(t, time.Minute, func() error {
			return get(c.client, "http://"+address+"/v1/cnf-metrics/key-0")
		})
	}
}

func get(client *http.Client, url string) error {
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s %s %v", url, response.Status, body, err)
	}
	return nil
}
