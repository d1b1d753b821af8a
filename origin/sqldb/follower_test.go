package sqldb_test

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/postgres/session"
)

// follower is a running Follow.
type follower struct {
	t        testing.TB
	received chan origin.Changes
	ended    chan error
	cancel   context.CancelFunc
}

// follow starts Follow, which ends with the test.
func follow(t testing.TB, feed origin.Feed) *follower {
	ctx, cancel := context.WithCancel(context.Background())
	f := &follower{t: t, received: make(chan origin.Changes, 1000), ended: make(chan error, 1), cancel: cancel}
	go func() { f.ended <- feed.Follow(ctx, func(c origin.Changes) { f.received <- c }) }()
	t.Cleanup(f.stop)
	return f
}

// persistentFeed calls Follow again if the database, on a busy machine, has not answered in time.
type persistentFeed struct{ origin.Feed }

func (f persistentFeed) Follow(ctx context.Context, handle func(origin.Changes)) error {
	for {
		err := f.Feed.Follow(ctx, handle)
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
}

// startingFeed calls Follow again if PgBouncer passed it the results of another client (see session.ErrOutOfStep) before it has
// begun. A sidecar does so at any time.
type startingFeed struct{ origin.Feed }

func (f startingFeed) Follow(ctx context.Context, handle func(origin.Changes)) error {
	for {
		begun := false
		err := f.Feed.Follow(ctx, func(c origin.Changes) {
			begun = true
			handle(c)
		})
		if begun || !errors.Is(err, session.ErrOutOfStep) {
			return err
		}
	}
}

// stop cancels Follow and waits for it.
func (f *follower) stop() {
	f.cancel()
	err := f.end()
	f.ended <- err
}

// end waits for Follow to return, and returns its error.
func (f *follower) end() error {
	f.t.Helper()
	select {
	case err := <-f.ended:
		return err
	case <-time.After(feedTimeout):
		f.t.Fatal("Follow has not ended")
		return nil
	}
}

// feedTimeout is long for a busy machine.
const feedTimeout = 2 * time.Minute

func (f *follower) next() origin.Changes {
	f.t.Helper()
	select {
	case c := <-f.received:
		return c
	case err := <-f.ended:
		f.ended <- err
		f.t.Fatalf("Follow has ended: %v", err)
	case <-time.After(feedTimeout):
		f.t.Fatal("got no changes")
	}
	return origin.Changes{}
}

// wantStart receives the first Changes, after which nothing is missed.
func (f *follower) wantStart(missed bool) {
	f.t.Helper()
	if c := f.next(); c.Missed != missed || len(c.Rows) > 0 {
		f.t.Errorf("begins with %+v, want missed %v and no rows", c, missed)
	}
}

// wantMissed receives Changes until one is Missed.
func (f *follower) wantMissed() {
	f.t.Helper()
	for !f.next().Missed {
	}
}

// want receives Changes until all of rows, and nothing else, are reported.
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
