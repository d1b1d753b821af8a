package e2e

import (
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin/sqldb/sqlite/sqlitetest"
)

// startRedis starts a sidecar with a writable dataset items, and returns the address of its Redis protocol.
func startRedis(t *testing.T) string {
	t.Helper()
	db := sqlitetest.New(t, `CREATE TABLE items (id TEXT PRIMARY KEY, note TEXT, ver INTEGER NOT NULL DEFAULT 1)`)
	return rig.Sidecars(t, 1, `
origins: {db: {driver: sqlite, dsn: "`+db+`"}}
datasets: {items: {origin: db, table: items, key: id, version: ver, ttl: 1h, writable: true}}
`)[0].Redis
}

// Clients of Redis, and the cache in one of them, work with a sidecar: e2e/oldclient/redis.
func TestClientsOfRedis(t *testing.T) {
	address := startRedis(t)
	path := filepath.Join(t.TempDir(), "redisclient")
	build := exec.Command("go", "build", "-o", path, ".")
	build.Dir = filepath.Join("oldclient", "redis")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the clients of Redis: %v\n%s", err, out)
	}
	if out, err := exec.CommandContext(t.Context(), path, address, "items").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestRedisPyWorksWithASidecar(t *testing.T) {
	rig.NeedServers(t)
	t.Parallel()
	installLanguages(t)
	host, port, err := net.SplitHostPort(startRedis(t))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "../.bin/python/bin/python", "-W", "error", "oldclient/redis/client.py", host, port, "items")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestRedisCLIWorksWithASidecar(t *testing.T) {
	rig.NeedServers(t)
	t.Parallel()
	host, port, err := net.SplitHostPort(startRedis(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ args, input, want string }{
		{"SET items:a {\"note\":\"1\"}", "", "OK"},
		{"GET items:a", "", `{"id":"a","note":"1","ver":`},
		{"-3 --json GET items:a", "", `"{\"id\":\"a\",\"note\":\"1\",\"ver\":`},
		{"-x SET items:b", `{"note":"from a file"}`, "OK"},
		{"--no-raw SET items:a {} NX", "", "(nil)"},
		{"", "EXISTS items:a items:b\nTTL items:none\nPING\n", "2\n-2\nPONG"},
		{"--pipe", strings.Repeat("*3\r\n$3\r\nSET\r\n$7\r\nitems:c\r\n$16\r\n{\"note\":\"piped\"}\r\n", 100), "errors: 0, replies: 100"},
		{"--scan --pattern items:[bc]", "", "items:"},
		{"-e LPUSH items:a 1", "", "ERR unknown command 'LPUSH'"},
		{"--no-raw DEL items:a items:b items:none", "", "(integer) 2"},
	} {
		cmd := exec.CommandContext(t.Context(), "redis-cli", append([]string{"-h", host, "-p", port}, strings.Fields(test.args)...)...)
		cmd.Stdin = strings.NewReader(test.input)
		out, err := cmd.CombinedOutput()
		failed := strings.HasPrefix(test.args, "-e ")
		if got := strings.TrimSpace(string(out)); !strings.Contains(got, test.want) || failed != (err != nil) {
			t.Errorf("redis-cli %s: got %s, %v; want %s", test.args, got, err, test.want)
		}
	}
}
