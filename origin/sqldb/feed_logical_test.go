package sqldb_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin"
)

var logicalFeed = origin.FeedConfig{Kind: origin.FeedLogical}

// published is a dataset with a publication, without more than the default replica identity.
func (d database) published(t *testing.T, ds origin.Dataset, c origin.FeedConfig) *recorded {
	t.Helper()
	r := &recorded{d, d.open(t), ds, c}
	r.ds.Name = "rows"
	if err := r.db.InstallChanges(soon(t), r.ds, c); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestLogicalFeeds runs tests of logical decoding alone, each in a database of its own, as publications belong to a database.
func TestLogicalFeeds(t *testing.T) {
	t.Parallel()
	server := startPostgres(t)
	for i, test := range []struct {
		name string
		test func(t *testing.T, d database)
	}{
		{"DefaultIdentity", testLogicalFeedOfTheDefaultIdentity},
		{"LargeValues", testLogicalFeedOfLargeValues},
		{"SettingsOfTheAccount", testLogicalFeedIgnoresSettings},
		{"Refused", testLogicalFeedRefused},
		{"Check", testCheckLogicalFeed},
		{"OpenTransactions", testLogicalFeedWaitsForOpenTransactions},
		{"Slots", testSlotsOfLogicalFeeds},
		{"HeldLog", testLogicalFeedThatHoldsTheLog},
		{"WithoutRights", testLogicalFeedWithoutRights},
	} {
		t.Run(test.name, func(t *testing.T) {
			name := fmt.Sprint("logical", i)
			server.exec(t, "CREATE DATABASE "+name)
			d := server
			d.dsn = strings.Replace(server.dsn, "/postgres?", "/"+name+"?", 1)
			d.DB = connect(t, "pgx", d.dsn)
			test.test(t, d)
		})
	}
}

// Without the previous version no update is known to have raised it.
func testLogicalFeedOfTheDefaultIdentity(t *testing.T, d database) {
	d.exec(t, rowsTable)
	r := d.published(t, rowsDataset, logicalFeed)
	f := r.started(t)
	for _, step := range []struct {
		statement string
		want      map[string]int64
	}{
		{"INSERT INTO r VALUES ('a', 'x', 1), ('b', 'x', 7)", map[string]int64{"a": 1, "b": 7}},
		{"UPDATE r SET ver = ver + 1 WHERE k = 'a'", map[string]int64{"a": 0}},
		{"UPDATE r SET k = 'c', ver = ver + 1 WHERE k = 'b'", map[string]int64{"b": 0, "c": 0}},
		{"DELETE FROM r WHERE k = 'a'", map[string]int64{"a": 0}},
	} {
		d.exec(t, step.statement)
		f.want(step.want)
	}
	f.stop()
	// An index of the key and the version is enough.
	d.exec(t, "ALTER TABLE r ALTER ver SET NOT NULL")
	d.exec(t, "CREATE UNIQUE INDEX versions ON r (k, ver)")
	d.exec(t, "ALTER TABLE r REPLICA IDENTITY USING INDEX versions")
	f = r.started(t)
	d.exec(t, "UPDATE r SET ver = 9, v = 'y'")
	f.want(map[string]int64{"c": 9})
	d.exec(t, "UPDATE r SET v = 'z'")
	f.want(map[string]int64{"c": 0})
}

// A value that is stored outside of its row is not sent again when another column changes.
func testLogicalFeedOfLargeValues(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k text PRIMARY KEY, v text, ver int)")
	d.exec(t, "ALTER TABLE r ALTER k SET STORAGE EXTERNAL, ALTER v SET STORAGE EXTERNAL")
	f := d.published(t, rowsDataset, logicalFeed).started(t)
	key := strings.Repeat("k", 2600)
	d.exec(t, "INSERT INTO r VALUES ($1, repeat('v', 5000000), 1)", key)
	f.want(map[string]int64{key: 1})
	d.exec(t, "UPDATE r SET ver = 2")
	f.want(map[string]int64{key: 0})
	d.exec(t, "UPDATE r SET k = 'short'")
	f.want(map[string]int64{key: 0, "short": 0})
}

// The settings of an account or a database must not change how keys are printed.
func testLogicalFeedIgnoresSettings(t *testing.T, d database) {
	d.exec(t, "ALTER DATABASE "+strings.TrimSuffix(d.dsn[strings.LastIndex(d.dsn, "/")+1:], "?sslmode=disable")+" SET timezone = 'Asia/Tokyo'")
	d.exec(t, "CREATE TABLE r (k timestamptz PRIMARY KEY)")
	f := d.published(t, origin.Dataset{Table: "r", Key: []string{"k"}}, logicalFeed).started(t)
	d.exec(t, "INSERT INTO r VALUES ('2024-02-29T12:00:00Z')")
	f.want(map[string]int64{"2024-02-29 12:00:00+00": 0})
}

