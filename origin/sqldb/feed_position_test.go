package sqldb_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// Numbers are assigned in one order and become visible in another: a reader that continues from the highest number misses the
// transaction that commits last.
func testFeedOfOverlappingTransactions(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1), ('b', 'x', 1), ('c', 'x', 1), ('d', 'x', 1)")
	r := d.record(t, rowsDataset, c)
	before, err := d.Begin() // begun before the feed
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
		f.want(map[string]int64{"d": version}) // not delayed by open transactions
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

func testChangesRemoved(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	r := d.record(t, rowsDataset, c)
	for range 2 { // safe to run again
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
	f.wantMissed() // instead of the row
	d.exec(t, "UPDATE r SET ver = 2")
	f.want(map[string]int64{"a": 2})
}

// A slow database must not lose its feed: without a feed it gets more queries.
func testFeedWhileLoadsHoldEveryConnection(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	r := d.record(t, rowsDataset, c)
	f := r.started(t)
	slow, err := r.db.Dataset(origin.Dataset{Name: "slow", Query: stuck[d.driver]})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	var loads sync.WaitGroup
	defer loads.Wait()
	defer cancel()
	for range origin.DefaultMaxConns {
		loads.Go(func() { _, _ = slow.Load(ctx, []string{"k"}) }) // the context ends it
	}
	for d.driver != "sqlite" && ctx.Err() == nil && d.count(t, running[d.driver]) < origin.DefaultMaxConns {
		time.Sleep(10 * time.Millisecond)
	}
	d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
	f.want(map[string]int64{"a": d.inserted(1)})
}

func testFeedWithoutTheTableOfChanges(t *testing.T, d database, c origin.FeedConfig) {
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
		return // its triggers fail without the table
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

// After a break the poll reports what has changed since, and the others report Missed.
func testFeedContinuesAtItsPosition(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	feed := d.record(t, rowsDataset, c).feed(t)
	f := follow(t, feed)
	f.wantStart(true)
	f.stop()
	d.exec(t, "INSERT INTO r VALUES ('a', 'x', 1)")
	f = follow(t, feed)
	if c.Kind != origin.FeedPoll {
		f.wantStart(true)
		return
	}
	f.want(map[string]int64{"a": d.inserted(1)})
	f.stop()
	f = follow(t, feed)
	f.wantStart(false)
	if err := feed.Follow(soon(t), nil); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("second Follow: got %v, want an error", err)
	}
}

// Missed is reported if and only if changes were pruned before they were read.
func testFeedOfPrunedChanges(t *testing.T, d database, c origin.FeedConfig) {
	d.exec(t, rowsTable)
	feed := d.record(t, rowsDataset, c).feed(t)
	for _, p := range []struct {
		prune  string
		missed bool
	}{
		{"DELETE FROM ringside_changes WHERE seq < 3", false},
		{"DELETE FROM ringside_changes WHERE seq < 9", true},
		{"DELETE FROM ringside_changes WHERE seq < 1000000", true}, // also the newest row
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
