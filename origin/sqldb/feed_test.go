package sqldb_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// feeds returns a configuration of each kind that the database supports.
func (d database) feeds() []origin.FeedConfig {
	poll := origin.FeedConfig{Kind: origin.FeedPoll, Interval: 10 * time.Millisecond}
	switch {
	case d.driver != "postgres" || d.engine == "pgbouncer-transaction": // which delivers no notifications
		return []origin.FeedConfig{poll}
	case d.engine == "pgbouncer-session": // which does not pass on replication
		return []origin.FeedConfig{{Kind: origin.FeedNotify}, poll}
	}
	return []origin.FeedConfig{{Kind: origin.FeedNotify}, poll, {Kind: origin.FeedLogical}}
}

// recorded is a dataset whose changes are recorded.
type recorded struct {
	database
	db     *sqldb.DB
	ds     origin.Dataset
	config origin.FeedConfig
}

// record installs the triggers or the publication of a feed. Publications belong to the whole server.
func (d database) record(t testing.TB, ds origin.Dataset, c origin.FeedConfig) *recorded {
	t.Helper()
	r := &recorded{d, d.open(t), ds, c}
	if r.ds.Name == "" {
		r.ds.Name = "rows"
	}
	if c.Kind == origin.FeedLogical {
		r.config.Publication = fmt.Sprintf("%s.%s", d.schema(), r.ds.Name)
		d.identify(t, ds, c)
		c = r.config
	}
	if err := r.db.InstallChanges(soon(t), r.ds, c); err != nil {
		t.Fatal(err)
	}
	return r
}

func (d database) schema() string { return d.dsn[strings.LastIndexAny(d.dsn, "=/")+1:] }

// identify makes the log have the previous version, and the previous key if that is not the primary key.
func (d database) identify(t testing.TB, ds origin.Dataset, c origin.FeedConfig) {
	t.Helper()
	names := slices.Collect(maps.Keys(c.Tables))
	if len(names) == 0 {
		names = []string{ds.Table}
	}
	for _, name := range names {
		schema, table := sqltext.SplitTable(name)
		if table = sqltext.QuoteWith(`"`, table); schema != "" {
			table = sqltext.QuoteWith(`"`, schema) + "." + table
		}
		for _, table := range append(d.children(t, table), table) {
			d.exec(t, "ALTER TABLE "+table+" REPLICA IDENTITY FULL")
		}
	}
}

// children returns the tables that inherit from a table.
func (d database) children(t testing.TB, table string) (names []string) {
	t.Helper()
	// Without a parameter: sessions of tests forget prepared statements (DISCARD ALL).
	rows, err := d.Query("SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE NOT c.relispartition " +
		"AND inhparent = to_regclass(" + quoted(table) + ")")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	return names
}

func (r *recorded) feed(t testing.TB) origin.Feed {
	t.Helper()
	feed, err := r.db.Feed(r.ds, r.config)
	if err != nil {
		t.Fatal(err)
	}
	return feed
}

// started returns a follower of the feed that has begun.
func (r *recorded) started(t testing.TB) *follower {
	t.Helper()
	var feed origin.Feed = startingFeed{r.feed(t)}
	if r.config.Kind == origin.FeedPoll { // which misses nothing in between
		feed = persistentFeed{feed}
	}
	f := follow(t, feed)
	f.wantStart(true)
	return f
}

const rowsTable = "CREATE TABLE r (k VARCHAR(100) PRIMARY KEY, v VARCHAR(100), ver BIGINT)"

var rowsDataset = origin.Dataset{Table: "r", Key: []string{"k"}, Version: "ver"}