// A publication would make updates and deletions fail, or would not tell their keys: nothing is installed.
func testLogicalFeedRefused(t *testing.T, d database) {
	d.exec(t, "CREATE TABLE r (k VARCHAR(100) NOT NULL, v VARCHAR(100), ver BIGINT)")
	db, ds := d.open(t), rowsDataset
	ds.Name = "rows"
	for _, prepare := range []string{"SELECT 1", "ALTER TABLE r REPLICA IDENTITY NOTHING", "ALTER TABLE r ADD PRIMARY KEY (v)",
		"CREATE UNIQUE INDEX one ON r (v)"} {
		d.exec(t, prepare)
		err := db.InstallChanges(soon(t), ds, logicalFeed)
		if !errors.Is(err, origin.ErrFeedUnavailable) || !strings.Contains(err.Error(), "ALTER TABLE public.r REPLICA IDENTITY FULL") {
			t.Errorf("%s: got %v", prepare, err)
		}
		install, _, err := db.ChangesSQL(soon(t), ds, logicalFeed)
		if err != nil || !strings.HasPrefix(install, "-- WARNING: ") || strings.Count(install[:strings.Index(install, "-- Ringside")], "\n") != 1 {
			t.Errorf("%s: got %q, %v", prepare, install, err)
		}
		d.exec(t, "INSERT INTO r VALUES ('a', $1, 1)", prepare)
		d.exec(t, "DELETE FROM r")
	}
	for _, enough := range []string{"ALTER TABLE r REPLICA IDENTITY FULL", "CREATE UNIQUE INDEX keys ON r (k, v)",
		"ALTER TABLE r REPLICA IDENTITY USING INDEX keys"} {
		d.exec(t, enough)
		if err := db.InstallChanges(soon(t), ds, logicalFeed); err != nil {
			t.Errorf("%s: %v", enough, err)
		}
	}
}

func testCheckLogicalFeed(t *testing.T, d database) {
	d.exec(t, rowsTable)
	db, ds := d.open(t), rowsDataset
	ds.Name = "rows"
	for _, c := range []struct{ prepare, want string }{
		{"SELECT 1", "the publication \"ringside_rows\" does not exist: run `ringside changes apply rows`"},
		{"CREATE PUBLICATION ringside_rows", "does not have every change of table public.r"},
		{"ALTER PUBLICATION ringside_rows ADD TABLE r", ""},
		{"ALTER PUBLICATION ringside_rows SET (publish = 'insert, update, delete')", "leaves out changes"},
		{"DROP PUBLICATION ringside_rows", "does not exist"},
		{"CREATE PUBLICATION ringside_rows FOR TABLE r WHERE (k <> 'a')", "does not have every change"},
		{"ALTER PUBLICATION ringside_rows SET TABLE r (v, ver)", "with its key"},
		{"ALTER PUBLICATION ringside_rows SET TABLE r (k, ver)", ""},
		{"ALTER TABLE r REPLICA IDENTITY NOTHING", "does not tell the previous key"},
		{"ALTER TABLE r REPLICA IDENTITY DEFAULT", ""},
		{"DROP PUBLICATION ringside_rows", "does not exist"},
		{"CREATE PUBLICATION ringside_rows FOR ALL TABLES", ""},
	} {
		d.exec(t, c.prepare)
		err := db.CheckFeed(soon(t), ds, logicalFeed)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.prepare, err)
		case c.want != "" && (!errors.Is(err, origin.ErrFeedUnavailable) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %q", c.prepare, err, c.want)
		}
	}
	// A dropped publication ends the feed with its next change, and the log says what to do.
	r := &recorded{d, db, ds, logicalFeed}
	f := r.started(t)
	d.exec(t, "DROP PUBLICATION ringside_rows")
	d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
	if err := f.end(); !errors.Is(err, origin.ErrFeedUnavailable) {
		t.Errorf("ended with %v", err)
	}
	f.ended <- nil // for stop
}

