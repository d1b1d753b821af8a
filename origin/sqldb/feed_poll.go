package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// pollFeed reads a table of changes. It knows where it was when Follow ended.
type pollFeed struct {
	db       *DB
	dataset  string
	table    string
	interval time.Duration

	following sync.Mutex // held by the Follow under way; guards the rest
	pool      *sql.DB    // of one connection
	log       changeLog
	begun     bool // log has a position
	heard     gathered
}

// changeLog reads a table of changes, of all datasets, in such a way that it comes to each row, also to one whose
// transaction began before and ended after those of rows read long ago.
type changeLog interface {
	// begin makes now the position: what is committed later will be read.
	begin(ctx context.Context, conn *sql.Conn) error
	// next returns the rows that were committed since the position, at most limit of them, and moves it when it
	// returns no error. Lost says that some of them are not there any more.
	next(ctx context.Context, conn *sql.Conn, limit int) (rows []recorded, lost bool, err error)
}

// recorded is one row of a table of changes.
type recorded struct {
	seq     int64
	dataset string
	key     sql.NullString // NULL: any row may have changed
	version int64
}

// columns of a table of changes. What is longer than a key can be need not be read to its end.
var recordedColumns = fmt.Sprintf("seq, dataset, substring(row_key, 1, %d), COALESCE(row_version, 0)", maxKeyBytes+1)

var errFollowed = errors.New("it is being followed already")

// Follow implements origin.Feed.
func (f *pollFeed) Follow(ctx context.Context, handle func(origin.Changes)) error {
	err := f.follow(ctx, handle)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("origin %q, dataset %q: feed: %w", f.db.name, f.dataset, err)
}

func (f *pollFeed) follow(ctx context.Context, handle func(origin.Changes)) error {
	if !f.following.TryLock() {
		return errFollowed
	}
	defer f.following.Unlock()
	f.pool = openPool(f.db.reads, 1) //guard:loads-slow-database-end-feed
	defer f.pool.Close()             // what it says is of no use to anybody: nothing was written
	if err := f.poll(ctx); err != nil {
		return err
	}
	if f.heard.empty() {
		//guard:nobody-hears-poll-nothing-new-live
		handle(origin.Changes{}) // from here on nothing is missed
	}
	f.heard.tell(handle)
	ticker := time.NewTicker(f.interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		if err := f.poll(ctx); err != nil {
			return err
		}
		f.heard.tell(handle)
	}
}

func (f *pollFeed) poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, feedAnswer)
	defer cancel()
	err := f.db.onConnOf(ctx, f.pool, func(conn *sql.Conn) error { return f.read(ctx, conn) })
	return f.db.unread(err, f.table, f.dataset)
}

// read gathers what is new. Where that is too much to read, or lost, it begins again at now.
func (f *pollFeed) read(ctx context.Context, conn *sql.Conn) error {
	if f.begun {
		rows, lost, err := f.log.next(ctx, conn, maxGathered+1)
		if err != nil {
			return err
		}
		f.begun = !lost && len(rows) <= maxGathered
		f.gather(rows)
	}
	if !f.begun {
		f.heard.miss() // and stays so when begin fails, as read is called again
		if err := f.log.begin(ctx, conn); err != nil {
			return err
		}
		f.begun = true
	}
	return nil
}

func (f *pollFeed) gather(rows []recorded) {
	for _, row := range rows {
		switch {
		case row.dataset != f.dataset:
		case !row.key.Valid:
			f.heard.miss()
		default:
			f.heard.add(row.key.String, max(row.version, 0))
		}
	}
}

// bounds are the lowest and the highest number in a table of changes; both are 0 when it is empty.
type bounds struct{ low, high int64 }

// lost reports whether rows above seq, the highest known, are gone: the table was pruned beyond it, emptied, or made
// anew. Pruning leaves the newest row in place, so that this can be seen.
func (b bounds) lost(seq int64) bool { return b.high < seq || b.low > seq+1 } //guard:changes-pruned-missed-silence

// readBounds asks for each alone: SQLite reads the whole table for both together (optoverview.html, 16).
func readBounds(ctx context.Context, conn *sql.Conn, table string) (b bounds, err error) {
	row := conn.QueryRowContext(ctx, "SELECT (SELECT COALESCE(MIN(seq), 0) FROM "+table+
		"), (SELECT COALESCE(MAX(seq), 0) FROM "+table+")")
	return b, row.Scan(&b.low, &b.high)
}

// lostBefore looks whether it is of any use to read on from seq: a read that takes too long once would do so each time.
func lostBefore(ctx context.Context, conn *sql.Conn, table string, seq int64, limit int) (bool, error) {
	b, err := readBounds(ctx, conn, table)
	return b.lost(seq) || b.high-seq >= int64(limit), err
}

func queryRecorded(ctx context.Context, conn *sql.Conn, query string, args ...any) (list []recorded, err error) {
	rows, err := conn.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r recorded
		if err := rows.Scan(&r.seq, &r.dataset, &r.key, &r.version); err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, rows.Err()
}
