package changes

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// panicking panics as a decoder of changes might.
type panicking struct{ origin.Feed }

func (panicking) Follow(context.Context, func(origin.Changes)) error { panic("canary") }

func TestPanicOfAFeedBreaksTheFeedAndIsReported(t *testing.T) {
	const text = "panic while reading a change feed: canary"
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a")
		r.want("follow")
		for _, f := range r.feeds {
			if f.Dataset.Name() == "a" {
				f.Feed = panicking{f.Feed}
			}
		}
		r.feed.breaks <- errors.New("cut")
		r.want("event a cut")
		time.Sleep(firstPause)
		r.want("defect dataset a: " + text + ", with stack: true")
		time.Sleep(2 * firstPause)
		r.want("defect dataset a: " + text + ", with stack: true")
		r.end()
	})
}

// The check of a feed runs on a goroutine of its own.
func TestPanicOfACheckBreaksTheFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checks := 0
		feed := Checked(waiting{}, func(context.Context) error {
			if checks++; checks == 2 {
				panic("canary")
			}
			return nil
		})
		err := feed.Follow(t.Context(), nil)
		if _, panicked := errors.AsType[*panicError](err); !panicked {
			t.Errorf("got error %v, want the panic", err)
		}
	})
}

// waiting waits until its context is done.
type waiting struct{ origin.Feed }

func (waiting) Follow(ctx context.Context, _ func(origin.Changes)) error {
	<-ctx.Done()
	return context.Cause(ctx)
}
