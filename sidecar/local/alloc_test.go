//go:build !race

package local

import (
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin/origintest"
)

// A hit is the product: neither the core nor the way through fasthttp may allocate.
func TestHitDoesNotAllocate(t *testing.T) {
	d := newDataset(t, "cnf-metrics", origintest.New(map[string]string{"CNF-001": benchValue(), "a/b": benchValue()}))
	s := start(t, Config{}, Served{Dataset: d, JSON: true})
	for _, target := range []string{"/v1/cnf-metrics/CNF-001", "/v1/cnf-metrics/a%2Fb"} {
		conn := dial(t, "tcp", s.http)
		request := []byte(strings.Replace(get("/"), " / ", " "+target+" ", 1))
		once := func() {
			if err := roundTrip(conn, conn.r, request); err != nil {
				t.Fatal(err)
			}
		}
		once()
		if n := testing.AllocsPerRun(1000, once); n > 0 {
			t.Errorf("%s: %v allocations per hit, client included", target, n)
		}
	}
}
