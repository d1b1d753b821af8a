package e2e

import (
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// accounts are three members in front of PostgreSQL and MariaDB, each with the same tables.
type accounts struct {
	*cluster
	config    string
	databases map[string]*sql.DB
}

// accountTables have no unique index of a user, as those of RADIUS servers have none.
var accountTables = []string{
	"CREATE TABLE users (id INT PRIMARY KEY, username VARCHAR(64) NOT NULL, secret VARCHAR(64) NOT NULL)",
	"CREATE INDEX users_username ON users (username)",
	"CREATE TABLE radcheck (id INT PRIMARY KEY, username VARCHAR(64) NOT NULL, value VARCHAR(64) NOT NULL)",
	"CREATE TABLE radreply (id INT PRIMARY KEY, username VARCHAR(64) NOT NULL, value VARCHAR(64) NOT NULL)",
	"CREATE VIEW attributes AS SELECT c.username, c.value AS secret, r.value AS reply FROM radcheck AS c " +
		"JOIN radreply AS r ON r.username = c.username",
	"INSERT INTO users VALUES (1, 'alice', 'secret-1'), (2, 'bob', 'secret-2')",
	"INSERT INTO radcheck VALUES (1, 'alice', 'secret-1'), (2, 'bob', 'secret-2')",
	"INSERT INTO radreply VALUES (1, 'alice', 'reply-1'), (2, 'bob', 'reply-2')",
}

// accountDatasets are those of one database: %[1]s is its name, %[2]s and %[3]s compare a key and several keys.
const accountDatasets = `
  short-%[1]s: {origin: %[1]s, table: users, key: username, value: secret, ttl: 1s}
  fed-%[1]s: {origin: %[1]s, table: users, key: username, value: secret, ttl: 1h, local_ttl: 1h, feed: {kind: poll, interval: 100ms}}
  view-%[1]s: {origin: %[1]s, table: attributes, key: username, columns: [secret, reply], rows: many, ttl: 1h, local_ttl: 1h,
    feed: {kind: poll, interval: 100ms, tables: {radcheck: username, radreply: username}}}
  join-%[1]s:
    origin: %[1]s
    query: SELECT c.value AS secret, r.value AS reply FROM radcheck c JOIN radreply r ON r.username = c.username WHERE c.username %[2]s
    batch: SELECT c.username, c.value AS secret, r.value AS reply FROM radcheck c JOIN radreply r ON r.username = c.username WHERE c.username %[3]s
    rows: many
    ttl: 1h
    local_ttl: 1h
    feed: {kind: poll, interval: 100ms, tables: {radcheck: username, radreply: username}}
`

func newAccounts(t *testing.T) *accounts {
	a := &accounts{
		cluster: &cluster{t: t, etcd: rig.Etcd(t), client: &http.Client{Timeout: 10 * time.Second}}, databases: map[string]*sql.DB{},
	}
	var origins, datasets strings.Builder
	var fed []string
	for _, kind := range []struct{ name, driver, sqlDriver, dsn, one, several string }{
		{"postgres", "postgres", "pgx", rig.Postgres(t), "= $1", "= ANY($1)"},
		{"mariadb", "mysql", "mysql", rig.MariaDB(t), "= ?", "IN (?)"},
	} {
		db, err := sql.Open(kind.sqlDriver, kind.dsn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		a.databases[kind.name] = db
		for _, statement := range accountTables {
			a.change(kind.name, statement)
		}
		fmt.Fprintf(&origins, "  %s: {driver: %s, dsn: %q}\n", kind.name, kind.driver, kind.dsn)
		fmt.Fprintf(&datasets, accountDatasets, kind.name, kind.one, kind.several)
		fed = append(fed, "fed-"+kind.name, "view-"+kind.name, "join-"+kind.name)
	}
	a.config = fmt.Sprintf("membership: {etcd: {endpoints: [%q], lease_ttl: 2s}}\norigins:\n%sdatasets:%s",
		a.etcd.Endpoint(), origins.String(), datasets.String())
	applyFeeds(t, a.config, fed...)
	a.sidecars = rig.Sidecars(t, 3, a.config)
	rig.Eventually(t, time.Minute, func() error {
		for _, s := range a.sidecars {
			if s.Metric("ringside_change_feed_gap") != 0 {
				return fmt.Errorf("a change feed of %s is not live", s.ID)
			}
		}
		return nil
	})
	return a
}

func (a *accounts) change(database, statement string) {
	a.t.Helper()
	if _, err := a.databases[database].Exec(statement); err != nil {
		a.t.Fatalf("%s: %s: %v", database, statement, err)
	}
}

// await waits until each member answers for a key with a status and want in the body.
func (a *accounts) await(dataset, key string, status int, want ...string) {
	a.t.Helper()
	for i := range a.sidecars {
		rig.Eventually(a.t, time.Minute, func() error { return a.check(i, dataset, key, status, want...) })
	}
}

func (a *accounts) check(i int, dataset, key string, status int, want ...string) error {
	got, body, err := a.get(i, dataset, key)
	for _, text := range want {
		if err == nil && !strings.Contains(body, text) {
			err = fmt.Errorf("want %q", text)
		}
	}
	if err != nil || got != status {
		return fmt.Errorf("%s of %s through %s: %d %s, %v; want %d", key, dataset, a.sidecars[i].ID, got, body, err, status)
	}
	return nil
}

// dataErrors returns how many loads of a dataset have found several rows of a key.
func (a *accounts) dataErrors(dataset string) (n float64) {
	for _, s := range a.sidecars {
		n += s.Metric("ringside_data_errors_total", `dataset="`+dataset+`"`, `reason="several-rows"`)
	}
	return n
}

// A user whose value every member has cached gets a second row: no member returns the value again until the row is deleted, by the
// ttl as well as by the feed. Other users are not concerned.
func TestSecondRowOfACachedKeyIsAnErrorOnEveryMember(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	a.wantInvalid("short-postgres", "fed-postgres", "short-mariadb", "fed-mariadb")
	for database := range a.databases {
		datasets := []string{"short-" + database, "fed-" + database}
		for _, dataset := range datasets {
			a.await(dataset, "alice", http.StatusOK, "secret-1")
			if n := a.dataErrors(dataset); n != 0 {
				t.Errorf("%s: %v data errors before the second row", dataset, n)
			}
		}
		a.change(database, "INSERT INTO users VALUES (3, 'alice', 'secret-3')")
		for _, dataset := range datasets {
			a.await(dataset, "alice", http.StatusInternalServerError, "data-error", "several-rows")
			before := a.dataErrors(dataset)
			if before == 0 {
				t.Errorf("%s: no data error was counted", dataset)
			}
			rig.Eventually(t, time.Minute, func() error { // until the error has expired and was found again
				for i := range a.sidecars {
					if err := a.check(i, dataset, "alice", http.StatusInternalServerError, "data-error"); err != nil {
						t.Fatal(err)
					}
				}
				if a.dataErrors(dataset) == before {
					return fmt.Errorf("%s: still %v data errors", dataset, before)
				}
				return nil
			})
			a.await(dataset, "bob", http.StatusOK, "secret-2")
		}
		a.change(database, "DELETE FROM users WHERE id = 3")
		for _, dataset := range datasets {
			a.await(dataset, "alice", http.StatusOK, "secret-1")
		}
	}
}

// wantInvalid fails the test unless `ringside validate` names the key of exactly these datasets.
func (a *accounts) wantInvalid(datasets ...string) {
	a.t.Helper()
	file := filepath.Join(a.t.TempDir(), "ringside.yaml")
	if err := os.WriteFile(file, []byte("peer_tls: {insecure: true}\n"+a.config), 0o600); err != nil {
		a.t.Fatal(err)
	}
	out, err := exec.Command(rig.Binary(a.t), "validate", "-c", file).CombinedOutput()
	for _, dataset := range datasets {
		if want := "datasets." + dataset + `.key: column "username" of table users has no unique index: `; !strings.Contains(string(out), want) {
			a.t.Errorf("validate: %v\n%s\nwant %q", err, out, want)
		}
	}
	if n := strings.Count(string(out), ".key: "); err == nil || n != len(datasets) {
		a.t.Errorf("validate: %v, %d keys; want %d\n%s", err, n, len(datasets), out)
	}
}

// The values of a join come from two tables. A change of either reaches the cached entry of every member long before its ttl.
func TestChangeOfEitherTableOfAJoinReachesEveryMember(t *testing.T) {
	t.Parallel()
	a := newAccounts(t)
	for database := range a.databases {
		datasets := []string{"view-" + database, "join-" + database}
		for _, step := range []struct{ statement, want string }{
			{"", `[{"secret":"secret-1","reply":"reply-1"}]`},
			{"UPDATE radcheck SET value = 'secret-9' WHERE id = 1", `[{"secret":"secret-9","reply":"reply-1"}]`},
			{"UPDATE radreply SET value = 'reply-9' WHERE id = 1", `[{"secret":"secret-9","reply":"reply-9"}]`},
			{"INSERT INTO radreply VALUES (3, 'alice', 'reply-3')", `[{"secret":"secret-9","reply":"reply-3"},{"secret":"secret-9","reply":"reply-9"}]`},
			{"DELETE FROM radreply WHERE id = 1", `[{"secret":"secret-9","reply":"reply-3"}]`},
		} {
			if step.statement != "" {
				a.change(database, step.statement)
			}
			for _, dataset := range datasets {
				a.await(dataset, "alice", http.StatusOK, step.want)
			}
		}
		a.change(database, "UPDATE radreply SET username = 'bob' WHERE id = 3")
		for _, dataset := range datasets {
			a.await(dataset, "alice", http.StatusNotFound)
			a.await(dataset, "bob", http.StatusOK, `[{"secret":"secret-2","reply":"reply-2"},{"secret":"secret-2","reply":"reply-3"}]`)
		}
	}
}
