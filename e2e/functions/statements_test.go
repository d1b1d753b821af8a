package functions

import (
	"database/sql"
	"os"
	"strings"
	"testing"

	_ "github.com/go-sql-driver/mysql" // for the test's own statements
	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// statements is the test's own connection to a database. It counts the statements of all others.
type statements struct {
	t        *testing.T
	db       *sql.DB
	postgres bool
}

func connect(t *testing.T, e rig.Engine, dsn string) *statements {
	t.Helper()
	s := &statements{t: t, postgres: e.Driver == "postgres"}
	if !s.postgres {
		dsn += "?multiStatements=true"
	}
	db, err := sql.Open(e.SQLDriver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s.db = db
	if s.postgres {
		s.exec(`CREATE EXTENSION pg_stat_statements`)
	}
	return s
}

// exec runs statements that are separated by semicolons.
func (s *statements) exec(text string) {
	s.t.Helper()
	if _, err := s.db.Exec(text); err != nil {
		s.t.Fatalf("%.200s: %v", text, err)
	}
}

// execFile runs a file of statements, such as the schema of a Debian package.
func (s *statements) execFile(path string) {
	s.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	s.exec(string(text))
}

// insert writes rows with few statements.
func (s *statements) insert(table, columns string, rows []string) {
	s.t.Helper()
	const most = 1000
	for len(rows) > 0 {
		n := min(most, len(rows))
		s.exec("INSERT INTO " + table + " (" + columns + ") VALUES " + strings.Join(rows[:n], ", "))
		rows = rows[n:]
	}
}

// count returns the number of statements that the server has run so far. The test's own ones are not in a difference of two
// counts, except for one of MySQL and MariaDB.
func (s *statements) count() (n int) {
	s.t.Helper()
	query := `SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%'`
	if !s.postgres {
		query = `SHOW GLOBAL STATUS LIKE 'Questions'`
	}
	var err error
	if s.postgres {
		err = s.db.QueryRow(query).Scan(&n)
	} else {
		var name string
		err = s.db.QueryRow(query).Scan(&name, &n)
	}
	if err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
	return n
}
