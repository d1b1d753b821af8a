package rig

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// smallLog keeps the template small. The server must start with the log size of the template.
const smallLog = "--innodb-log-file-size=4M"

// MariaDB starts a MariaDB server, stops it at the end of the test, and returns its DSN for go-sql-driver/mysql. The
// database in the DSN is empty. The account root has no password.
func MariaDB(t testing.TB) (dsn string) {
	t.Helper()
	return NewMariaDB(t).DSN
}

// NewMariaDB is MariaDB for tests that also stop or freeze the server.
func NewMariaDB(t testing.TB) *Database {
	t.Helper()
	return NewMariaDBWith(t)
}

// NewMariaDBWith is NewMariaDB with other settings, which are flags of mariadbd.
func NewMariaDBWith(t testing.TB, settings ...string) *Database {
	t.Helper()
	server, install := Program(t, "mariadbd", "/usr/sbin"), Program(t, "mariadb-install-db", "/usr/bin")
	cred, port := serverUser(t, "mysql"), FreePort(t)
	dir := dataDir(t, "mariadb", cred)
	fillFromTemplate(t, dir, "mariadb-"+versionOf(t, server), cred, func(dir string) error {
		return runAs(exec.Command(install, "--no-defaults", "--auth-root-authentication-method=normal",
			"--skip-test-db", smallLog, "--datadir="+dir), dir, cred)
	})
	// At its start, a server deletes the temporary tables in its tmpdir. If that is the default, /tmp, it deletes those of other
	// servers, which then crash (10.11.19, in ha_maria::drop_table).
	temporary := dataDir(t, "mariadb-tmp", cred)
	address := loopback(port)
	db := &Database{
		process: &process{
			t: t, name: "mariadb", path: server, dir: dir, cred: cred, quit: syscall.SIGTERM,
			args: append([]string{"--no-defaults", "--datadir=" + dir, "--port=" + strconv.Itoa(port),
				"--bind-address=127.0.0.1", "--socket=" + filepath.Join(dir, "s"), "--skip-name-resolve",
				"--pid-file=" + filepath.Join(dir, "pid"), "--tmpdir=" + temporary, "--init-file=" + writeUsers(t, dir, cred),
				"--innodb-flush-log-at-trx-commit=2", "--skip-log-bin", "--character-set-server=utf8mb4",
				"--innodb-buffer-pool-size=32M", "--max-connections=200", smallLog}, settings...),
			ready: func(int) error { return checkGreeting(address) },
		},
		DSN: mysqlDSN(address),
	}
	t.Cleanup(db.Stop)
	db.Start()
	return db
}
