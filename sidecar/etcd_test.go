package sidecar

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// Reads of etcd: a change becomes visible long before the end of the ttl, and values are served stale while etcd is down.
func TestReadsOfEtcd(t *testing.T) {
	t.Parallel()
	e := rig.Etcd(t)
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{e.Endpoint()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	put := func(key, value string) {
		t.Helper()
		if _, err := client.Put(t.Context(), key, value); err != nil {
			t.Fatal(err)
		}
	}
	put("/routes/a/b", "1")
	path := filepath.Join(t.TempDir(), "ringside.yaml")
	const config = `
origins: {config: {driver: etcd, dsn: %q}}
datasets:
  routes: {origin: config, prefix: /routes/, content_type: text/plain, feed: {kind: watch}, ttl: 1h, load_timeout: 30s, verify_rate: 0}
  brief: {origin: config, prefix: /routes/, ttl: 1ms, local_ttl: 0s, load_timeout: 30s, verify_rate: 0}
`
	write(t, path, fmt.Sprintf(config, e.Endpoint())+allPortsFree)
	r := begin(t, load(t, path), nil)
	waitFor(t, func() bool { // the feed is live
		_, metrics := get(r.at.Metrics, "/metrics")
		return regexp.MustCompile(`ringside_change_feed_reading{dataset="routes"} 1`).MatchString(metrics)
	})
	wantGet(t, r.at.HTTP, "/v1/routes/a%2Fb", 200, "1")
	wantGet(t, r.at.HTTP, "/v1/routes/none", 404, "")
	for i := range 3 {
		put("/routes/a/b", "new-"+strconv.Itoa(i))
		waitFor(t, func() bool {
			_, body := get(r.at.HTTP, "/v1/routes/a%2Fb")
			return body == "new-"+strconv.Itoa(i)
		})
	}
	put("/routes/none", "made")
	waitFor(t, func() bool { _, body := get(r.at.HTTP, "/v1/routes/none"); return body == "made" })
	if _, err := client.Delete(t.Context(), "/routes/none"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { code, _ := get(r.at.HTTP, "/v1/routes/none"); return code == 404 })
	wantGet(t, r.at.HTTP, "/v1/brief/a%2Fb", 200, "new-2")
	e.Kill()
	isStale := regexp.MustCompile(`ringside_requests_total{dataset="brief",result="stale"} [1-9]`)
	waitFor(t, func() bool {
		wantGet(t, r.at.HTTP, "/v1/brief/a%2Fb", 200, "new-2")
		_, metrics := get(r.at.Metrics, "/metrics")
		return isStale.MatchString(metrics)
	})
	wantGet(t, r.at.HTTP, "/v1/brief/unread", 503, "")
	e.Start()
	put("/routes/a/b", "after")
	for _, dataset := range []string{"routes", "brief"} {
		waitFor(t, func() bool { _, body := get(r.at.HTTP, "/v1/"+dataset+"/a%2Fb"); return body == "after" })
	}
}
