package sqldb_test

import (
	"errors"
	"strings"
	"testing"

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
