package sqldb_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/changefeed"
)

// poll returns a feed that deletes rows soon after they were visible.
func (r *recorded) poll(t *testing.T, db interface {
	Feed(origin.Dataset, origin.FeedConfig) (origin.Feed, error)
}, grace time.Duration) *changefeed.Poll {
	t.Helper()
	feed, err := db.Feed(r.ds, r.config)
	if err != nil {
		t.Fatal(err)
	}
	c := feed.(*changefeed.Poll).PollConfig
	c.Retention.Grace = grace
	return changefeed.NewPoll(c)
}

// wantInserted inserts rows until one is reported: changes are missed, as they should be, while a busy machine delays the polls by
// more than half of the grace.
func (f *follower) wantInserted(d database, key string) {
	f.t.Helper()
	for i := 0; ; i++ {
		inserted := fmt.Sprint(key, i)
		d.exec(f.t, fmt.Sprintf("INSERT INTO r VALUES ('%s', 'x', 1)", inserted))
		c := f.next()
		for !c.Missed && !hasKey(c, inserted) {
			c = f.next()
		}
		if !c.Missed {
			return
		}
	}
}

// eventually fails the test if done stays false.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(feedTimeout); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, feedTimeout)
		}
	}
}

// The reader keeps the newest rows, and those that are not old, but deletes none that another reader may not have read.
func testFeedPrunes(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	c.KeepRows = 10
	r := d.record(t, rowsDataset, c)
	count := func() int { return d.count(t, "SELECT count(*) FROM ringside_changes") }
	for i := range 50 {
		d.exec(t, fmt.Sprintf("INSERT INTO r VALUES ('%d', 'x', 1)", i))
	}
	if d.driver == "sqlite" {
		if n := count(); n != 10 { // by trigger
			t.Errorf("%d rows, want 10", n)
		}
		return
	}
	feed := r.poll(t, r.db, 2*time.Second)
	f := follow(t, persistentFeed{feed})
	f.wantStart(true)
	eventually(t, "pruning by number", func() bool { return count() == 10 })
	eventually(t, "statistics", func() bool { s := feed.LogStats(); return s.Rows == 10 && s.MaxRows == 10 && s.PruneError == nil })
	f.wantInserted(d, "new")
	f.stop()
	old := map[string]string{"postgres": "changed_at - interval '2 hours'", "mysql": "changed_at - INTERVAL 2 HOUR"}[d.driver]
	d.exec(t, "UPDATE ringside_changes SET changed_at = "+old)
	f = follow(t, persistentFeed{r.poll(t, r.db, 2*time.Second)})
	f.wantStart(true)
	eventually(t, "pruning by age", func() bool { return count() == 1 }) // the newest
	f.wantInserted(d, "newer")
}

// A transaction that began before the rows which were deleted, and commits after, has rows with low numbers and old times. Its
// rows must be read by every reader before one of them deletes them.
func testFeedPrunesNoUnreadRow(t *testing.T, d database, c origin.FeedConfig) {
	if d.driver == "sqlite" {
		return // a trigger prunes, and there is one writer at a time
	}
	d.exec(t, rowsTable)
	d.exec(t, "INSERT INTO r VALUES ('late', 'x', 1)")
	c.KeepRows = 5
	r := d.record(t, rowsDataset, c)
	long, err := d.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = long.Rollback() }() // it has been committed, or the test has failed
	if _, err := long.Exec("UPDATE r SET ver = 2 WHERE k = 'late'"); err != nil {
		t.Fatal(err)
	}
	pruner := r.poll(t, r.db, 2*time.Second)
	pruning := follow(t, persistentFeed{pruner})
	pruning.wantStart(true)
	slow := r.poll(t, d.open(t), 2*time.Second)
	slow.Interval = 300 * time.Millisecond
	reading := follow(t, persistentFeed{slow})
	reading.wantStart(true)
	for i := range 20 {
		d.exec(t, fmt.Sprintf("INSERT INTO r VALUES ('%d', 'x', 1)", i))
	}
	eventually(t, "pruning", func() bool {
		return d.count(t, "SELECT count(*) FROM ringside_changes") <= 6 && pruner.LogStats().PruneError == nil
	})
	if err := long.Commit(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*follower{pruning, reading} {
		for {
			c := f.next()
			if c.Missed || len(c.Rows) > 0 && c.Rows[len(c.Rows)-1].Key == "late" || hasKey(c, "late") {
				break
			}
		}
	}
	eventually(t, "pruning of the late row", func() bool { return d.count(t, "SELECT count(*) FROM ringside_changes") == 5 })
}

