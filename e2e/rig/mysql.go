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

// MySQL starts a MySQL 8 server, stops it at the end of the test, and returns its DSN for go-sql-driver/mysql. The
// database in the DSN is empty. The account root has no password.
func MySQL(t testing.TB) (dsn string) {
	t.Helper()
	return NewMySQL(t).DSN
}

// NewMySQL is MySQL for tests that also stop or freeze the server, or that need other settings. Those are flags of mysqld.
// The server runs as the test's own user, because another user may not enter the repository.
func NewMySQL(t testing.TB, settings ...string) *Database {
	t.Helper()
	server, port := mysqlBinary(t), FreePort(t)
	dir := dataDir(t, "mysql", nil)
	files := filepath.Join(dir, "data")
	common := []string{"--no-defaults", "--user=root", // ignored unless the test runs as root
		"--datadir=" + files, "--innodb-redo-log-capacity=8M", "--innodb-buffer-pool-size=32M",
		"--performance-schema=OFF", "--innodb-doublewrite=OFF", "--innodb-flush-method=nosync"}
	if err := os.Mkdir(files, 0o700); err != nil {
		t.Fatalf("rig: %v", err)
	}
	fillFromTemplate(t, files, "mysql-"+versionOf(t, server), nil, func(dir string) error {
		return runAs(exec.Command(server, append(common, "--datadir="+dir, "--initialize-insecure")...), dir, nil)
	})
	if err := os.Chmod(files, 0o700); err != nil {
		t.Fatalf("rig: %v", err)
	}
	address := loopback(port)
	db := &Database{
		process: &process{
			t: t, name: "mysql", path: server, dir: dir, quit: syscall.SIGTERM,
			args: append(append(common, "--port="+strconv.Itoa(port), "--bind-address=127.0.0.1",
				"--socket="+filepath.Join(dir, "s"), "--skip-name-resolve", "--pid-file="+filepath.Join(dir, "pid"),
				"--init-file="+writeUsers(t, dir, nil), "--mysqlx=OFF", "--skip-log-bin",
				"--innodb-flush-log-at-trx-commit=2", "--max-connections=200"), settings...),
			ready: func(int) error { return checkGreeting(address) },
		},
		DSN: mysqlDSN(address),
	}
	t.Cleanup(db.Stop)
	db.Start()
	return db
}

func mysqlDSN(address string) string {
	return fmt.Sprintf("ringside:ringside@tcp(%s)/ringside", address)
}

// mysqlBinary is not one in PATH, because MariaDB has a program of the same name.
func mysqlBinary(t testing.TB) string {
	t.Helper()
	NeedServers(t)
	path := filepath.Join(repository(t), ".bin", "mysql8", "bin", "mysqld")
	if !exists(path) {
		t.Fatalf("rig: %s is not there: run make setup", path)
	}
	return path
}

// writeUsers writes the statements that the server runs before it listens. They create the database and the user of the DSN.
func writeUsers(t testing.TB, dir string, cred *syscall.Credential) (path string) {
	t.Helper()
	const users = `CREATE DATABASE IF NOT EXISTS ringside;
CREATE USER IF NOT EXISTS 'ringside'@'127.0.0.1' IDENTIFIED BY 'ringside';
GRANT ALL ON *.* TO 'ringside'@'127.0.0.1';
CREATE USER IF NOT EXISTS 'root'@'127.0.0.1';
GRANT ALL ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;
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
