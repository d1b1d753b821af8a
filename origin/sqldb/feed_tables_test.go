package sqldb_test

import (
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

// radius is a join of two tables, as the attributes of RADIUS users are.
func (d database) radius(t *testing.T) {
	t.Helper()
	d.exec(t, "CREATE TABLE radcheck (id INT PRIMARY KEY, username VARCHAR(64) NOT NULL, value VARCHAR(64))")
	d.exec(t, "CREATE TABLE radreply (id INT PRIMARY KEY, username VARCHAR(64) NOT NULL, value VARCHAR(64))")
	d.exec(t, "CREATE VIEW users AS SELECT c.username, c.value AS secret, r.value AS reply FROM radcheck AS c "+
		"LEFT JOIN radreply AS r ON r.username = c.username")
}

var radiusTables = map[string][]string{"radcheck": {"username"}, "radreply": {"username"}}

// Each table reports the key of its rows, and no version: that of one of several rows is not that of the value.
func testFeedOfSeveralTables(t *testing.T, d database, c origin.FeedConfig) {
	d.radius(t)
	c.Tables = radiusTables
	for name, ds := range map[string]origin.Dataset{
		"view":  {Table: "users", Key: []string{"username"}},
		"query": {Query: d.placeholders("SELECT secret, reply FROM users WHERE username = ?")},
	} {
		ds.Name = name
		d.testFeedOfTables(t, ds, c, []feedStep{
			{"INSERT INTO radcheck VALUES (1, 'alice', 'x'), (2, 'bob', 'x')", []string{"alice", "bob"}},
			{"INSERT INTO radreply VALUES (1, 'alice', 'y')", []string{"alice"}},
			{"UPDATE radreply SET value = 'z' WHERE id = 1", []string{"alice"}},
			{"UPDATE radreply SET username = 'bob' WHERE id = 1", []string{"alice", "bob"}},
			{"DELETE FROM radreply", []string{"bob"}},
			{"DELETE FROM radcheck", []string{"alice", "bob"}},
		})
	}
	c.Tables = map[string][]string{"radcheck": {"user"}}
	_, _, err := d.open(t).ChangesSQL(soon(t), origin.Dataset{Name: "view", Table: "users", Key: []string{"username"}}, c)
	if err == nil || !strings.Contains(err.Error(), `there is no column "user"`) {
		t.Errorf("a missing column: %v", err)
	}
}

// feedStep is a statement, and the keys that a feed reports for it.
type feedStep struct {
	statement string
	want      []string
}

// testFeedOfTables installs the triggers of a feed twice, takes the steps, and removes the triggers.
func (d database) testFeedOfTables(t *testing.T, ds origin.Dataset, c origin.FeedConfig, steps []feedStep) {
	t.Helper()
	r := d.record(t, ds, c)
	c = r.config
	if err := r.db.InstallChanges(soon(t), r.ds, c); err != nil {
		t.Errorf("%s: installed again: %v", ds.Name, err)
	}
	if err := r.db.CheckFeed(soon(t), r.ds, c); err != nil {
		t.Errorf("%s: %v", ds.Name, err)
	}
	f := r.started(t)
	for _, step := range steps {
		want := map[string]int64{}
		for _, key := range step.want {
			want[key] = 0
		}
		d.exec(t, step.statement)
		f.want(want)
	}
	f.stop()
	if err := r.db.RemoveChanges(soon(t), r.ds, c); err != nil {
		t.Errorf("%s: %v", ds.Name, err)
	}
	want := "no trigger of table radcheck reports INSERT"
	if c.Kind == origin.FeedLogical {
		want = "does not exist"
	}
	if err := r.db.CheckFeed(soon(t), r.ds, c); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s removed: got %v, want %q", ds.Name, err, want)
	}
}

// Each table has its own names for the components of the key, and reports both keys of a row that moves.
func testFeedOfACompositeKey(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, "CREATE TABLE radcheck (id INT PRIMARY KEY, realm VARCHAR(64) NOT NULL, username VARCHAR(64) NOT NULL, value VARCHAR(64))")
	d.exec(t, "CREATE TABLE radreply (id INT PRIMARY KEY, account VARCHAR(64) NOT NULL, zone VARCHAR(64), value VARCHAR(64))")
	d.exec(t, "CREATE VIEW users AS SELECT c.realm, c.username, c.value AS secret, r.value AS reply FROM radcheck AS c "+
		"LEFT JOIN radreply AS r ON r.account = c.username AND r.zone = c.realm")
	c.Tables = map[string][]string{"radcheck": {"realm", "username"}, "radreply": {"zone", "account"}}
	key := []string{"realm", "username"}
	for name, ds := range map[string]origin.Dataset{
		"view":  {Table: "users", Key: key},
		"query": {Query: d.placeholders("SELECT realm, username, secret, reply FROM users WHERE realm = ? AND username = ?"), Key: key},
	} {
		ds.Name = name
		d.testFeedOfTables(t, ds, c, []feedStep{
			{"INSERT INTO radcheck VALUES (1, 'a/b', 'alice', 'x'), (2, 'org', '100%', 'x')", []string{"a%2Fb/alice", "org/100%25"}},
			{"INSERT INTO radreply VALUES (1, 'alice', 'a/b', 'y')", []string{"a%2Fb/alice"}},
			{"UPDATE radreply SET value = 'z' WHERE id = 1", []string{"a%2Fb/alice"}},
			{"UPDATE radreply SET zone = 'org', account = '100%' WHERE id = 1", []string{"a%2Fb/alice", "org/100%25"}},
			{"UPDATE radcheck SET realm = 'net' WHERE id = 1", []string{"a%2Fb/alice", "net/alice"}},
			{"UPDATE radreply SET zone = NULL WHERE id = 1", []string{"org/100%25"}}, // part of a key is none
			{"UPDATE radreply SET zone = 'net' WHERE id = 1", []string{"net/100%25"}},
			{"DELETE FROM radreply", []string{"net/100%25"}},
			{"DELETE FROM radcheck", []string{"net/alice", "org/100%25"}},
		})
	}
	c.Tables = map[string][]string{"radcheck": {"realm", "username"}, "radreply": {"zone", "user"}}
	_, _, err := d.open(t).ChangesSQL(soon(t), origin.Dataset{Name: "view", Table: "users", Key: key}, c)
	if err == nil || !strings.Contains(err.Error(), `there is no column "user": it has id, account, zone, value`) {
		t.Errorf("a missing column: %v", err)
	}
}

// A view has no triggers: all say the same, before anything is installed.
func testFeedOfAView(t *testing.T, d database, c origin.FeedConfig) {
	d.radius(t)
	db, ds := d.open(t), origin.Dataset{Name: "view", Table: "users", Key: []string{"username"}}
	for name, err := range map[string]error{
		"check": db.CheckFeed(soon(t), ds, c), "install": db.InstallChanges(soon(t), ds, c),
	} {
		if err == nil || !strings.Contains(err.Error(), "only a table has triggers") || !strings.Contains(err.Error(), "feed.tables") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := db.Feed(origin.Dataset{Name: "query", Query: d.placeholders("SELECT secret FROM users WHERE username = ?")}, c)
	if err == nil || !strings.Contains(err.Error(), "query: only a table has triggers") {
		t.Errorf("a query: %v", err)
	}
}