func hasKey(c origin.Changes, key string) bool {
	for _, row := range c.Rows {
		if row.Key == key {
			return true
		}
	}
	return false
}

// A reader that was stopped for longer than rows are kept must not continue at its position: a row in the middle may be gone.
func testFeedAfterAPauseHasMissedChanges(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	r := d.record(t, rowsDataset, c)
	feed := r.poll(t, r.db, 2*time.Second)
	f := follow(t, persistentFeed{feed})
	f.wantStart(true)
	f.stop()
	time.Sleep(1100 * time.Millisecond) // more than half of what rows are kept for
	f = follow(t, persistentFeed{feed})
	f.wantStart(true)
}

// An account that may only read the table of changes still has a feed, and an operator can find out.
func testFeedWithoutTheRightToPrune(t *testing.T, d database, c origin.FeedConfig) {
	if d.driver == "sqlite" {
		return // a trigger prunes, and there is one writer at a time
	}
	d.exec(t, rowsTable)
	c.KeepRows = 1
	r := d.record(t, rowsDataset, c)
	d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1), ('b', 'x', 1), ('c', 'x', 1)")
	reader := d.connectAs(t, "SELECT")
	d.grant(t, "SELECT ON ringside_changes")
	feed := r.poll(t, reader.open(t), 2*time.Second)
	f := follow(t, persistentFeed{feed})
	f.wantStart(true)
	eventually(t, "error", func() bool {
		err := feed.LogStats().PruneError
		return err != nil && strings.Contains(err.Error(), "GRANT DELETE")
	})
	f.wantInserted(d, "d")
	d.grant(t, "DELETE ON ringside_changes")
	eventually(t, "pruning", func() bool {
		return feed.LogStats().PruneError == nil && d.count(t, "SELECT count(*) FROM ringside_changes") == 1
	})
}

// Another role must neither know the channel nor be able to send to it.
func testRandomChannel(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	r := d.record(t, rowsDataset, c)
	f := r.started(t)
	other := d.connectAs(t, "INSERT, SELECT")
	var channel string
	if err := other.QueryRow("SELECT channel FROM ringside_channel").Scan(&channel); err == nil {
		t.Error("another role can read the name of the channel")
	}
	if err := d.QueryRow("SELECT channel FROM ringside_channel").Scan(&channel); err != nil || len(channel) != len("ringside_")+32 {
		t.Fatalf("channel %q, %v", channel, err)
	}
	var sources int
	if err := d.QueryRow("SELECT count(*) FROM pg_proc WHERE position($1 IN prosrc) > 0", channel).Scan(&sources); err != nil || sources > 0 {
		t.Errorf("%d functions, which every role can read, contain the name of the channel; %v", sources, err)
	}
	other.exec(t, `SELECT pg_notify('ringside', '{"all":true}')`)
	other.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
	f.want(map[string]int64{"a": 1})
	check := func(db database, want string) {
		t.Helper()
		err := db.open(t).CheckFeed(soon(t), r.ds, c)
		if !errors.Is(err, origin.ErrFeedUnavailable) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	check(other, "GRANT SELECT")
	d.exec(t, "UPDATE ringside_channel SET channel = 'another'")
	if err := f.end(); err == nil {
		t.Error("the feed continues to listen to a channel that is no longer used")
	}
	f.ended <- nil // for stop
	f = r.started(t)
	d.exec(t, "DROP TABLE ringside_channel")
	if err := f.end(); !errors.Is(err, origin.ErrFeedUnavailable) || !strings.Contains(err.Error(), "`ringside changes apply rows`") {
		t.Errorf("ended with %v", err)
	}
	f.ended <- nil // for stop
	check(d, "`ringside changes apply rows`")
	other.exec(t, "INSERT INTO r VALUES ('b', 'x', 1)") // succeeds
	if err := r.db.InstallChanges(soon(t), r.ds, c); err != nil {
		t.Fatal(err)
	}
	f = r.started(t)
	other.exec(t, "INSERT INTO r VALUES ('c', 'x', 1)")
	f.want(map[string]int64{"c": 1})
}
