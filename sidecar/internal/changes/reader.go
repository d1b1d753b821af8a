package changes

import (
	"context"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/internal/backoff"
	"github.com/ringside-cache/ringside/origin"
)

const (
	// handover is how long a member that is not elected any more reads on, so that those who are can be live first.
	handover = 5 * time.Second
	// firstPause and longestPause bound the time between two attempts to follow a feed; each is up to a half shorter at
	// random, so that members do not come back to a database all at once.
	firstPause   = 200 * time.Millisecond
	longestPause = 5 * time.Second
	// steady is how long a feed is live before the next break is the first of an outage: one that breaks again and again
	// is a line in the log, and a question to the database, for each attempt.
	steady = 10 * time.Second
)

// awaitElection reports whether this member is elected; false means that ctx is done.
func (f *Feeds) awaitElection(ctx context.Context, one *feed) bool {
	for !f.config.Peers.Elected(one.Dataset.Name()) {
		if !await(ctx, one.ring) {
			return false
		}
	}
	return ctx.Err() == nil
}

// awaitDefeat returns when this member has not been elected for a while, or ctx is done.
func (f *Feeds) awaitDefeat(ctx context.Context, one *feed) {
	for {
		for f.config.Peers.Elected(one.Dataset.Name()) {
			if !await(ctx, one.ring) {
				return
			}
		}
		if !backoff.Sleep(ctx, handover) || !f.config.Peers.Elected(one.Dataset.Name()) { //guard:reader-elected-any-more-leaves-gap
			return
		}
	}
}

func await(ctx context.Context, ring <-chan struct{}) bool {
	select {
	case <-ring:
		return true
	case <-ctx.Done():
		return false
	}
}

// serve reads a feed for as long as this member is elected.
func (f *Feeds) serve(ctx context.Context, one *feed) {
	ctx, end := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		defer end()
		f.awaitDefeat(ctx, one)
	})
	f.follow(ctx, one)
	end()
	watching.Wait()
}

// follow reads a feed until ctx is done, again and again.
func (f *Feeds) follow(ctx context.Context, one *feed) {
	name, told, wait := one.Dataset.Name(), false, backoff.Backoff{First: firstPause, Longest: longestPause}
	for ctx.Err() == nil {
		var live time.Time
		err := one.Feed.Follow(ctx, func(c origin.Changes) {
			f.handle(one, c)
			if live.IsZero() {
				live = time.Now()
				f.config.OnEvent(name, nil)
			}
			told = false
		})
		f.setReading(one, false)
		if ctx.Err() != nil {
			return
		}
		if !told {
			f.config.OnEvent(name, err)
		}
		told = true
		if !live.IsZero() && time.Since(live) >= steady { //guard:feed-flaps-fills-log
			wait.Reset()
		}
		wait.Wait(ctx) //guard:broken-feed-followed-tight-loop
	}
}
