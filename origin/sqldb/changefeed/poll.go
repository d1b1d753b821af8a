// Package changefeed implements what the change feeds of SQL databases share: the feed that polls a table of changes, the
// changes that wait to be reported, and the scripts that install the triggers.
package changefeed

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/connpool"
)

// AnswerTimeout is how long the database may take to answer one statement of a feed; then the feed has broken.
const AnswerTimeout = 1500 * time.Millisecond

// checkableFeed is a change feed that can be tried.
type Feed interface {
	origin.Feed
	// Check reads once, as Follow does, and returns why that fails.
	Check(ctx context.Context) error
}

// PollConfig says which changes a poll reads, and how.
type PollConfig struct {
	Origin, Dataset string // names, for errors
	Interval        time.Duration
	Log             Log
	// OpenPool returns a new pool of one connection.
	OpenPool func() *connpool.Pool
	// OnConn calls read with a connection of pool, again with another one if the first is broken.
	OnConn func(ctx context.Context, pool *connpool.Pool, read func(*sql.Conn) error) error
	// Lost is called when changes are lost: the connections of loads may lead to another server than that of the feed.
	Lost func()
	// Explain says what prevents the table of changes from being read, and Unpruned what prevents old rows from being deleted.
	Explain, Unpruned func(error) error
	Retention         Retention
}

// Poll is the change feed of FeedPoll: it reads a table of changes, and keeps its position when Follow ends.
type Poll struct {
	PollConfig

	following sync.Mutex     // held while Follow runs; guards the rest
	pool      *connpool.Pool // of one connection
	begun     bool           // log has a position
	target    string         // of the connection for which the position is
	readAt    time.Time      // when the log was last read
	pending   Pending

	pruner *pruner
}

// NewPoll returns a feed that has no position yet.
func NewPoll(c PollConfig) *Poll {
	return &Poll{PollConfig: c, pruner: &pruner{Retention: c.Retention, log: c.Log}}
}

// LogStats implements origin.LoggedFeed.
func (f *Poll) LogStats() origin.LogStats { return f.pruner.LogStats() }

var errFollowed = errors.New("another Follow of this feed is already running")

// Follow implements origin.Feed.
func (f *Poll) Follow(ctx context.Context, handle func(origin.Changes)) error {
	err := f.follow(ctx, handle)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("origin %q, dataset %q: feed: %w", f.Origin, f.Dataset, err)
}

func (f *Poll) follow(ctx context.Context, handle func(origin.Changes)) error {
	if !f.following.TryLock() {
		return errFollowed
	}
	defer f.following.Unlock()
	f.pool = f.OpenPool()
	defer f.pool.Close() // nothing was written that an error could concern
	defer f.pruner.stopped()
	if err := f.readChanges(ctx); err != nil {
		return err
	}
	if f.pending.Empty() {
		//guard:poll-without-news-not-live
		handle(origin.Changes{}) // the feed misses nothing from here on
	}
	f.pending.Report(handle)
	ticker := time.NewTicker(f.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		if err := f.readChanges(ctx); err != nil {
			return err
		}
		f.pending.Report(handle)
		f.prune(ctx)
	}
}

// prune deletes old rows. If that fails, the feed continues; a broken connection breaks the next read.
func (f *Poll) prune(ctx context.Context) {
	soon, cancel := context.WithTimeout(ctx, AnswerTimeout)
	defer cancel()
	err := f.OnConn(soon, f.pool, func(conn *sql.Conn) error { return f.pruner.run(soon, conn, f.Log.Bounds) })
	if ctx.Err() == nil {
		f.pruner.setError(f.Unpruned(err))
	}
}

// Check implements checkableFeed.
func (f *Poll) Check(ctx context.Context) error {
	pool := f.OpenPool()
	defer pool.Close() // nothing was written that an error could concern
	return f.Explain(f.OnConn(ctx, pool, func(conn *sql.Conn) error {
		if err := f.Log.Begin(ctx, conn); err != nil {
			return err
		}
		_, _, err := f.Log.Next(ctx, conn, 1)
		return err
	}))
}

func (f *Poll) readChanges(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, AnswerTimeout)
	defer cancel()
	return f.Explain(f.OnConn(ctx, f.pool, func(conn *sql.Conn) error { return f.readOn(ctx, conn) }))
}

// readOn reads what is new. If that is too much to read, or lost, it begins again at the present.
func (f *Poll) readOn(ctx context.Context, conn *sql.Conn) error {
	now := time.Now()
	if target := f.pool.Target(); target != f.target {
		f.target, f.begun = target, false
	}
	if f.begun && pause(f.readAt, now) > f.Retention.Grace/2 { //guard:paused-reader-misses-pruned-changes
		f.begun = false
	}
	if f.begun {
		rows, lost, err := f.Log.Next(ctx, conn, MaxPending+1)
		if err != nil {
			return err
		}
		f.begun = !lost && len(rows) <= MaxPending
		if lost {
			f.Lost()
		}
		f.add(rows)
	}
	if !f.begun {
		f.pending.Miss() // also if Begin fails, as onConn may call this again
		if err := f.Log.Begin(ctx, conn); err != nil {
			return err
		}
		f.begun = true
		f.pruner.forget()
	}
	f.readAt = now
	return nil
}

// pause returns the time between two moments by the clock that shows more: the monotonic one stands still while the machine
// is suspended.
func pause(from, to time.Time) time.Duration {
	return max(to.Sub(from), to.Round(0).Sub(from.Round(0)))
}

func (f *Poll) add(rows []Recorded) {
	for _, row := range rows {
		switch {
		case row.Dataset != f.Dataset:
		case !row.Key.Valid:
			f.pending.Miss()
		default:
			f.pending.Add(row.Key.String, max(row.Version, 0))
		}
	}
}
