package sqldb_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

// testRotatedPassword changes the password of an account, and then the DSN: existing connections stay, and new ones need the
// new password.
func testRotatedPassword(t *testing.T, d database) {
	if d.driver == "sqlite" || d.behind != "" {
		return // SQLite has no accounts; the rig's PgBouncer checks no password
	}
	d.exec(t, "CREATE TABLE r (k VARCHAR(9) PRIMARY KEY, v VARCHAR(9), ver BIGINT)")
	d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
	app := d.connectAs(t, "SELECT")
	d.setPassword(t, "old")
	var dsn atomic.Pointer[string]
	dsn.Store(new(app.dsnWith("old")))
	db, err := openDB(d.driver, origin.SourceConfig{
		Name: "db", DSN: *dsn.Load(), ReloadDSN: func() (string, error) { return *dsn.Load(), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	o, err := db.Dataset(origin.Dataset{Name: "rows", Table: "r", Key: []string{"k"}})
	if err != nil {
		t.Fatal(err)
	}
	loadOne(t, o, "a")

	d.setPassword(t, "new")
	for ctx := soon(t); ; d.endSessions(t) { // until the server has reloaded its authentication rules
		if _, err := o.Load(ctx, []string{"a"}); err != nil {
			break
		}
	}
	dsn.Store(new(app.dsnWith("new")))
	loadOne(t, o, "a")
	if d.driver == "postgres" {
		feed, err := db.Feed(origin.Dataset{Name: "rows", Table: "r", Key: []string{"k"}}, origin.FeedConfig{Kind: origin.FeedNotify, Channel: "changes"})
		if err != nil {
			t.Fatal(err)
		}
		follow(t, feed).wantStart(true)
	}
	if db.TargetChanged() {
		t.Error("got a changed target after a new password, want none")
	}

	// The DSN of another database neither replaces this one, nor is its password sent to it.
	dsn.Store(new(strings.Replace(app.dsnWith("other"), "127.0.0.1", "127.0.0.2", 1)))
	d.endSessions(t)
	loadOne(t, o, "a")
	if !db.TargetChanged() {
		t.Error("got no changed target after the DSN of another database")
	}
}

// account is the name of the account of connectAs.
func (d database) account() string { return "other_" + d.dsn[strings.LastIndexAny(d.dsn, "=/")+1:] }

func (d database) dsnWith(password string) string {
	account, rest, _ := strings.Cut(d.dsn, "@")
	return account[:strings.LastIndex(account, "other_")] + d.account() + ":" + password + "@" + rest
}

// setPassword also makes the server require it: the rig's PostgreSQL trusts all clients.
func (d database) setPassword(t *testing.T, password string) {
	t.Helper()
	if d.driver != "postgres" {
		d.root(t).exec(t, fmt.Sprintf("ALTER USER '%s'@'127.0.0.1' IDENTIFIED BY '%s'", d.account(), password))
		return
	}
	d.exec(t, fmt.Sprintf("ALTER ROLE %s PASSWORD '%s'", d.account(), password))
	var file string
	if err := d.QueryRow("SHOW hba_file").Scan(&file); err != nil {
		t.Fatal(err)
	}
	d.exec(t, fmt.Sprintf(`COPY (VALUES ('host all %s 127.0.0.1/32 scram-sha-256'), ('host all all 127.0.0.1/32 trust'))
		TO '%s'`, d.account(), file))
	d.exec(t, "SELECT pg_reload_conf()")
}

// endSessions ends the sessions of the account.
func (d database) endSessions(t *testing.T) {
	t.Helper()
	if d.driver == "postgres" {
		d.exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '"+d.account()+"'")
		return
	}
	root := d.root(t)
	rows, err := root.Query("SELECT id FROM information_schema.PROCESSLIST WHERE user = ?", d.account())
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		root.Exec(fmt.Sprint("KILL ", id)) // fails if the session has just ended
	}
}