// A slot sees only transactions that begin after it: the feed must not seem live before the others have ended.
func testLogicalFeedWaitsForOpenTransactions(t *testing.T, d database) {
	d.exec(t, rowsTable)
	r := d.published(t, rowsDataset, logicalFeed)
	before, err := d.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = before.Rollback() }() // it has been committed, or the test has failed
	if _, err := before.Exec("INSERT INTO r VALUES ('a', 'x', 1)"); err != nil {
		t.Fatal(err)
	}
	f := follow(t, r.feed(t))
	eventually(t, "the slot waits", func() bool {
		return d.count(t, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()") == 1
	})
	select {
	case c := <-f.received:
		t.Errorf("got %+v while a transaction is open", c)
	default:
	}
	if err := before.Commit(); err != nil {
		t.Fatal(err)
	}
	f.wantStart(true)
	// Afterwards an open transaction delays nothing.
	long, err := d.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = long.Rollback() }() // likewise
	if _, err := long.Exec("UPDATE r SET ver = 2"); err != nil {
		t.Fatal(err)
	}
	d.exec(t, "INSERT INTO r VALUES ('b', 'x', 1)")
	f.want(map[string]int64{"b": 1})
	if err := long.Commit(); err != nil {
		t.Fatal(err)
	}
	f.want(map[string]int64{"a": 0})
}

