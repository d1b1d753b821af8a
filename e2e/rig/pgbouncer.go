package rig

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// PoolMode decides how long a client of PgBouncer keeps a connection to the server.
type PoolMode string

const (
	SessionPool     PoolMode = "session"     // until it disconnects
	TransactionPool PoolMode = "transaction" // until its transaction ends
)

// PgBouncer starts a PgBouncer in front of a PostgreSQL server, and stops it at the end of the test. Its DSN is that of the
// server with another port. Roles need no password, and each database of the server is available. The settings are lines of
// the section [pgbouncer], in addition to PgBouncer's own defaults.
func PgBouncer(t testing.TB, server *Database, mode PoolMode, settings ...string) *Database {
	t.Helper()
	binary := Program(t, "pgbouncer", "/usr/sbin")
	dsn, err := url.Parse(server.DSN)
	if err != nil {
		t.Fatalf("rig: %v", err)
	}
	cred, port := serverUser(t, "postgres"), FreePort(t)
	dir, address := dataDir(t, "pgbouncer", cred), loopback(port)
	config := fmt.Sprintf(`[databases]
* = host=%s port=%s auth_user=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = %s
%s
`, dsn.Hostname(), dsn.Port(), dsn.User.Username(), port, filepath.Join(dir, "users"), mode, strings.Join(settings, "\n"))
	files := map[string]string{"pgbouncer.ini": config, "users": fmt.Sprintf("%q \"\"\n", dsn.User.Username())}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatalf("rig: %v", err)
		}
	}
	dsn.Host = address
	pooler := &Database{
		process: &process{
			t: t, name: "pgbouncer", path: binary, dir: dir, cred: cred, quit: syscall.SIGTERM, args: []string{"pgbouncer.ini"},
			ready: accepts(address),
		},
		DSN: dsn.String(),
	}
	t.Cleanup(pooler.Stop)
	pooler.Start()
	return pooler
}
