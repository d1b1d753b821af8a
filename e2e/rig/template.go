package rig

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// Database is a database server of a test. After Stop or Kill, Start brings it back with the same data on the same
// port.
type Database struct {
	*process
	// DSN is for the database's driver of database/sql. The user has all rights.
	DSN string
}

// Engine is a kind of database server.
type Engine struct {
	Name      string // of subtests
	Driver    string // Ringside's name of the driver
	SQLDriver string // the driver of database/sql for tests
	Start     func(testing.TB) *Database
}

// Engines are all kinds of database servers that Ringside supports.
var Engines = []Engine{
	{"postgres", "postgres", "pgx", NewPostgres},
	{"mysql8", "mysql", "mysql", func(t testing.TB) *Database { t.Helper(); return NewMySQL(t) }},
	{"mariadb", "mysql", "mysql", NewMariaDB},
}

// dataDir returns a folder that the server's user owns and that is removed at the end of the test. It is not t.TempDir,
// because only the test's own user may enter the parent of that.
func dataDir(t testing.TB, name string, cred *syscall.Credential) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ringside-"+name+"-")
	if err == nil {
		err = chown(dir, cred)
	}
	if err != nil {
		t.Fatalf("rig: folder for %s: %v", name, err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("rig: remove the files of %s: %v", name, err)
		}
	})
	return dir
}

// fillFromTemplate copies an empty database into dir. To build one takes seconds, to copy it milliseconds, so that each user
// builds it once and keeps it under os.UserCacheDir. key names the inputs of build.
func fillFromTemplate(t testing.TB, dir, key string, cred *syscall.Credential, build func(dir string) error) {
	t.Helper()
	template := filepath.Join(cacheDir(), key)
	_, err := os.Stat(template)
	if errors.Is(err, fs.ErrNotExist) {
		err = makeTemplate(t, template, cred, build)
	}
	if err == nil {
		err = os.CopyFS(dir, os.DirFS(template))
	}
	if err == nil {
		err = chown(dir, cred)
	}
	if err != nil {
		t.Fatalf("rig: fill %s from %s: %v", dir, template, err)
	}
}

// makeTemplate builds in another folder and renames it, so that other test programs never copy an incomplete template.
func makeTemplate(t testing.TB, template string, cred *syscall.Credential, build func(dir string) error) error {
	t.Helper()
	aside := dataDir(t, "template", cred)
	if err := build(aside); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(template), 0o700); err != nil {
		return err
	}
	local, err := os.MkdirTemp(filepath.Dir(template), "new-") // aside may be on another file system
	if err != nil {
		return err
	}
	defer os.RemoveAll(local)
	if err := os.CopyFS(local, os.DirFS(aside)); err != nil {
		return err
	}
	err = os.Rename(local, template)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) {
		return nil // another test program was faster
	}
	return err
}

func cacheDir() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "ringside-rig")
}

// serverUser returns the first user of names that exists, to run servers for tests that run as root: databases do not start as
// root. It is nil for tests that do not run as root.
func serverUser(t testing.TB, names ...string) *syscall.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	for _, name := range append(names, "nobody") {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
		if errUID == nil && errGID == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
	}
	t.Fatalf("rig: servers do not run as root, and the users %v and nobody do not exist: run make setup", names)
	return nil
}

func chown(dir string, cred *syscall.Credential) error {
	if cred == nil {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, int(cred.Uid), int(cred.Gid))
	})
}
