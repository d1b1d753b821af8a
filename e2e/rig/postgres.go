package rig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Postgres starts a PostgreSQL server, stops it at the end of the test, and returns its DSN for pgx.
func Postgres(t testing.TB) (dsn string) {
	t.Helper()
	return NewPostgres(t).DSN
}

// NewPostgres is Postgres for tests that also stop or freeze the server.
func NewPostgres(t testing.TB) *Database {
	t.Helper()
	return NewPostgresWith(t)
}

// NewPostgresWith is NewPostgres with other settings, each as name=value.
func NewPostgresWith(t testing.TB, settings ...string) *Database {
	t.Helper()
	const folders = "/usr/lib/postgresql/*/bin"
	server, initdb := Program(t, "postgres", folders), Program(t, "initdb", folders)
	cred, port := serverUser(t, "postgres"), FreePort(t)
	dir := dataDir(t, "postgres", cred)
	fillFromTemplate(t, dir, "postgres-"+versionOf(t, server), cred, func(dir string) error {
		cmd := exec.Command(initdb, "--no-sync", "--auth=trust", "--username=ringside", "--encoding=UTF8",
			"--locale=C", "--wal-segsize=1", "--pgdata="+dir)
		return runAs(cmd, dir, cred)
	})
	if err := os.Chmod(dir, 0o700); err != nil { // the server does not start with another mode
		t.Fatalf("rig: %v", err)
	}
	return startPostgres(t, server, dir, cred, port, settings...)
}

// NewStandby starts a hot standby of a PostgreSQL server, whose DSN is given, and stops it at the end of the test. The user
// has the rights that it has on the primary.
func NewStandby(t testing.TB, primary string) *Database {
	t.Helper()
	const folders = "/usr/lib/postgresql/*/bin"
	server, backup := Program(t, "postgres", folders), Program(t, "pg_basebackup", folders)
	cred, port := serverUser(t, "postgres"), FreePort(t)
	dir := dataDir(t, "standby", cred)
	if err := os.Chmod(dir, 0o700); err != nil { // the server does not start with another mode
		t.Fatalf("rig: %v", err)
	}
	cmd := exec.Command(backup, "--dbname="+primary, "--pgdata="+dir, "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
	if err := runAs(cmd, dir, cred); err != nil {
		t.Fatalf("rig: standby: %v", err)
	}
	return startPostgres(t, server, dir, cred, port)
}

// Promote makes a hot standby a primary.
func (db *Database) Promote() {
	db.t.Helper()
	ctl := Program(db.t, "pg_ctl", "/usr/lib/postgresql/*/bin")
	if err := runAs(exec.Command(ctl, "promote", "--wait", "--pgdata="+db.dir), db.dir, db.cred); err != nil {
		db.t.Fatalf("rig: promote: %v", err)
	}
}

// Demote starts a stopped PostgreSQL primary as a hot standby of another server, whose DSN is given.
func (db *Database) Demote(primary string) {
	db.t.Helper()
	settings, err := os.OpenFile(filepath.Join(db.dir, "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = fmt.Fprintf(settings, "primary_conninfo = '%s'\n", primary)
		err = errors.Join(err, settings.Close())
	}
	signal := filepath.Join(db.dir, "standby.signal")
	if err == nil {
		err = errors.Join(os.WriteFile(signal, nil, 0o600), chown(signal, db.cred))
	}
	if err != nil {
		db.t.Fatalf("rig: demote: %v", err)
	}
	db.Start()
}

func startPostgres(t testing.TB, server, dir string, cred *syscall.Credential, port int, settings ...string) *Database {
	t.Helper()
	args := []string{"-D", dir, "-p", strconv.Itoa(port), "-h", "127.0.0.1", "-k", ""}
	for _, setting := range append([]string{
		"fsync=off", "full_page_writes=off", "max_connections=200", "shared_preload_libraries=pg_stat_statements",
		"shared_buffers=32MB", "dynamic_shared_memory_type=mmap",
		"wal_level=logical", "max_replication_slots=40", "max_wal_senders=40", // for feeds of kind logical
	}, settings...) {
		args = append(args, "-c", setting)
	}
	db := &Database{
		process: &process{
			t: t, name: "postgres", path: server, dir: dir, cred: cred, quit: syscall.SIGINT, // fast shutdown
			args:  args,
			ready: func(pid int) error { return postmasterReady(dir, pid) },
		},
		DSN: fmt.Sprintf("postgres://ringside:ringside@127.0.0.1:%d/postgres?sslmode=disable", port),
	}
	t.Cleanup(db.Stop)
	db.Start()
	return db
}

// postmasterReady reads postmaster.pid: its first line is the pid, its eighth the state (miscadmin.h,
// LOCK_FILE_LINE_PM_STATUS). A file that a killed server left behind has another pid.
func postmasterReady(dir string, pid int) error {
	b, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		return err
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) < 8 || lines[0] != strconv.Itoa(pid) || strings.TrimSpace(lines[7]) != "ready" {
		return errors.New("the state in postmaster.pid is not ready")
	}
	return nil
}

// versionOf returns the first line of --version, without the server's path and characters that a file name must not have.
func versionOf(t testing.TB, server string) string {
	t.Helper()
	out, err := exec.Command(server, "--version").Output()
	if err != nil {
		t.Fatalf("rig: %s --version: %v", server, err)
	}
	line, _, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(string(out), server)), "\n")
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("/ ()", r) {
			return '_'
		}
		return r
	}, line)
}

func runAs(cmd *exec.Cmd, dir string, cred *syscall.Credential) error {
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred, Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd.Path, err, out)
	}
	return nil
}
