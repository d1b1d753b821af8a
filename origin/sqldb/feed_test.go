package sqldb_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb"
)

// follower is a Follow under way.
type follower struct {
	t      testing.TB
	told   chan origin.Changes
	ended  chan error
	cancel context.CancelFunc
}

// follow begins to follow a feed, and ends with the test.
func follow(t testing.TB, feed origin.Feed) *follower {
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{t: t, told: make(chan origin.Changes, 1000), ended: make(chan error, 1), cancel: cancel}
	go func() { f.ended <- feed.Follow(ctx, func(c origin.Changes) { f.told <- c }) }()
	t.Cleanup(f.stop)
	return f
}

// stop ends the Follow, and waits for it.
func (f *follower) stop() {
	f.cancel()
	err := f.end()
	f.ended <- err
}

// end returns why Follow has ended by itself.
func (f *follower) end() error {
	f.t.Helper()
	select {
	case err := <-f.ended:
		return err
	case <-time.After(patience):
		f.t.Fatal("Follow has not ended")
		return nil
	}
}

const patience = 20 * time.Second

func (f *follower) next() origin.Changes {
	f.t.Helper()
	select {
	case c := <-f.told:
		return c
	case err := <-f.ended:
		f.ended <- err
		f.t.Fatalf("Follow has ended: %v", err)
	case <-time.After(patience):
		f.t.Fatal("nothing was told")
	}
	return origin.Changes{}
}

// wantStart takes the first Changes, which say that from now on all is told.
func (f *follower) wantStart(missed bool) {
	f.t.Helper()
	if c := f.next(); c.Missed != missed || len(c.Rows) > 0 {
		f.t.Errorf("begins with %+v, want missed %v and no rows", c, missed)
	}
}

// wantMissed takes Changes until one says that some were missed.
func (f *follower) wantMissed() {
	f.t.Helper()
	for !f.next().Missed {
	}
}

// want takes Changes until all of rows were told, and nothing else.
func (f *follower) want(rows map[string]int64) {
	f.t.Helper()
	got := map[string]int64{}
	for len(got) < len(rows) {
		c := f.next()
		if c.Missed {
			f.t.Fatalf("missed; want %v", rows)
		}
		for _, row := range c.Rows {
			got[row.Key] = row.Version
		}
	}
	if !maps.Equal(got, rows) {
		f.t.Errorf("got %v, want %v", got, rows)
	}
}

// feeds are the kinds that a database has.
func (d database) feeds() []origin.FeedConfig {
	poll := origin.FeedConfig{Kind: origin.FeedPoll, Interval: 10 * time.Millisecond}
	if d.driver == "postgres" {
		return []origin.FeedConfig{{Kind: origin.FeedNotify}, poll}
	}
	return []origin.FeedConfig{poll}
}

// recorded is a dataset whose changes are recorded.
type recorded struct {
	database
	db     *sqldb.DB
	ds     origin.Dataset
	config origin.FeedConfig
}

// record has the changes of a table recorded.
func (d database) record(t testing.TB, ds origin.Dataset, c origin.FeedConfig) *recorded {
	t.Helper()
	r := &recorded{d, d.open(t), ds, c}
	if r.ds.Name == "" {
		r.ds.Name = "rows"
	}
	if err := r.db.InstallChanges(soon(t), r.ds, c); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *recorded) feed(t testing.TB) origin.Feed {
	t.Helper()
	feed, err := r.db.Feed(r.ds, r.config)
	if err != nil {
		t.Fatal(err)
	}
	return feed
}

// started follows the feed, which has begun.
func (r *recorded) started(t testing.TB) *follower {
	t.Helper()
	f := follow(t, r.feed(t))
	f.wantStart(true)
	return f
}

const rowsTable = "CREATE TABLE r (k VARCHAR(100) PRIMARY KEY, v VARCHAR(100), ver BIGINT)"

var rowsDataset = origin.Dataset{Table: "r", Key: "k", Version: "ver"}

