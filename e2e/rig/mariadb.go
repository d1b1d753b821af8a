package rig

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// smallLog keeps the template small. The server must start with the log size of the template.
const smallLog = "--innodb-log-file-size=4M"

// MariaDB starts a MariaDB server, stops it at the end of the test, and returns its DSN for go-sql-driver/mysql. The
// database in the DSN is empty.
func MariaDB(t testing.TB) (dsn string) {
	t.Helper()
	return NewMariaDB(t).DSN
}

// NewMariaDB is MariaDB for tests that also stop or freeze the server.
func NewMariaDB(t testing.TB) *Database {
	t.Helper()
	server, install := Program(t, "mariadbd", "/usr/sbin"), Program(t, "mariadb-install-db", "/usr/bin")
	cred, port := serverUser(t, "mysql"), FreePort(t)
	dir := dataDir(t, "mariadb", cred)
	fillFromTemplate(t, dir, versionOf(t, server), cred, func(dir string) error {
		return runAs(exec.Command(install, "--no-defaults", "--auth-root-authentication-method=normal",
			"--skip-test-db", smallLog, "--datadir="+dir), dir, cred)
	})
	// At its start, a server deletes the temporary tables in its tmpdir. If that is the default, /tmp, it deletes those of other
	// servers, which then crash (10.11.19, in ha_maria::drop_table).
	temporary := dataDir(t, "mariadb-tmp", cred)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	db := &Database{
		process: &process{
			t: t, name: "mariadb", path: server, dir: dir, cred: cred, quit: syscall.SIGTERM,
			args: []string{"--no-defaults", "--datadir=" + dir, "--port=" + strconv.Itoa(port),
				"--bind-address=127.0.0.1", "--socket=" + filepath.Join(dir, "s"), "--skip-name-resolve",
				"--pid-file=" + filepath.Join(dir, "pid"), "--tmpdir=" + temporary, "--init-file=" + writeUsers(t, dir, cred),
				"--innodb-flush-log-at-trx-commit=2", "--skip-log-bin", "--character-set-server=utf8mb4",
				"--innodb-buffer-pool-size=32M", "--max-connections=200", smallLog},
			ready: func(int) error { return checkGreeting(address) },
		},
		DSN: fmt.Sprintf("ringside:ringside@tcp(%s)/ringside", address),
	}
	t.Cleanup(db.Stop)
	db.Start()
	return db
}

// writeUsers writes the statements that the server runs before it listens. They create the database and the user of the DSN.
func writeUsers(t testing.TB, dir string, cred *syscall.Credential) (path string) {
	t.Helper()
	const users = `CREATE DATABASE IF NOT EXISTS ringside;
CREATE USER IF NOT EXISTS 'ringside'@'127.0.0.1' IDENTIFIED BY 'ringside';
GRANT ALL ON *.* TO 'ringside'@'127.0.0.1';
`
	path = filepath.Join(dir, "users.sql")
	err := os.WriteFile(path, []byte(users), 0o600)
	if err == nil {
		err = chown(path, cred)
	}
	if err != nil {
		t.Fatalf("rig: %v", err)
	}
	return path
}

// checkGreeting reads the start of the packet that the server sends to each new connection: a length of three bytes, a
// sequence number, and the protocol version, which is 10.
func checkGreeting(address string) error {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetReadDeadline(time.Now().Add(time.Second)) // fails on a closed connection only
	var head [5]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return err
	}
	if head[4] != 10 {
		return errors.New("the server speaks another protocol")
	}
	return nil
}
