package changes

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/ring/backoff"
)

const (
	// handover is how long a member that is no longer elected reads on, so that its successor is live first.
	handover = 5 * time.Second
	// firstPause and longestPause bound the time between two attempts to read a feed.
	firstPause   = 200 * time.Millisecond
	longestPause = 5 * time.Second
	// steady is how long a feed must be live before its next failure starts with firstPause again: each attempt of a feed that
	// fails repeatedly is a log line and a query.
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

// awaitReplacement returns when this member has not been elected for the handover, or ctx is done.
func (f *Feeds) awaitReplacement(ctx context.Context, one *feed) {
	for {
		for f.config.Peers.Elected(one.Dataset.Name()) {
			if !await(ctx, one.ring) {
				return
			}
		}
		if !backoff.Sleep(ctx, handover) || !f.config.Peers.Elected(one.Dataset.Name()) { //guard:replaced-reader-leaves-gap
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

// readWhileElected reads a feed until this member is no longer elected, or ctx is done.
func (f *Feeds) readWhileElected(ctx context.Context, one *feed) {
	ctx, end := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		defer end()
		f.awaitReplacement(ctx, one)
	})
	f.read(ctx, one)
	end()
	watching.Wait()
}

// read reads a feed until ctx is done, and retries when it breaks.
func (f *Feeds) read(ctx context.Context, one *feed) {
	name, logged, wait := one.Dataset.Name(), false, backoff.Backoff{First: firstPause, Longest: longestPause}
	for ctx.Err() == nil {
		var live time.Time
		err := recovering{one.Feed}.Follow(ctx, func(c origin.Changes) {
			f.handle(one, c)
			if live.IsZero() {
				live = time.Now()
				f.config.OnEvent(name, nil)
			}
			logged = false
		})
		f.setReading(one, false)
		if p, panicked := errors.AsType[*panicError](err); panicked { //guard:panic-of-feed-is-not-reported
			f.config.Defect(fmt.Errorf("dataset %s: %w", name, p))
		}
		if ctx.Err() != nil {
			return
		}
		if !logged {
			f.config.OnEvent(name, err)
		}
		logged = true
		if !live.IsZero() && time.Since(live) >= steady { //guard:flapping-feed-fills-log
			wait.Reset()
		}
		wait.Wait(ctx) //guard:broken-feed-is-retried-in-tight-loop
	}
}
