// Package sqlitetest makes SQLite databases for tests, and changes them while sidecars use them.
package sqlitetest

import (
	"database/sql"
	"path/filepath"
	"testing"

	_ "modernc.org/sqlite" // driver "sqlite"
)

// New makes a database by statements, and returns its path.
func New(tb testing.TB, statements string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "origin.db")
	Exec(tb, path, statements)
	return path
}

// Exec runs statements, and closes the database.
func Exec(tb testing.TB, path, statements string) {
	tb.Helper()
	db := Open(tb, path)
	_, err := db.Exec(statements)
	if closing := db.Close(); err == nil {
		err = closing
	}
	if err != nil {
		tb.Fatal(err)
	}
}

// Open opens a database, until the end of the test. Statements wait for the locks of other processes.
func Open(tb testing.TB, path string) *sql.DB {
	tb.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(20000)")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	return db
}

// Lock keeps all others from the database, until the returned function is called or the test ends.
func Lock(tb testing.TB, path string) (unlock func()) {
	tb.Helper()
	db := Open(tb, path)
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("BEGIN EXCLUSIVE"); err != nil {
		tb.Fatal(err)
	}
	return func() { _ = db.Close() }
}
