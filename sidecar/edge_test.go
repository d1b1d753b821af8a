package sidecar

import (
	"fmt"
	"strings"
	"testing"
)

// beginEdge runs a sidecar that follows the feed at addr, and passes it on.
func beginEdge(t testing.TB, addr, id string) *running {
	t.Helper()
	c := load(t, newFile(t, fmt.Sprintf("membership: {xds: [%q]}\nnode: {id: %s}", addr, id)))
	c.Listen.Peer, c.Listen.XDS = "", "127.0.0.1:0"
	return begin(t, c, nil)
}

// The first edge has the id of a member, as two sidecars of one host have by default; the second one follows the first.
func TestEdgeAsksTheOwners(t *testing.T) {
	t.Parallel()
	d := newMemoryDirectory()
	serveXDS := func(id string) *running {
		c := load(t, newFile(t, "membership: {etcd: {endpoints: [\"http://127.0.0.1:1\"]}}\nnode: {id: "+id+"}"))
		c.Listen.Peer, c.Listen.XDS = "127.0.0.1:0", "127.0.0.1:0"
		return begin(t, c, func(r *run) { r.directory = d })
	}
	a, b := serveXDS("a"), serveXDS("b")
	waitFor(t, func() bool { return a.ring().Len() == 2 && b.ring().Len() == 2 })
	one := beginEdge(t, a.at.XDS, "a")
	two := beginEdge(t, one.at.XDS, "edge")
	want := a.ring().ID()
	for _, edge := range []*running{one, two} {
		waitFor(t, func() bool { return edge.ring().ID() == want })
		for i := range 20 {
			wantGet(t, edge.at.HTTP, fmt.Sprintf("/v1/metrics/CNF-%d", i), 404, "")
		}
		if n := edge.dataset().Stats().Queries.Load(); n != 0 {
			t.Errorf("an edge asked the origin %d times", n)
		}
		wantGet(t, edge.at.Admin, "/api/ring", 200, `"directory":{"kind":"xds","connected":true`)
		_, text := get(edge.at.Metrics, "/metrics")
		if !strings.Contains(text, "ringside_directory_connected 1") ||
			strings.Contains(text, "ringside_directory_registered") {
			t.Errorf("metrics of an edge:\n%s", text)
		}
	}
	if a.ring().Len() != 2 {
		t.Error("an edge is on the ring")
	}
}
