package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
)

// client is one way to read from a sidecar, and what came of it.
type client struct {
	read          reader
	reads, failed atomic.Int64
	refused       atomic.Int64 // connections, of those that failed
	last          atomic.Pointer[string]

	mu   sync.Mutex
	took []time.Duration
}

func (c *client) run(stop *atomic.Bool, worker int) {
	for i := worker; !stop.Load(); i++ {
		began := time.Now()
		err := c.read(fmt.Sprint("key-", i*7%loadKeys))
		c.mu.Lock()
		c.took = append(c.took, time.Since(began))
		c.mu.Unlock()
		c.reads.Add(1)
		if err == nil {
			continue
		}
		c.failed.Add(1)
		if strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "no such file") {
			c.refused.Add(1)
		}
		why := err.Error()
		c.last.Store(&why)
	}
}

// figure returns the reads, the p99.9 and the longest.
func (c *client) figure() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(c.took)
	n := len(c.took)
	return fmt.Sprintf("%d of %d reads failed (%d refused), p50 %v, p99.9 %v, longest %v",
		c.failed.Load(), n, c.refused.Load(), c.took[n/2], c.took[n*999/1000], c.took[n-1])
}

// overLocal returns a reader by HTTP. Transports without keep-alive open a connection for each read.
func overLocal(t *testing.T, url string, transport *http.Transport) reader {
	c := &http.Client{Transport: transport, Timeout: 30 * time.Second}
	t.Cleanup(c.CloseIdleConnections)
	f := &function{client: c}
	return func(key string) error { return f.get(url + "/v1/short-metrics/" + key) }
}

// newSupervised starts a cluster of three whose first member runs in a child process.
func newSupervised(t *testing.T) (*cluster, map[string]*client) {
	c := newClusterOf(t, 3, func(t testing.TB, n int, config string) []*rig.Sidecar {
		sidecars := make([]*rig.Sidecar, n)
		for i := range sidecars {
			sidecars[i] = rig.NewSidecar(t, fmt.Sprint("sidecar-", i+1), config)
			if i == 0 {
				sidecars[i].Supervise()
			}
			sidecars[i].Start()
		}
		rig.AwaitRing(t, sidecars)
		return sidecars
	})
	c.fill("key-", loadKeys)
	s := c.sidecars[0]
	unix := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.Unix)
	}
	return c, map[string]*client{
		"HTTP, keep-alive":     {read: overLocal(t, "http://"+s.HTTP, &http.Transport{MaxIdleConnsPerHost: 4})},
		"HTTP, new connection": {read: overLocal(t, "http://"+s.HTTP, &http.Transport{DisableKeepAlives: true})},
		"unix, keep-alive":     {read: overLocal(t, "http://localhost", &http.Transport{DialContext: unix, MaxIdleConnsPerHost: 4})},
		"unix, new connection": {read: overLocal(t, "http://localhost", &http.Transport{DialContext: unix, DisableKeepAlives: true})},
		"gRPC":                 {read: overLocalGRPC(t, s.GRPC)},
	}
}

func overLocalGRPC(t *testing.T, addr string) reader {
	stub := ringsidev1.NewCacheClient(dialGRPC(t, "passthrough:///"+addr))
	return func(key string) error {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		_, err := stub.Get(ctx, &ringsidev1.GetRequest{Dataset: "short-metrics", Key: key})
		return err
	}
}

// during reads with all clients while do runs n times.
func during(t *testing.T, clients map[string]*client, n int, do func()) {
	t.Helper()
	var stop atomic.Bool
	var workers sync.WaitGroup
	for _, c := range clients {
		for w := range 2 {
			workers.Go(func() { c.run(&stop, w) })
		}
	}
	for range n {
		for _, c := range clients {
			until := c.reads.Load() + 50
			rig.Eventually(t, time.Minute, func() error {
				if got := c.reads.Load(); got < until {
					return fmt.Errorf("%d reads; want %d", got, until)
				}
				return nil
			})
		}
		do()
	}
	stop.Store(true)
	workers.Wait()
}

// A replaced sidecar refuses no connection, and fails no read.
func TestSupervisedSidecarIsReplacedWithoutAFailedRead(t *testing.T) {
	c, clients := newSupervised(t)
	s, n := c.sidecars[0], sampleOf(20)
	during(t, clients, n, func() { s.Replace() })
	for name, one := range clients {
		if one.failed.Load() != 0 {
			t.Errorf("%s: %s; the last: %s", name, one.figure(), *one.last.Load())
		}
		t.Logf("%d replacements, %s: %s", n, name, one.figure())
	}
	if !s.Running() {
		t.Error("the supervisor has ended")
	}
}

// A wrong configuration changes nothing. A right one that needs a restart is used.
func TestSupervisedSidecarChangesItsConfiguration(t *testing.T) {
	c, clients := newSupervised(t)
	s := c.sidecars[0]
	during(t, clients, 1, func() {
		child := s.Child()
		s.Reconfigure("datasets:\n", "hosts: [functions.example]\nnonsense: 1\ndatasets:\n")
		out, err := s.Restart()
		if err == nil || !strings.Contains(out, "nonsense") || !strings.Contains(out, "the old process keeps serving") {
			t.Errorf("restart with a wrong configuration: %v: %s; want the reason, and that the old process keeps serving", err, out)
		}
		if s.Child() != child {
			t.Error("the sidecar was replaced")
		}
		s.Reconfigure("nonsense: 1\n", "")
		s.Replace()
	})
	for name, one := range clients {
		if one.failed.Load() != 0 {
			t.Errorf("%s: %s; the last: %s", name, one.figure(), *one.last.Load())
		}
	}
	request, err := http.NewRequest(http.MethodGet, "http://"+s.HTTP+"/v1/short-metrics/key-1", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = "functions.example"
	response, err := c.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("with the Host of the new configuration: %d, want 200", response.StatusCode)
	}
}

// A crash cuts off the reads in flight. It refuses no connection.
func TestSupervisedSidecarRefusesNoConnectionAfterACrash(t *testing.T) {
	c, clients := newSupervised(t)
	s, n := c.sidecars[0], sampleOf(12)
	during(t, clients, n, func() { s.Crash() })
	for name, one := range clients {
		if one.refused.Load() != 0 {
			t.Errorf("%s: %s; the last: %s", name, one.figure(), *one.last.Load())
		}
		t.Logf("%d kills, %s: %s", n, name, one.figure())
	}
}

// Entries survive any number of replacements while the database is down.
func TestSupervisedSidecarKeepsItsEntriesInAnOutage(t *testing.T) {
	c, clients := newSupervised(t)
	s, n := c.sidecars[0], sampleOf(20)
	all := func(t *testing.T) {
		for name, one := range clients {
			for i := range loadKeys {
				if err := one.read(fmt.Sprint("key-", i)); err != nil {
					t.Errorf("%s, key-%d: %v", name, i, err)
				}
			}
		}
	}
	all(t)
	c.database.Kill()
	during(t, clients, n, func() { s.Replace() })
	for name, one := range clients {
		if one.failed.Load() != 0 {
			t.Errorf("%s: %s; the last: %s", name, one.figure(), *one.last.Load())
		}
		t.Logf("%d replacements without a database, %s: %s", n, name, one.figure())
	}
	if got := s.Metric("ringside_restored_entries_total", `dataset="short-metrics"`); got != loadKeys {
		t.Errorf("%v entries were restored; want %d", got, loadKeys)
	}
}
