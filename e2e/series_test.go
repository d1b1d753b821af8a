package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin/sqldb/sqlite/sqlitetest"
)

// The number of series is what Prometheus pays for each pod: deploy/INSTALL.md has it for 10 000 of them.
func TestSidecarsExportFewSeries(t *testing.T) {
	t.Parallel()
	const mostFresh, mostClient, mostPerDataset, mostInUse = 210, 190, 75, 400
	etcd := rig.Etcd(t)
	start := func(id, role string, datasets int) *rig.Sidecar {
		config := fmt.Sprintf("membership: {role: %s, etcd: {endpoints: [%q]}}\norigins: {db: {driver: sqlite, dsn: %q}}\ndatasets:\n",
			role, etcd.Endpoint(), sqlitetest.New(t, "CREATE TABLE rows (id TEXT PRIMARY KEY, v INTEGER); INSERT INTO rows VALUES ('a', 1);"))
		for i := range datasets {
			config += fmt.Sprintf("  rows-%d: {origin: db, table: rows, key: id, ttl: 1m}\n", i)
		}
		s := rig.NewSidecar(t, id, config)
		s.Start()
		return s
	}
	one, three, client := start("one", "member", 1), start("three", "member", 3), start("client", "client", 1)
	fresh, perDataset, ofClient := series(t, one), (series(t, three)-series(t, one))/2, series(t, client)
	for range 200 { // hits are measured now and then
		for _, key := range []string{"a", "missing"} {
			response, err := http.Get(one.URL("rows-0", key))
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
		}
	}
	inUse := series(t, one)
	t.Logf("%d series of a fresh member with one dataset, %d more per dataset, %d after reads, %d of a client", fresh, perDataset, inUse, ofClient)
	for _, c := range []struct {
		what      string
		got, most int
	}{
		{"a fresh member with one dataset", fresh, mostFresh}, {"each further dataset", perDataset, mostPerDataset},
		{"a member after reads", inUse, mostInUse}, {"a fresh client", ofClient, mostClient},
	} {
		if c.got > c.most || c.got < 20 {
			t.Errorf("%s: got %d series, want at most %d", c.what, c.got, c.most)
		}
	}
}

// series counts the samples that a scrape gets.
func series(t *testing.T, s *rig.Sidecar) (n int) {
	t.Helper()
	for line := range strings.Lines(body(t, "http://"+s.Metrics+"/metrics")) {
		if !strings.HasPrefix(line, "#") {
			n++
		}
	}
	return n
}
