package e2e

import (
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// sessionTables have keys that the database generates.
var sessionTables = map[string]string{
	"postgres": "CREATE TABLE sessions (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, username VARCHAR(64) NOT NULL, ver BIGINT)",
	"mysql":    "CREATE TABLE sessions (id BIGINT AUTO_INCREMENT PRIMARY KEY, username VARCHAR(64) NOT NULL, ver BIGINT)",
}

// Every member holds "not found" of the key of the next row. Appended through any of them, the row is read there at once, and
// everywhere soon after, long before the entries end.
func TestAppendedRowsAreReadThroughEveryMember(t *testing.T) {
	rig.NeedServers(t)
	for _, e := range rig.Engines {
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			dsn := e.Start(t).DSN
			db, err := sql.Open(e.SQLDriver, dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if _, err := db.Exec(sessionTables[e.Driver]); err != nil {
				t.Fatal(err)
			}
			etcd := rig.Etcd(t)
			c := &cluster{t: t, etcd: etcd, client: &http.Client{Timeout: 10 * time.Second}}
			c.sidecars = rig.Sidecars(t, 3, fmt.Sprintf("membership: {etcd: {endpoints: [%q], lease_ttl: 2s}}\norigins: {db: {driver: %s, dsn: %q}}\n"+
				"datasets: {sessions: {origin: db, table: sessions, key: id, version: ver, writable: true, ttl: 1h, local_ttl: 1h, negative_ttl: 1h}}\n",
				etcd.Endpoint(), e.Driver, dsn))
			rig.AwaitRing(t, c.sidecars)
			for n := range 6 {
				c.appendAfterNotFound(n%3, fmt.Sprint(n+1))
			}
		})
	}
}

func (c *cluster) appendAfterNotFound(through int, key string) {
	c.t.Helper()
	for i := range c.sidecars {
		if status, body, err := c.get(i, "sessions", key); status != http.StatusNotFound {
			c.t.Fatalf("key %s before it exists: %d %s %v", key, status, body, err)
		}
	}
	user := fmt.Sprint("user-", key)
	resp, err := c.client.Post("http://"+c.sidecars[through].HTTP+"/v1/sessions", "application/json", strings.NewReader(`{"username":"`+user+`"}`))
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if location := resp.Header.Get("Location"); err != nil || resp.StatusCode != http.StatusCreated || location != "/v1/sessions/"+key {
		c.t.Fatalf("got %d %s, Location %s, %v; want 201 and the key %s", resp.StatusCode, body, location, err, key)
	}
	if status, body, err := c.get(through, "sessions", key); status != http.StatusOK || !strings.Contains(body, user) {
		c.t.Errorf("key %s through the member that has appended it: %d %s %v", key, status, body, err)
	}
	for i := range c.sidecars {
		rig.Eventually(c.t, time.Minute, func() error {
			status, body, err := c.get(i, "sessions", key)
			if status != http.StatusOK || !strings.Contains(body, user) {
				return fmt.Errorf("key %s through member %d: %d %s %v", key, i, status, body, err)
			}
			return nil
		})
	}
}
