package sidecar

import (
	"fmt"
	"strings"
	"testing"
)

// beginClient runs a client of the xDS publisher at addr that republishes the ring.
func beginClient(t testing.TB, addr, id string) *running {
	t.Helper()
	c := load(t, newFile(t, fmt.Sprintf("membership: {xds: [%q]}\nnode: {id: %s}", addr, id)))
	c.Listen.Peer, c.Listen.XDS = "", "127.0.0.1:0"
	return begin(t, c, nil)
}

// The first client has the id of a member, as two sidecars of one host have by default; the second one is a client of the
// first.
func TestClientFetchesFromTheOwners(t *testing.T) {
	t.Parallel()
	d := newMemoryDirectory()
	serveXDS := func(id string) *running {
		c := load(t, newFile(t, "membership: {etcd: {endpoints: [\"http://127.0.0.1:1\"]}}\nnode: {id: "+id+"}"))
		c.Listen.Peer, c.Listen.XDS = "127.0.0.1:0", "127.0.0.1:0"
		return begin(t, c, func(r *run) { r.directory = d })
	}
	a, b := serveXDS("a"), serveXDS("b")
	waitFor(t, func() bool { return a.ring().Len() == 2 && b.ring().Len() == 2 })
	one := beginClient(t, a.at.XDS, "a")
	two := beginClient(t, one.at.XDS, "client")
	want := a.ring().ID()
	for _, client := range []*running{one, two} {
		waitFor(t, func() bool { return client.ring().ID() == want })
		for i := range 20 {
			wantGet(t, client.at.HTTP, fmt.Sprintf("/v1/metrics/CNF-%d", i), 404, "")
		}
		if n := client.dataset().Stats().Queries.Load(); n != 0 {
			t.Errorf("got %d queries of a client to the origin, want 0", n)
		}
		wantGet(t, client.at.Admin, "/api/ring", 200, `"directory":{"kind":"xds","connected":true`)
		_, text := get(client.at.Metrics, "/metrics")
		if !strings.Contains(text, "ringside_directory_connected 1") ||
			strings.Contains(text, "ringside_directory_registered") {
			t.Errorf("metrics of a client:\n%s", text)
		}
	}
	if a.ring().Len() != 2 {
		t.Error("a client is on the ring")
	}
}