// Each reader has a slot of its own, which ends with it: one that takes over misses nothing, as it begins before the other ends.
func testSlotsOfLogicalFeeds(t *testing.T, d database) {
	d.exec(t, rowsTable)
	r := d.published(t, rowsDataset, logicalFeed)
	slots := func() int {
		return d.count(t, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()")
	}
	first, second := r.started(t), r.started(t)
	d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
	first.want(map[string]int64{"a": 1})
	second.want(map[string]int64{"a": 1})
	first.stop()
	eventually(t, "the slot of the first reader is dropped", func() bool { return slots() == 1 })
	d.exec(t, "INSERT INTO r VALUES ('b', 'x', 1)")
	second.want(map[string]int64{"b": 1})
	// The server may end a slot: by max_slot_wal_keep_size, or an operator.
	d.exec(t, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database()")
	if err := second.end(); err == nil {
		t.Error("ended without an error")
	}
	second.ended <- nil // for stop
	d.exec(t, "DELETE FROM r")
	third := r.started(t)
	d.exec(t, "INSERT INTO r VALUES ('c', 'x', 1)")
	third.want(map[string]int64{"c": 1})
	third.stop()
	eventually(t, "no slot remains", func() bool { return slots() == 0 })
	if err := r.db.RemoveChanges(soon(t), r.ds, logicalFeed); err != nil {
		t.Error(err)
	}
	if n := d.count(t, "SELECT count(*) FROM pg_publication"); n != 0 {
		t.Errorf("%d publications remain", n)
	}
}

// A transaction that stays open makes the server keep its log; the feed gives it up before the disk is full.
func testLogicalFeedThatHoldsTheLog(t *testing.T, d database) {
	d.exec(t, rowsTable)
	c := logicalFeed
	c.MaxWAL = 8 << 20
	r := d.published(t, rowsDataset, c)
	feed := r.feed(t)
	f := follow(t, feed)
	f.wantStart(true)
	eventually(t, "the feed knows its slot", func() bool {
		s := feed.(origin.LoggedFeed).LogStats()
		return s.WAL > 0 && s.WAL < c.MaxWAL && s.MaxWAL == c.MaxWAL
	})
	open, err := d.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = open.Rollback() }() // nothing depends on it
	if _, err := open.Exec("INSERT INTO r VALUES ('open', 'x', 1)"); err != nil {
		t.Fatal(err)
	}
	d.exec(t, "CREATE TABLE other (v text)")
	for range 12 {
		d.exec(t, "INSERT INTO other SELECT repeat('x', 1000) FROM generate_series(1, 1000)")
	}
	if err := f.end(); err == nil || !strings.Contains(err.Error(), "max_wal") {
		t.Errorf("ended with %v", err)
	}
	f.ended <- nil // for stop
	if s := feed.(origin.LoggedFeed).LogStats(); s.WAL != 0 {
		t.Errorf("the feed that has ended holds %d bytes", s.WAL)
	}
}

func testLogicalFeedWithoutRights(t *testing.T, d database) {
	d.exec(t, rowsTable)
	d.published(t, rowsDataset, logicalFeed)
	d.exec(t, "CREATE ROLE reader LOGIN; GRANT SELECT ON r TO reader")
	other := d
	other.dsn = strings.Replace(d.dsn, "ringside:ringside@", "reader@", 1)
	ds := rowsDataset
	ds.Name = "rows"
	err := other.open(t).CheckFeed(soon(t), ds, logicalFeed)
	if !errors.Is(err, origin.ErrFeedUnavailable) || !strings.Contains(err.Error(), "ALTER ROLE … REPLICATION") {
		t.Errorf("got %v", err)
	}
	err = other.open(t).InstallChanges(soon(t), ds, logicalFeed)
	if err == nil || !strings.Contains(err.Error(), "`ringside changes sql rows`") {
		t.Errorf("got %v", err)
	}
	d.exec(t, "ALTER ROLE reader REPLICATION")
	f := follow(t, other.feedOf(t, ds))
	f.wantStart(true)
	d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
	f.want(map[string]int64{"a": 1})
}

func (d database) feedOf(t *testing.T, ds origin.Dataset) origin.Feed {
	t.Helper()
	feed, err := d.open(t).Feed(ds, logicalFeed)
	if err != nil {
		t.Fatal(err)
	}
	return feed
}

// A commit is in the log before reads see it, here until a standby confirms it. If the feed reported it at once, a load would cache
// the previous row, and nothing would invalidate that.
func TestLogicalFeedReportsWhatReadsSee(t *testing.T) {
	t.Parallel()
	d := startPostgres(t)
	d.exec(t, rowsTable)
	f := d.published(t, rowsDataset, logicalFeed).started(t)
	d.exec(t, "ALTER SYSTEM SET synchronous_standby_names = 'missing'")
	d.exec(t, "SELECT pg_reload_conf()")
	waiting := func() bool {
		return d.count(t, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE 'INSERT%'") == 1
	}
	committed := make(chan error, 1)
	insert := func() {
		_, err := d.Exec("INSERT INTO r VALUES ('a', 'x', 1)")
		committed <- err
	}
	eventually(t, "the setting applies", func() bool { return d.count(t, "SELECT count(*) FROM pg_settings WHERE setting = 'missing'") == 1 })
	go insert()
	eventually(t, "the commit waits for a standby", waiting)
	eventually(t, "the log was sent", func() bool {
		return d.count(t, "SELECT count(*) FROM pg_stat_replication WHERE sent_lsn >= pg_current_wal_lsn()") == 1
	})
	time.Sleep(50 * time.Millisecond) // a fault would be seen after it; without a fault nothing depends on it
	select {
	case c := <-f.received:
		t.Errorf("got %+v before the row can be read", c)
	default:
	}
	d.exec(t, "ALTER SYSTEM RESET synchronous_standby_names")
	d.exec(t, "SELECT pg_reload_conf()")
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	f.want(map[string]int64{"a": 1})
}

func TestLogicalFeedNeedsWALLevel(t *testing.T) {
	t.Parallel()
	dsn := rig.NewPostgresWith(t, "wal_level=replica").DSN
	d := database{DB: connect(t, "pgx", dsn), driver: "postgres", engine: "postgres", dsn: dsn}
	d.exec(t, rowsTable)
	d.exec(t, "CREATE PUBLICATION ringside_rows FOR TABLE r")
	ds := rowsDataset
	ds.Name = "rows"
	err := d.open(t).CheckFeed(soon(t), ds, logicalFeed)
	if !errors.Is(err, origin.ErrFeedUnavailable) || !strings.Contains(err.Error(), "ALTER SYSTEM SET wal_level = logical") {
		t.Errorf("got %v", err)
	}
}

// A pooler does not pass on replication.
func TestLogicalFeedBehindAPooler(t *testing.T) {
	t.Parallel()
	for _, mode := range []rig.PoolMode{rig.SessionPool, rig.TransactionPool} {
		d := startPgBouncer(t, mode)
		d.exec(t, rowsTable)
		d.exec(t, "CREATE PUBLICATION ringside_rows FOR TABLE r")
		ds := rowsDataset
		ds.Name = "rows"
		err := d.open(t).CheckFeed(soon(t), ds, logicalFeed)
		if !errors.Is(err, origin.ErrFeedUnavailable) || !strings.Contains(err.Error(), "pooler") {
			t.Errorf("%s: got %v", mode, err)
		}
	}
}

// A walsender that sends nothing, although queries are answered.
func TestLogicalFeedOfASilentWalsenderBreaks(t *testing.T) {
	t.Parallel()
	d := startPostgres(t)
	d.exec(t, rowsTable)
	p := newProxy(t, d.dsn)
	d.dsn = p.dsn
	f := d.published(t, rowsDataset, logicalFeed).started(t)
	p.deaf.Store(true)
	if err := f.end(); err == nil || !strings.Contains(err.Error(), "has sent nothing") {
		t.Errorf("ended with %v", err)
	}
	f.ended <- nil // for stop
}
