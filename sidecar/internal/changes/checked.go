package changes

import (
	"context"
	"errors"
	"time"

	"github.com/ringside-cache/ringside/internal/backoff"
	"github.com/ringside-cache/ringside/origin"
)

const (
	// checkEvery is how long what a feed rests on may be gone before that is noticed.
	checkEvery = time.Minute
	// checkTimeout bounds one look.
	checkTimeout = 5 * time.Second
)

// Checked turns a feed into one that breaks while check says origin.ErrFeedUnavailable: what it rests on in its origin is not
// there. A feed that nobody writes to is as quiet as one of rows that nobody changes: without a look it would seem live
// for ever.
func Checked(feed origin.Feed, check func(context.Context) error) origin.Feed {
	return checked{feed, check}
}

type checked struct {
	origin.Feed
	check func(context.Context) error
}

// Follow implements origin.Feed.
func (c checked) Follow(ctx context.Context, handle func(origin.Changes)) error {
	if err := c.look(ctx); err != nil { //guard:feed-without-triggers-seems-live
		return err
	}
	following, stop := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		c.watch(following, stop) //guard:feed-whose-triggers-gone-seems-live
	}()
	err := c.Feed.Follow(following, handle)
	stop(err)
	<-watched
	return context.Cause(following)
}

// watch looks again and again, and stops the feed with what it misses. A look that fails, as those at a busy database
// do, says nothing of a feed that is well: one whose connection is lost ends by itself.
func (c checked) watch(ctx context.Context, stop context.CancelCauseFunc) {
	for backoff.Sleep(ctx, checkEvery) {
		if err := c.look(ctx); errors.Is(err, origin.ErrFeedUnavailable) { //guard:look-comes-too-late-ends-feed
			stop(err)
		}
	}
}

func (c checked) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	return c.check(ctx)
}
