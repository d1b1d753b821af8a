package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
)

const loadKeys = 200

// underLoad starts a cluster with rows and a load through the sidecars with the given indexes.
func underLoad(t *testing.T, through ...int) (*cluster, *load) {
	t.Helper()
	c := newCluster(t, 5)
	c.fill("key-", loadKeys)
	for i := len(c.sidecars); i < len(c.readers()); i++ {
		through = append(through, i)
	}
	l := c.load(16, loadKeys, "key-", through...)
	l.awaitReads(t, 5000)
	return c, l
}

// A1: the death of a sidecar fails no read on the others.
func TestPromiseA1KillOneOfFive(t *testing.T) {
	c, l := underLoad(t, 0, 1, 2, 3)
	c.sidecars[4].Kill()
	l.awaitReads(t, 20000)
	rig.AwaitRing(t, c.sidecars[:4])
	l.awaitReads(t, 2000)
	l.stop()
	report(t, promise{
		number: "A1", n: int(l.reads.Load()), held: l.failed.Load() == 0,
		done:   described("kill -9 of 1 of 5 sidecars under load, until the ring has moved"),
		figure: fmt.Sprintf("%d of %d reads on the others failed %s", l.failed.Load(), l.reads.Load(), l.failure()),
	})
}

// A2, in part: a member that does not respond, and whose connections stay open.
func TestPromiseA2FreezeOneOfFive(t *testing.T) {
	c, l := underLoad(t, 0, 1, 2, 3)
	c.sidecars[4].Freeze()
	l.awaitReads(t, 20000)
	rig.AwaitRing(t, c.sidecars[:4])
	l.awaitReads(t, 2000)
	c.sidecars[4].Thaw()
	rig.AwaitRing(t, c.sidecars)
	l.awaitReads(t, 2000)
	l.stop()
	report(t, promise{
		number: "A2", n: int(l.reads.Load()), held: l.failed.Load() == 0,
		done:   described("SIGSTOP of 1 of 5 sidecars under load, until the ring has moved, and back"),
		figure: fmt.Sprintf("%d of %d reads on the others failed %s", l.failed.Load(), l.reads.Load(), l.failure()),
	})
}

// A3: each sidecar in turn stops and starts.
func TestPromiseA3RollingRestart(t *testing.T) {
	c, l := underLoad(t, 0, 1, 2, 3)
	for _, s := range c.sidecars[4:] {
		s.Stop()
		s.Start()
	}
	rig.AwaitRing(t, c.sidecars)
	l.stop()
	others := c.load(16, loadKeys, "key-", 4)
	for _, s := range c.sidecars[:4] {
		others.awaitReads(t, 1000)
		s.Stop()
		s.Start()
	}
	rig.AwaitRing(t, c.sidecars)
	others.awaitReads(t, 1000)
	others.stop()
	failed, reads := l.failed.Load()+others.failed.Load(), l.reads.Load()+others.reads.Load()
	report(t, promise{
		number: "A3", n: int(reads), held: failed == 0,
		done:   described("SIGTERM and start of all 5 sidecars in turn, reads through the others"),
		figure: fmt.Sprintf("%d of %d reads failed %s%s", failed, reads, l.failure(), others.failure()),
	})
}

// A4, in part: the request path never waits for etcd, and the ring is complete again soon after etcd is back.
func TestPromiseA4EtcdAway(t *testing.T) {
	t.Parallel()
	for _, fault := range []struct {
		name string
		away func(*rig.EtcdServer)
		back func(*rig.EtcdServer)
	}{
		{"killed and started", (*rig.EtcdServer).Kill, (*rig.EtcdServer).Start},
		{"frozen longer than the lease", (*rig.EtcdServer).Freeze, (*rig.EtcdServer).Thaw},
		{"restored empty", (*rig.EtcdServer).Wipe, (*rig.EtcdServer).Start},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			c, l := underLoad(t, 0, 1, 2, 3, 4)
			fault.away(c.etcd)
			time.Sleep(5 * time.Second) // twice the lease
			fault.back(c.etcd)
			rig.AwaitRing(t, c.sidecars)
			l.awaitReads(t, 5000)
			l.stop()
			report(t, promise{
				number: "A4", n: int(l.reads.Load()), held: l.failed.Load() == 0,
				done:   described("etcd " + fault.name + " (unavailable for 5s, leases of 2s) under load"),
				figure: fmt.Sprintf("%d of %d reads failed %s", l.failed.Load(), l.reads.Load(), l.failure()),
			})
		})
	}
}

// A6, in part: while the database is unavailable, reads of cached keys return values that are marked as stale.
func TestPromiseA6DatabaseAway(t *testing.T) {
	t.Parallel()
	c, l := underLoad(t, 0, 1, 2, 3, 4)
	c.database.Kill()
	began := time.Now()
	l.awaitReads(t, 20000)
	rig.Eventually(t, time.Minute, func() error { // the fault has had its effect once responses are stale
		if c.sidecars[0].Metric("ringside_requests_total", `result="stale"`) == 0 {
			return fmt.Errorf("no stale response yet")
		}
		return nil
	})
	if rest := 10*time.Second - time.Since(began); rest > 0 {
		time.Sleep(rest)
	}
	l.stop()
	report(t, promise{
		number: "A6", n: int(l.reads.Load()), held: l.failed.Load() == 0,
		done:   described("the database killed for at least 10s (ttl 1s, stale_if_error 5m) under load"),
		figure: fmt.Sprintf("%d of %d reads of cached keys failed %s", l.failed.Load(), l.reads.Load(), l.failure()),
	})
	status, body, err := c.get(0, "short-metrics", "never-read")
	if status != http.StatusServiceUnavailable || !strings.Contains(body, "origin") {
		t.Errorf("a key without a cached value: %d %s %v; want 503 that names the origin", status, body, err)
	}
	c.database.Start()
	rig.Eventually(t, time.Minute, func() error {
		if status, body, err := c.get(0, "short-metrics", "never-read"); status != http.StatusNotFound {
			return fmt.Errorf("after the database is back: %d %s %v", status, body, err)
		}
		return nil
	})
}
