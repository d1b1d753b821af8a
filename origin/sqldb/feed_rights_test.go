package sqldb_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb"
)

// If the trigger needed rights of the writer, the writes of other accounts would fail.
func testFeedWritersNeedNoRights(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	f := d.record(t, rowsDataset, c).started(t)
	writer := d.connectAs(t, "INSERT, SELECT, UPDATE, DELETE")
	writer.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
	f.want(map[string]int64{"a": d.inserted(1)})
	writer.exec(t, "DELETE FROM r")
	f.want(map[string]int64{"a": 0})
}

// connectAs returns the database with an account that has rights on the table r only.
func (d database) connectAs(t *testing.T, rights string) database {
	t.Helper()
	schema := d.dsn[strings.LastIndexAny(d.dsn, "=/")+1:]
	other := d
	switch d.driver {
	case "postgres":
		d.exec(t, "CREATE ROLE other_"+schema+" LOGIN")
		d.exec(t, "GRANT USAGE ON SCHEMA "+schema+" TO other_"+schema)
		other.dsn = strings.Replace(d.dsn, "ringside:ringside@", "other_"+schema+"@", 1)
	case "mysql":
		d.root(t).exec(t, "CREATE USER 'other_"+schema+"'@'127.0.0.1' IDENTIFIED BY 'ringside'")
		other.dsn = strings.Replace(d.dsn, "ringside:ringside@", "other_"+schema+":ringside@", 1)
	default:
		t.Fatal("it has no accounts")
	}
	d.grant(t, rights+" ON r")
	other.DB = connect(t, other.sqlDriver(), other.direct())
	return other
}

// grant gives the account of connectAs more rights.
func (d database) grant(t *testing.T, rights string) {
	t.Helper()
	account := "other_" + d.dsn[strings.LastIndexAny(d.dsn, "=/")+1:]
	if d.driver == "postgres" {
		d.exec(t, "GRANT "+rights+" TO "+account)
		return
	}
	d.root(t).exec(t, "GRANT "+rights+" TO '"+account+"'@'127.0.0.1'")
}

// root may grant rights.
func (d database) root(t *testing.T) database {
	return database{DB: connect(t, "mysql", strings.Replace(d.dsn, "ringside:ringside@", "root@", 1))}
}

func testFeedOfAReadOnlyAccount(t *testing.T, d, reader database, c origin.FeedConfig) {
	ds := rowsDataset
	ds.Name = "rows"
	feed, err := reader.open(t).Feed(ds, c)
	if err != nil {
		t.Fatal(err)
	}
	f := follow(t, feed)
	f.wantStart(true)
	d.exec(t, "INSERT INTO r VALUES ('read', 'x', 1)")
	f.want(map[string]int64{"read": 1})
	f.stop()
}

func testCheckFeed(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	db, ds := d.open(t), rowsDataset
	ds.Name = "rows"
	check := func(db *sqldb.DB, want ...string) {
		t.Helper()
		err := db.CheckFeed(soon(t), ds, c)
		for _, want := range want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		}
		if len(want) == 0 && err != nil {
			t.Error(err)
		}
	}
	check(db, "`ringside changes apply rows`", `origin "db", dataset "rows"`)
	if err := db.CheckFeed(soon(t), ds, c); !errors.Is(err, origin.ErrFeedUnavailable) {
		t.Errorf("got %v, want origin.ErrFeedUnavailable", err)
	}
	var other database
	if d.driver != "sqlite" {
		other = d.connectAs(t, "SELECT")
		err := other.open(t).InstallChanges(soon(t), ds, c)
		if err == nil || !strings.Contains(err.Error(), "`ringside changes sql rows`") {
			t.Errorf("install without rights: got %v, want an error with advice", err)
		}
	}
	if err := db.InstallChanges(soon(t), ds, c); err != nil {
		t.Fatal(err)
	}
	check(db)
	if d.driver != "sqlite" && c.Kind == origin.FeedPoll {
		check(other.open(t), "GRANT SELECT")
		d.grant(t, "SELECT ON ringside_changes")
		check(other.open(t))
		testFeedOfAReadOnlyAccount(t, d, other, c)
	}
	d.exec(t, map[string]string{
		"postgres": "DROP TRIGGER ringside_" + c.Kind + "_rows_update ON r",
		"mysql":    "DROP TRIGGER ringside_poll_rows_update", "sqlite": "DROP TRIGGER ringside_poll_rows_update",
	}[d.driver])
	check(db, "no trigger of table r reports UPDATE")
}

