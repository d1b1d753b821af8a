package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// edge starts a sidecar that follows the feeds of the first two members, and waits until it has their ring.
func (c *cluster) edge() *rig.Sidecar {
	c.t.Helper()
	s := rig.NewSidecar(c.t, "edge", c.configOf(fmt.Sprintf("{xds: [%q, %q]}", c.sidecars[0].XDS, c.sidecars[1].XDS)))
	s.RoleClient()
	s.Start()
	c.awaitRingOf(s)
	return s
}

// awaitRingOf waits until s has the ring that the members have.
func (c *cluster) awaitRingOf(s *rig.Sidecar) {
	c.t.Helper()
	rig.Eventually(c.t, 15*time.Second, func() error {
		want, _, err := c.sidecars[0].RingID()
		if err != nil {
			return err
		}
		got, members, err := s.RingID()
		if err == nil && got != want {
			err = fmt.Errorf("%s has ring %s of %d members; want %s", s.ID, got, members, want)
		}
		return err
	})
}

// through reads by way of a sidecar, which may or may not take a hop.
func (c *cluster) through(s *rig.Sidecar, dataset string) reader {
	return func(key string) error {
		response, err := c.client.Get(s.URL(dataset, key))
		if err != nil {
			return err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err == nil && response.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s", response.Status, body)
		}
		return err
	}
}

// An edge has the ring of the members without etcd: it asks the owners, and loads nothing itself.
func TestPromiseZAnEdgeFollowsTheFeed(t *testing.T) {
	const keys, dataset = 1000, "owned-metrics"
	c := newClusterOf(t, 4, rig.XDSSidecars)
	c.fill("key-", keys)
	edge := c.edge()
	read := c.through(edge, dataset)
	c.reportEdge(t, edge, read, "4 members")

	load := newStream(t, 4, keys, read)
	load.awaitReads(t, 500)
	c.sidecars[3].Kill()
	c.drop(3)
	c.awaitRingOf(edge)
	load.awaitReads(t, 500)
	load.stop()
	reportStream(t, load, "kill -9 of a member")
	c.reportEdge(t, edge, read, "after kill -9 of a member")

	before, _, err := edge.RingID()
	if err != nil {
		t.Fatal(err)
	}
	load = newStream(t, 4, keys, read)
	load.awaitReads(t, 500)
	c.sidecars[0].Kill()
	c.sidecars[1].Kill()
	load.awaitReads(t, 2000)
	load.stop()
	reportStream(t, load, "kill -9 of both members whose feeds it follows")
	if after, members, err := edge.RingID(); after != before || members != 3 {
		t.Errorf("without a feed the edge has ring %s of %d members (%v); want %s", after, members, err, before)
	}
	if view := ringOf(t, edge); !strings.Contains(view, `"kind":"xds","connected":false`) {
		t.Errorf("the edge does not say that its feeds are away: %s", view)
	}

	c.sidecars[1].Start()
	c.drop(0)
	c.awaitRingOf(edge)
	c.reportEdge(t, edge, read, "one of the two is back")

}

// reportEdge reads all keys through the edge and reports how many it loaded itself.
func (c *cluster) reportEdge(t *testing.T, edge *rig.Sidecar, read reader, when string) {
	t.Helper()
	loads := func(s *rig.Sidecar) float64 { return s.Metric("ringside_loads_total") }
	before := loads(edge)
	if n, err := hops(t, 1000, read); err != nil {
		t.Errorf("%d reads: %v", n, err)
	}
	own := loads(edge) - before
	if loads(c.sidecars[1]) == 0 {
		t.Error("a member has loaded nothing, either: the metric says nothing")
	}
	report(t, promise{number: "Z5", n: 1000, held: own == 0, done: "an edge that follows two feeds, " + when,
		figure: fmt.Sprintf("0 of 1000 reads failed, %v loads by the edge itself", own)})
}

func reportStream(t *testing.T, s *stream, what string) {
	t.Helper()
	report(t, promise{
		number: "Z5", n: int(s.reads.Load()), held: s.failed.Load() == 0, done: "an edge, under load, " + what,
		figure: fmt.Sprintf("%d of %d reads failed %s", s.failed.Load(), s.reads.Load(), s.failure()),
	})
}

func ringOf(t *testing.T, s *rig.Sidecar) string {
	t.Helper()
	response, err := http.Get("http://" + s.Admin + "/api/ring")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
