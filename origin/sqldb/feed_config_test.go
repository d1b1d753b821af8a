package sqldb_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

func TestNoErrorOfAFeedContainsASecret(t *testing.T) {
	for driver, dsn := range map[string]string{
		"postgres": "postgres://user:" + canary + "@127.0.0.1:1/db", "mysql": "user:" + canary + "@tcp(127.0.0.1:1)/db",
	} {
		d := database{driver: driver, dsn: dsn}
		db := d.open(t)
		for _, c := range d.feeds() {
			ds := rowsDataset
			ds.Name = "rows"
			feed, err := db.Feed(ds, c)
			if err != nil {
				t.Fatal(err)
			}
			for _, err := range []error{
				feed.Follow(soon(t), nil), db.CheckFeed(soon(t), ds, c), db.InstallChanges(soon(t), ds, c),
			} {
				if err == nil || strings.Contains(fmt.Sprintf("%+v", err), canary) ||
					!strings.Contains(err.Error(), `origin "db", dataset "rows"`) {
					t.Errorf("%s: %v", c.Kind, err)
				}
			}
		}
	}
}

// pollTables returns the configuration of a feed of a table with these columns of the key, and perhaps of a table b.
func pollTables(table string, columns ...string) origin.FeedConfig {
	c := origin.FeedConfig{Kind: origin.FeedPoll, Tables: map[string][]string{}}
	if i := slices.Index(columns, "b"); i >= 0 {
		columns, c.Tables["b"] = columns[:i], columns[i+1:]
	}
	c.Tables[table] = columns
	return c
}

func TestInvalidFeeds(t *testing.T) {
	table, notify := origin.Dataset{Name: "rows", Table: "r", Key: []string{"k"}}, origin.FeedConfig{Kind: origin.FeedNotify}
	for _, c := range []struct {
		driver, dsn string
		ds          origin.Dataset
		feed        origin.FeedConfig
		want        string
	}{
		{"postgres", "host=h", table, origin.FeedConfig{Kind: "push"}, "use notify or poll or logical"},
		{"sqlite", "x.db", table, notify, "use poll"},
		{"postgres", "host=h", origin.Dataset{Name: "rows", Query: "SELECT $1"}, notify, "in feed.tables"},
		{"postgres", "host=h", origin.Dataset{Name: "ro'ws", Table: "r", Key: []string{"k"}}, notify, "cannot carry the dataset name"},
		{"postgres", "host=h", table, origin.FeedConfig{Kind: origin.FeedNotify, Channel: "a\"b"}, "channel"},
		{"postgres", "host=h", origin.Dataset{Name: "rows", Table: "r"}, notify, "table needs key"},
		{"sqlite", "x.db", users, pollTables("a", "realm", "name", "b", "realm"), "tables: b: has 1 of 2 columns; want the one of this table for " +
			"each column of key (realm, name), in this order"},
		{"sqlite", "x.db", users, pollTables("a", "realm", "name", "v"), "tables: a: has 3 of 2 columns"},
		{"sqlite", "x.db", users, pollTables("a", "name", "name"), "tables: a: names the column name twice"},
		{"sqlite", "x.db", users, pollTables("a", "realm", ""), "tables: a: want the columns"},
		{"sqlite", "x.db", users, pollTables("", "realm", "name"), `tables: "" is not the name of a table`},
		{"sqlite", "x.db", origin.Dataset{Name: "rows", Query: "SELECT ?"}, pollTables("a", "realm", "name"),
			"tables: a: has 2 columns for a key of one; name the columns of the key of the query in key"},
	} {
		db := database{driver: c.driver, dsn: c.dsn}.open(t)
		_, err := db.Feed(c.ds, c.feed)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
		if _, _, again := db.ChangesSQL(soon(t), c.ds, c.feed); again == nil || again.Error() != err.Error() {
			t.Errorf("got %v, want %v", again, err)
		}
	}
}
