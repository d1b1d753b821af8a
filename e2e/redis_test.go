package e2e

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin/sqldb/sqlite/sqlitetest"
)

// Clients of Redis, and the cache in one of them, work with a sidecar: e2e/oldclient/redis.
func TestClientsOfRedis(t *testing.T) {
	db := sqlitetest.New(t, `CREATE TABLE items (id TEXT PRIMARY KEY, note TEXT, ver INTEGER NOT NULL DEFAULT 1)`)
	s := rig.Sidecars(t, 1, `
origins: {db: {driver: sqlite, dsn: "`+db+`"}}
datasets: {items: {origin: db, table: items, key: id, version: ver, ttl: 1h, writable: true}}
`)[0]
	path := filepath.Join(t.TempDir(), "redisclient")
	build := exec.Command("go", "build", "-o", path, ".")
	build.Dir = filepath.Join("oldclient", "redis")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the clients of Redis: %v\n%s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), path, s.Redis, "items").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