// TestFeeds runs each test with each kind of feed of each database.
func TestFeeds(t *testing.T) {
	tests := []struct {
		name string
		test func(t *testing.T, d database, c origin.FeedConfig)
		only string // databases and kinds that it is about; empty: all
	}{
		{"Conformance", testFeedConformance, ""},
		{"Truncate", testFeedTruncate, "postgres"},
		{"AHundredThousandRows", testFeedOfAHundredThousandRows, ""},
		{"ManyStatementsOfOneTransaction", testFeedOfManyStatements, ""},
		{"TransactionsThatOverlap", testFeedOfTransactionsThatOverlap, "postgres mysql"},
		{"KeysAreThoseOfLoad", testFeedKeysAreThoseOfLoad, ""},
		{"NamesThatNeedQuotes", testFeedOfNamesThatNeedQuotes, ""},
		{"RegressionAKeyThatIsNoText", regressionAKeyThatIsNoText, "mysql"},
		{"RegressionATriggerOfAColumnThatIsNotThere", regressionATriggerOfAColumnThatIsNotThere, ""},
		{"TwoDatasets", testFeedsOfTwoDatasets, ""},
		{"WithoutVersions", testFeedWithoutVersions, ""},
		{"WritersNeedNoRights", testFeedWritersNeedNoRights, "postgres mysql"},
		{"Removed", testChangesRemoved, ""},
		{"Check", testCheckFeed, ""},
		{"LoadsThatHoldEveryConnection", testFeedBesideLoadsThatHoldEveryConnection, "poll"},
		{"RegressionWritesFailWithoutTheTableOfChanges", regressionWritesFailWithoutTheTableOfChanges, "poll"},
		{"GoesOnWhereItWas", testFeedGoesOnWhereItWas, ""},
		{"Pruned", testFeedOfPrunedChanges, "poll"},
	}
	eachDatabase(t, func(t *testing.T, server database) {
		for i, test := range tests {
			for _, c := range server.feeds() {
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

// inserted is the version that is told of an inserted row.
func (d database) inserted(version int64) int64 {
	if d.driver == "sqlite" {
		return 0
	}
	return version
}

// testFeedConformance tests what origin.Feed promises.
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
		{"UPDATE r SET v = 'z' WHERE k = 'a'", map[string]int64{"a": 0}}, // the writer knows nothing of versions
		{"UPDATE r SET k = 'c', ver = ver + 1 WHERE k = 'b'", map[string]int64{"b": 0, "c": 0}},
		{"DELETE FROM r WHERE k = 'a'", map[string]int64{"a": 0}},
		{"INSERT INTO r VALUES ('a', 'x', 1)", map[string]int64{"a": d.inserted(1)}},
		{"DELETE FROM r", map[string]int64{"a": 0, "c": 0, "it's": 0}},
	} {
		d.exec(t, step.statement)
		f.want(step.want)
	}
	testRollbackIsNotTold(t, d, f)
	testFeedEndsWithItsContext(t, f)
}

func testRollbackIsNotTold(t *testing.T, d database, f *follower) {
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

func testFeedTruncate(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	f := d.record(t, rowsDataset, c).started(t)
	d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
	f.want(map[string]int64{"a": 1})
	d.exec(t, "TRUNCATE r")
	f.wantMissed()
}

// numbers is a table of n rows.
func (d database) numbers(n int) string {
	switch d.driver {
	case "postgres":
		return fmt.Sprintf("generate_series(1, %d) AS n (i)", n)
	case "mysql":
		return fmt.Sprintf("(SELECT seq AS i FROM seq_1_to_%d) AS n", n)
	}
	return fmt.Sprintf("(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %d) "+
		"SELECT i FROM n) AS n", n)
}

// A mass of rows is one Missed, and what comes after it is told again.
func testFeedOfAHundredThousandRows(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, "CREATE TABLE r (k INTEGER PRIMARY KEY, v VARCHAR(100), ver BIGINT)")
	f := d.record(t, rowsDataset, c).started(t)
	d.exec(t, "INSERT INTO r SELECT i, 'x', 1 FROM "+d.numbers(100_000))
	f.wantMissed()
	d.exec(t, "UPDATE r SET ver = 2 WHERE k = 77777")
	for {
		c := f.next()
		if len(c.Rows) > 1000 {
			t.Fatalf("%d rows at once", len(c.Rows))
		}
		if len(c.Rows) == 1 && c.Rows[0].Key == "77777" {
			break
		}
	}
	if n := len(f.told); n > 0 {
		t.Errorf("%d more were told", n)
	}
}

// Below the bound each key is told, in pieces, and once.
func testFeedOfManyStatements(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	f := d.record(t, rowsDataset, c).started(t)
	tx, err := d.Begin()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{}
	for i := range 2500 {
		key := fmt.Sprint("key-", i/2)
		statement := fmt.Sprintf("INSERT INTO r VALUES ('%s', 'x', 1)", key)
		if i%2 == 1 {
			statement = fmt.Sprintf("UPDATE r SET ver = 2 WHERE k = '%s'", key)
		}
		if _, err := tx.Exec(statement); err != nil {
			t.Fatal(err)
		}
		want[key] = d.inserted(2)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	f.want(want)
}

// Numbers are taken in one order and become visible in another: a reader that goes by the highest number it has seen
// misses the transaction that ends last.
func testFeedOfTransactionsThatOverlap(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1), ('b', 'x', 1), ('c', 'x', 1), ('d', 'x', 1)")
	r := d.record(t, rowsDataset, c)
	before, err := d.Begin() // from before the feed began
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = before.Rollback() }() // it has been committed, or the test has failed
	if _, err := before.Exec("UPDATE r SET ver = 2 WHERE k = 'a'"); err != nil {
		t.Fatal(err)
	}
	d.exec(t, "UPDATE r SET ver = 2 WHERE k = 'b'")
	f := r.started(t)
	long, err := d.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = long.Rollback() }() // likewise
	if _, err := long.Exec("UPDATE r SET ver = 2 WHERE k = 'c'"); err != nil {
		t.Fatal(err)
	}
	for version := int64(2); version < 5; version++ {
		d.exec(t, "UPDATE r SET ver = ver + 1 WHERE k = 'd'")
		f.want(map[string]int64{"d": version}) // not held up by those under way
	}
	if err := long.Commit(); err != nil {
		t.Fatal(err)
	}
	f.want(map[string]int64{"c": 2})
	if err := before.Commit(); err != nil {
		t.Fatal(err)
	}
	f.want(map[string]int64{"a": 2})
}

var feedKeyCases = []struct {
	driver, sqlType string
	prepare         string // what the writer's session is set to
	insert, key     string
}{
	{"", "INTEGER", "", "7", "7"},
	{"", "CHAR(5)", "", "'ab'", "ab"},
	{"", "VARCHAR(50)", "", "'Ключ \"😀\\'", `Ключ "😀\`},
	{"postgres", "uuid", "", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
	{"postgres", "boolean", "", "true", "t"},
	{"postgres", "inet", "", "'10.0.0.1'", "10.0.0.1"},
	{"postgres", "date", "SET datestyle = 'German'", "'2024-02-29'", "2024-02-29"},
	{"postgres", "timestamptz", "SET timezone = 'Asia/Tokyo'", "'2024-02-29T12:00:00Z'", "2024-02-29 12:00:00+00"},
	{"postgres", "bytea", "SET bytea_output = 'escape'", `'\x00ff'`, `\x00ff`},
	{"mysql", "BIGINT UNSIGNED", "", "18446744073709551615", "18446744073709551615"},
	{"mysql", "VARCHAR(9) CHARACTER SET latin1", "", "'é'", "é"},
	{"mysql", "VARBINARY(9)", "", "'é'", "é"},
	{"mysql", "UUID", "", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
	{"mysql", "DATE", "", "'2024-02-29'", "2024-02-29"},
	{"sqlite", "DATE", "", "'2024-02-29'", "2024-02-29"},
}

func testFeedKeysAreThoseOfLoad(t *testing.T, d database, c origin.FeedConfig) {
	for i, kc := range feedKeyCases {
		if kc.driver != "" && kc.driver != d.driver {
			continue
		}
		t.Run(kc.sqlType, func(t *testing.T) {
			table := fmt.Sprint("keys", i)
			d.exec(t, fmt.Sprintf("CREATE TABLE %s (k %s PRIMARY KEY, v VARCHAR(9))", table, kc.sqlType))
			r := d.record(t, origin.Dataset{Table: table, Key: "k", Value: "v"}, c)
			f := r.started(t)
			insert := fmt.Sprintf("INSERT INTO %s VALUES (%s, 'v')", table, kc.insert)
			if d.driver == "mysql" {
				insert = strings.ReplaceAll(insert, `\`, `\\`)
			}
			writer, err := d.Conn(soon(t))
			if err != nil {
				t.Fatal(err)
			}
			defer writer.Close()
			for _, statement := range []string{cmp.Or(kc.prepare, "SELECT 1"), insert} {
				if _, err := writer.ExecContext(soon(t), statement); err != nil {
					t.Fatalf("%s: %v", statement, err)
				}
			}
			f.want(map[string]int64{kc.key: 0})
			o, err := r.db.Dataset(r.ds)
			if err != nil {
				t.Fatal(err)
			}
			loadOne(t, o, kc.key)
		})
	}
}

func testFeedOfNamesThatNeedQuotes(t *testing.T, d database, c origin.FeedConfig) {
	quote := map[bool]string{true: "`", false: `"`}[d.driver == "mysql"]
	quoted := func(name string) string { return quote + strings.ReplaceAll(name, quote, quote+quote) + quote }
	table, key, version := "Select 'Me'"+quote, "Key"+quote+"one", "{{Ver}} --"
	schema := "main"
	if d.driver != "sqlite" {
		schema = "Sche ma " + c.Kind
		d.exec(t, "CREATE SCHEMA "+quoted(schema))
	}
	full := quoted(schema) + "." + quoted(table)
	d.exec(t, fmt.Sprintf("CREATE TABLE %s (%s VARCHAR(9) PRIMARY KEY, v INT, %s INT)", full, quoted(key),
		quoted(version)))
	c.Table = "Chan'ges " + quote
	if c.Kind == origin.FeedNotify {
		c.Table, c.Channel = "", "Chan-nel.1"
	}
	f := d.record(t, origin.Dataset{Table: schema + "." + table, Key: key, Version: version}, c).started(t)
	d.exec(t, fmt.Sprintf("INSERT INTO %s VALUES ('a', 5, 1)", full))
	f.want(map[string]int64{"a": d.inserted(1)})
	d.exec(t, fmt.Sprintf("UPDATE %s SET %s = 2, v = 6", full, quoted(version)))
	f.want(map[string]int64{"a": 2})
}

// A key that is no text in any character set is none that can be loaded, and not '?' either.
func regressionAKeyThatIsNoText(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, "CREATE TABLE r (k VARBINARY(9) PRIMARY KEY, v INT)")
	f := d.record(t, origin.Dataset{Table: "r", Key: "k"}, c).started(t)
	d.exec(t, "INSERT INTO r VALUES (x'ff00', 1)")
	f.want(map[string]int64{"\xff\x00": 0})
}

// A trigger that names a column which is not there makes each write of the application fail.
func regressionATriggerOfAColumnThatIsNotThere(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	ds := rowsDataset
	ds.Name, ds.Version = "rows", "version"
	if err := d.open(t).InstallChanges(soon(t), ds, c); err == nil || !strings.Contains(err.Error(), `"version"`) {
		t.Errorf("made with %v", err)
	}
	d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
}

// Two datasets may share a channel or a table of changes, and one transaction changes both.
func testFeedsOfTwoDatasets(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	d.exec(t, strings.Replace(rowsTable, "TABLE r", "TABLE other", 1))
	f := d.record(t, rowsDataset, c).started(t)
	other := d.record(t, origin.Dataset{Name: "other", Table: "other", Key: "k", Version: "ver"}, c)
	g := other.started(t)
	tx, err := d.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{"INSERT INTO r VALUES ('a', 'x', 1)", "INSERT INTO other VALUES ('b', 'x', 2)"} {
		if _, err := tx.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	f.want(map[string]int64{"a": d.inserted(1)})
	g.want(map[string]int64{"b": d.inserted(2)})
}

func testFeedWithoutVersions(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	f := d.record(t, origin.Dataset{Table: "r", Key: "k"}, c).started(t)
	d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
	f.want(map[string]int64{"a": 0})
	d.exec(t, "UPDATE r SET ver = 2")
	f.want(map[string]int64{"a": 0})
}

// A trigger that needs rights of its own would make the writes of others fail.
func testFeedWritersNeedNoRights(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	f := d.record(t, rowsDataset, c).started(t)
	writer := d.connectAs(t, "INSERT, SELECT, UPDATE, DELETE")
	writer.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
	f.want(map[string]int64{"a": d.inserted(1)})
	writer.exec(t, "DELETE FROM r")
	f.want(map[string]int64{"a": 0})
}

// connectAs returns the database as an account sees it that has rights on the table r and nothing else.
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
	other.DB = connect(t, other.sqlDriver(), other.dsn)
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

// root may give rights away.
func (d database) root(t *testing.T) database {
	return database{DB: connect(t, "mysql", strings.Replace(d.dsn, "ringside:ringside@", "root@", 1))}
}

func testFeedOfAnAccountThatMayOnlyRead(t *testing.T, d, reader database, c origin.FeedConfig) {
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

func testChangesRemoved(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	r := d.record(t, rowsDataset, c)
	for range 2 { // it may be run again
		if err := r.db.InstallChanges(soon(t), r.ds, c); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := r.db.RemoveChanges(soon(t), r.ds, c); err != nil {
			t.Fatal(err)
		}
	}
	f := r.started(t)
	d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
	if err := r.db.InstallChanges(soon(t), r.ds, c); err != nil {
		t.Fatal(err)
	}
	f.wantMissed() // and not the row
	d.exec(t, "UPDATE r SET ver = 2")
	f.want(map[string]int64{"a": 2})
}

// A slow database must not lose its feed: without one it is asked more.
func testFeedBesideLoadsThatHoldEveryConnection(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	r := d.record(t, rowsDataset, c)
	f := r.started(t)
	slow, err := r.db.Dataset(origin.Dataset{Name: "slow", Query: d.stuck})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond) // longer than a feed waits
	defer cancel()
	var loads sync.WaitGroup
	for range origin.DefaultMaxConns {
		loads.Go(func() { _, _ = slow.Load(ctx, []string{"k"}) }) // it is ended
	}
	loads.Wait()
	d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
	f.want(map[string]int64{"a": d.inserted(1)})
}

func regressionWritesFailWithoutTheTableOfChanges(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	r := d.record(t, rowsDataset, c)
	f := r.started(t)
	d.exec(t, "DROP TABLE ringside_changes")
	cure := func(err error) {
		t.Helper()
		if !errors.Is(err, origin.ErrFeedUnavailable) || !strings.Contains(err.Error(), "`ringside changes apply rows`") ||
			strings.Contains(err.Error(), "\n") {
			t.Errorf("got %v", err)
		}
	}
	cure(f.end())
	f.ended <- nil // for stop
	cure(r.db.CheckFeed(soon(t), r.ds, c))
	if d.driver == "sqlite" {
		return // its triggers can not go on without the table
	}
	d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
	d.exec(t, "UPDATE r SET ver = 2")
	d.exec(t, "DELETE FROM r")
	if err := r.db.InstallChanges(soon(t), r.ds, c); err != nil {
		t.Fatal(err)
	}
	f = r.started(t)
	d.exec(t, "INSERT INTO r VALUES ('b', 'x', 3)")
	f.want(map[string]int64{"b": 3})
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
			t.Errorf("an account without rights made triggers: %v", err)
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
		testFeedOfAnAccountThatMayOnlyRead(t, d, other, c)
	}
	d.exec(t, map[string]string{
		"postgres": "DROP TRIGGER ringside_" + c.Kind + "_rows_update ON r",
		"mysql":    "DROP TRIGGER ringside_poll_rows_update", "sqlite": "DROP TRIGGER ringside_poll_rows_update",
	}[d.driver])
	check(db, "no trigger of table r reports UPDATE")
}

// After a break the poll tells what has happened since, and LISTEN that it does not know.
func testFeedGoesOnWhereItWas(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	feed := d.record(t, rowsDataset, c).feed(t)
	f := follow(t, feed)
	f.wantStart(true)
	f.stop()
	d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
	f = follow(t, feed)
	if c.Kind == origin.FeedNotify {
		f.wantStart(true)
		return
	}
	f.want(map[string]int64{"a": d.inserted(1)})
	f.stop()
	f = follow(t, feed)
	f.wantStart(false)
	if err := feed.Follow(soon(t), nil); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("two at a time: %v", err)
	}
}

// What was pruned before it was read is missed, and nothing else is.
func testFeedOfPrunedChanges(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	feed := d.record(t, rowsDataset, c).feed(t)
	for _, p := range []struct {
		prune  string
		missed bool
	}{
		{"DELETE FROM ringside_changes WHERE seq < 3", false},
		{"DELETE FROM ringside_changes WHERE seq < 9", true},
		{"DELETE FROM ringside_changes WHERE seq < 1000000", true}, // of somebody who did not leave the newest
	} {
		f := follow(t, feed)
		f.next()
		d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
		f.want(map[string]int64{"a": d.inserted(1)})
		d.exec(t, "DELETE FROM r")
		f.want(map[string]int64{"a": 0})
		f.stop()
		d.exec(t, "INSERT INTO r VALUES ('b', 'x', 1)")
		d.exec(t, "DELETE FROM r")
		d.exec(t, p.prune)
		f = follow(t, feed)
		if p.missed {
			f.wantStart(true)
		} else {
			f.want(map[string]int64{"b": 0})
		}
		f.stop()
	}
}