// TestFeeds runs each test with each kind of feed of each database.
func TestFeeds(t *testing.T) {
	tests := []struct {
		name string
		test func(t *testing.T, d database, c origin.FeedConfig)
		only string // databases and kinds; empty: all
	}{
		{"Conformance", testFeedConformance, ""},
		{"Truncate", testFeedTruncate, "postgres"},
		{"AHundredThousandRows", testFeedOfAHundredThousandRows, ""},
		{"ManyStatementsOfOneTransaction", testFeedOfManyStatements, ""},
		{"OverlappingTransactions", testFeedOfOverlappingTransactions, "postgres mysql"},
		{"Prunes", testFeedPrunes, "poll"},
		{"PrunesNoUnreadRow", testFeedPrunesNoUnreadRow, "poll"},
		{"AfterAPauseHasMissedChanges", testFeedAfterAPauseHasMissedChanges, "poll"},
		{"WithoutTheRightToPrune", testFeedWithoutTheRightToPrune, "poll"},
		{"RandomChannel", testRandomChannel, "notify"},
		{"EachStatement", testFeedOfEachStatement, ""},
		{"AFile", testFeedOfAFile, "postgres mysql"},
		{"KeysAreThoseOfLoad", testFeedKeysAreThoseOfLoad, ""},
		{"NamesThatNeedQuotes", testFeedOfNamesThatNeedQuotes, ""},
		{"BinaryKey", testFeedOfABinaryKey, "mysql"},
		{"MissingColumn", testFeedOfAMissingColumn, ""},
		{"TwoDatasets", testFeedsOfTwoDatasets, ""},
		{"WithoutVersions", testFeedWithoutVersions, ""},
		{"ManyRows", testFeedOfManyRows, ""},
		{"WritersNeedNoRights", testFeedWritersNeedNoRights, "postgres mysql"},
		{"OfSeveralTables", testFeedOfSeveralTables, ""},
		{"OfSeveralTablesOfACompositeKey", testFeedOfACompositeKey, ""},
		{"OfAView", testFeedOfAView, ""},
		{"Removed", testChangesRemoved, ""},
		{"Check", testCheckFeed, ""},
		{"WhileLoadsHoldEveryConnection", testFeedWhileLoadsHoldEveryConnection, "poll"},
		{"WithoutTheTableOfChanges", testFeedWithoutTheTableOfChanges, "poll"},
		{"ContinuesAtItsPosition", testFeedContinuesAtItsPosition, ""},
		{"Pruned", testFeedOfPrunedChanges, "poll"},
	}
	ofTriggers := []string{"OverlappingTransactions", "Removed", "Check"} // feed_logical_test.go has those of logical decoding
	eachDatabase(t, func(t *testing.T, server database) {
		for i, test := range tests {
			for _, c := range server.feeds() {
				if c.Kind == origin.FeedLogical && slices.Contains(ofTriggers, test.name) {
					continue
				}
				if test.only != "" && !strings.Contains(test.only, server.driver) && !strings.Contains(test.only, c.Kind) {
					continue
				}
				t.Run(test.name+"/"+c.Kind, func(t *testing.T) {
					test.test(t, server.empty(t, fmt.Sprint("feed", i, c.Kind)), c)
				})
			}
		}
	})
}

// inserted is the reported version of an inserted row.
func (d database) inserted(version int64) int64 {
	if d.driver == "sqlite" {
		return 0
	}
	return version
}

// testFeedConformance tests the contract of origin.Feed.
func testFeedConformance(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	f := d.record(t, rowsDataset, c).started(t)
	for _, step := range []struct {
		statement string
		want      map[string]int64
	}{
		{"INSERT INTO r VALUES ('a', 'x', 1), ('b', 'x', 7), ('it''s', 'x', NULL)",
			map[string]int64{"a": d.inserted(1), "b": d.inserted(7), "it's": 0}},
		{"UPDATE r SET v = 'y', ver = ver + 1 WHERE k = 'a'", map[string]int64{"a": 2}},
		{"UPDATE r SET v = 'y', ver = ver + 1", map[string]int64{"a": 3, "b": 8, "it's": 0}},
		{"UPDATE r SET v = 'z' WHERE k = 'a'", map[string]int64{"a": 0}}, // a writer that does not maintain versions
		{"UPDATE r SET k = 'c', ver = ver + 1 WHERE k = 'b'", map[string]int64{"b": 0, "c": 0}},
		{"DELETE FROM r WHERE k = 'a'", map[string]int64{"a": 0}},
		{"INSERT INTO r VALUES ('a', 'x', 1)", map[string]int64{"a": d.inserted(1)}},
		{"DELETE FROM r", map[string]int64{"a": 0, "c": 0, "it's": 0}},
	} {
		d.exec(t, step.statement)
		f.want(step.want)
	}
	testFeedIgnoresARollback(t, d, f)
	testFeedEndsWithItsContext(t, f)
}

func testFeedIgnoresARollback(t *testing.T, d database, f *follower) {
	tx, err := d.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("INSERT INTO r VALUES ('never', 'x', 1)"); err != nil {
		t.Fatal(err)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	d.exec(t, "INSERT INTO r VALUES ('after', 'x', 1)")
	f.want(map[string]int64{"after": d.inserted(1)})
}

func testFeedEndsWithItsContext(t *testing.T, f *follower) {
	f.cancel()
	if err := f.end(); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v, want context.Canceled", err)
	}
	f.ended <- nil // for stop
}
