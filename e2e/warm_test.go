package e2e

import (
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin/sqldb/sqlite/sqlitetest"
)

// warmKeys is how many rows a table of these tests has.
const warmKeys = 300

// faultyDatabase is a database that can stop answering.
type faultyDatabase struct {
	driver, dsn, open string
	faults            map[string]func() // each ends what answers
}

func faultyDatabases() map[string]func(t *testing.T) faultyDatabase {
	return map[string]func(t *testing.T) faultyDatabase{
		"postgres": func(t *testing.T) faultyDatabase {
			db := rig.NewPostgres(t)
			return faultyDatabase{"postgres", db.DSN, "pgx", map[string]func(){"frozen": db.Freeze, "killed": db.Kill}}
		},
		"mariadb": func(t *testing.T) faultyDatabase {
			db := rig.NewMariaDB(t)
			return faultyDatabase{"mysql", db.DSN, "mysql", map[string]func(){"frozen": db.Freeze, "killed": db.Kill}}
		},
		"sqlite": func(t *testing.T) faultyDatabase {
			path := filepath.Join(t.TempDir(), "rows.db")
			locked := func() { sqlitetest.Lock(t, path) }
			return faultyDatabase{"sqlite", path, "sqlite", map[string]func(){"locked": locked}}
		},
	}
}

func (d faultyDatabase) fill(t *testing.T) {
	t.Helper()
	db, err := sql.Open(d.open, d.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE users (name VARCHAR(20) PRIMARY KEY, secret VARCHAR(20))"); err != nil {
		t.Fatal(err)
	}
	for i := range warmKeys {
		if _, err := db.Exec(fmt.Sprintf("INSERT INTO users VALUES ('user-%d', 's-%d')", i, i)); err != nil {
			t.Fatal(err)
		}
	}
}

// readUsers reads each key once, and returns how many reads failed and how many took longer than 50 ms.
func readUsers(t *testing.T, s *rig.Sidecar) (failed, slow int) {
	t.Helper()
	for i := range warmKeys {
		began := time.Now()
		response, err := http.Get(s.URL("users", fmt.Sprint("user-", i)))
		if err != nil {
			failed++
			continue
		}
		body, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK || string(body) != fmt.Sprint("s-", i) {
			failed++
		}
		if time.Since(began) > 50*time.Millisecond {
			slow++
		}
	}
	return failed, slow
}

// Right after the start the database stops answering. Nobody has read any key before.
func TestKeysThatWereNeverReadAreServedWhileTheDatabaseIsAway(t *testing.T) {
	for name, start := range faultyDatabases() {
		for fault := range start(t).faults {
			t.Run(name+" "+fault, func(t *testing.T) {
				d := start(t)
				d.fill(t)
				s := rig.NewSidecar(t, "warm", fmt.Sprintf(`origins: {db: {driver: %s, dsn: %q}}
datasets:
  users:
    origin: db
    table: users
    key: name
    value: secret
    ttl: 1s
    warm: {keys: all, wait: 1m}
`, d.driver, d.dsn))
				s.Start()
				d.faults[fault]()
				failed, slow := readUsers(t, s)
				time.Sleep(1500 * time.Millisecond) // past the ttl
				failedStale, slowStale := readUsers(t, s)
				t.Logf("%d of %d reads failed, %d took longer than 50 ms; past the ttl %d and %d", failed, warmKeys, slow, failedStale, slowStale)
				if failed+failedStale > 0 {
					t.Errorf("%d of %d reads failed", failed+failedStale, 2*warmKeys)
				}
				if n := s.Metric("ringside_warm_keys", `dataset="users"`); n != warmKeys {
					t.Errorf("ringside_warm_keys is %v; want %d", n, warmKeys)
				}
			})
		}
	}
}

// A frozen database accepts connections and answers nothing. Its change feed ends, and with it the trust in entries.
func TestCachedKeysAreServedAtOnceWhileTheDatabaseIsFrozen(t *testing.T) {
	for name, start := range faultyDatabases() {
		d := start(t)
		freeze := d.faults["frozen"]
		if freeze == nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			d.fill(t)
			config := fmt.Sprintf(`origins: {db: {driver: %s, dsn: %q}}
datasets: {users: {origin: db, table: users, key: name, value: secret, ttl: 1h, feed: {kind: poll}}}
`, d.driver, d.dsn)
			s := rig.NewSidecar(t, "frozen", config)
			s.Start()
			if failed, _ := readUsers(t, s); failed > 0 {
				t.Fatalf("%d reads failed before the fault", failed)
			}
			freeze()
			rounds, failed, slow, slowest := 20, 0, 0, 0
			for range rounds {
				time.Sleep(500 * time.Millisecond)
				f, n := readUsers(t, s)
				failed, slow, slowest = failed+f, slow+n, max(slowest, n)
			}
			t.Logf("%d of %d reads failed, %d took longer than 50 ms, at most %d in a round of %d",
				failed, rounds*warmKeys, slow, slowest, warmKeys)
			if failed > 0 {
				t.Errorf("%d of %d reads of cached keys failed", failed, rounds*warmKeys)
			}
			rig.Eventually(t, 10*time.Second, func() error {
				if s.Metric("ringside_origin_breaker_open") != 1 {
					return fmt.Errorf("the breaker is closed")
				}
				return nil
			})
		})
	}
}
