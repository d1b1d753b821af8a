package changes

import (
	"context"
	"errors"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/ring/backoff"
)

const (
	// checkEvery is the time between two checks of a feed's triggers.
	checkEvery = time.Minute
	// checkTimeout bounds one check.
	checkTimeout = 5 * time.Second
)

// Checked turns a feed into one that breaks while check returns origin.ErrFeedUnavailable: something that the feed needs in
// its origin, such as a trigger, is missing. Without checks such a feed would seem live, because it is as quiet as one of rows
// that do not change.
func Checked(feed origin.Feed, check func(context.Context) error) origin.Feed {
	return &checked{feed, check}
}

type checked struct {
	origin.Feed
	check func(context.Context) error
}

// Follow implements origin.Feed.
func (c *checked) Follow(ctx context.Context, handle func(origin.Changes)) error {
	if err := c.checkOnce(ctx); err != nil { //guard:feed-without-triggers-seems-live
		return err
	}
	following, stop := context.WithCancelCause(ctx)
	checked := make(chan struct{})
	go func() {
		defer close(checked)
		var err error
		defer func() {
			if err != nil {
				stop(err)
			}
		}()
		defer recovered(&err)
		c.checkRegularly(following, stop) //guard:feed-with-removed-triggers-seems-live
	}()
	err := c.Feed.Follow(following, handle)
	stop(err)
	<-checked
	return context.Cause(following)
}

// checkRegularly stops the feed when a check finds something missing. Other errors, such as timeouts of a busy database, do
// not stop it: a feed whose connection is lost ends by itself.
func (c checked) checkRegularly(ctx context.Context, stop context.CancelCauseFunc) {
	for backoff.Sleep(ctx, checkEvery) {
		if err := c.checkOnce(ctx); errors.Is(err, origin.ErrFeedUnavailable) { //guard:slow-check-ends-healthy-feed
			stop(err)
		}
	}
}

func (c checked) checkOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	return c.check(ctx)
}