// On a server with a binary log, an account without global privileges cannot create triggers. The error must say what helps,
// and nothing may have been dropped before.
func TestInstallOnAServerWithABinaryLog(t *testing.T) {
	for name, start := range map[string]func() string{
		"mysql8":  func() string { return rig.NewMySQL(t, "--log-bin=binlog", "--server-id=1").DSN },
		"mariadb": func() string { return rig.NewMariaDBWith(t, "--log-bin=binlog", "--server-id=1").DSN },
	} {
		t.Run(name, func(t *testing.T) {
			dsn := start()
			d := database{DB: connect(t, "mysql", dsn), driver: "mysql", dsn: dsn}
			d.exec(t, rowsTable)
			other := d.connectAs(t, "SELECT, INSERT, UPDATE, DELETE, TRIGGER")
			d.root(t).exec(t, "GRANT SELECT, INSERT, CREATE ON ringside.* TO 'other_ringside'@'127.0.0.1'")
			c, ds := origin.FeedConfig{Kind: origin.FeedPoll}, rowsDataset
			ds.Name = "rows"
			err := other.open(t).InstallChanges(soon(t), ds, c)
			for _, want := range []string{"log_bin_trust_function_creators = 1", "SUPER", "TRIGGER"} {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
			}
			if n := d.count(t, "SELECT count(*) FROM information_schema.TABLES WHERE TABLE_NAME = 'ringside_changes'"); n != 0 {
				t.Error("the script has begun")
			}
			d.root(t).exec(t, "SET GLOBAL log_bin_trust_function_creators = 1")
			if err := other.open(t).InstallChanges(soon(t), ds, c); err != nil {
				t.Error(err)
			}
		})
	}
}

// What CREATE TRIGGER needs, on the server that runs: each of these privileges is enough.
func TestPrivilegesForTriggersOnAServerWithABinaryLog(t *testing.T) {
	dsn := rig.NewMySQL(t, "--log-bin=binlog", "--server-id=1").DSN
	d := database{DB: connect(t, "mysql", dsn), driver: "mysql", dsn: dsn}
	for i, privilege := range []string{"SET_USER_ID", "SUPER"} {
		d.exec(t, "DROP TABLE IF EXISTS r, ringside_changes")
		d.exec(t, rowsTable)
		d.root(t).exec(t, "DROP USER IF EXISTS 'other_ringside'@'127.0.0.1'")
		other := d.connectAs(t, "SELECT, INSERT, UPDATE, DELETE, TRIGGER")
		d.root(t).exec(t, "GRANT SELECT, INSERT, CREATE ON ringside.* TO 'other_ringside'@'127.0.0.1'")
		d.root(t).exec(t, "GRANT "+privilege+" ON *.* TO 'other_ringside'@'127.0.0.1'")
		ds := rowsDataset
		ds.Name = "rows"
		if err := other.open(t).InstallChanges(soon(t), ds, origin.FeedConfig{Kind: origin.FeedPoll}); err != nil {
			t.Errorf("%d: %s: %v", i, privilege, err)
		}
	}
}

// A transaction that notifies cannot be prepared: an application that commits in two phases must not learn that from
// failing writes.
func TestTwoPhaseCommitWithAFeed(t *testing.T) {
	t.Parallel()
	server := rig.NewPostgres(t)
	d := database{DB: connect(t, "pgx", server.DSN), driver: "postgres", dsn: server.DSN}
	d.exec(t, "ALTER SYSTEM SET max_prepared_transactions = 5")
	server.Stop()
	server.Start()
	d.DB = connect(t, "pgx", server.DSN)
	d.exec(t, rowsTable)
	ds := rowsDataset
	ds.Name = "rows"
	for _, c := range d.feeds() {
		install, _, err := d.open(t).ChangesSQL(soon(t), ds, c)
		warned := strings.Contains(install, "WARNING: max_prepared_transactions is 5") && strings.Contains(install, "PREPARE TRANSACTION") &&
			strings.Contains(install, "prefer feed: {kind: poll}")
		if err != nil || warned != (c.Kind == origin.FeedNotify) {
			t.Errorf("%s: warned %v, %v", c.Kind, warned, err)
		}
		if c.Kind == origin.FeedNotify {
			continue
		}
		d.exec(t, "DELETE FROM r")
		f := d.record(t, ds, c).started(t)
		writer, err := d.Conn(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, statement := range []string{"BEGIN", "INSERT INTO r VALUES ('a', 'x', 1)", "PREPARE TRANSACTION 't'", "COMMIT PREPARED 't'"} {
			if _, err := writer.ExecContext(soon(t), statement); err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
		}
		f.want(map[string]int64{"a": 1})
	}
}
