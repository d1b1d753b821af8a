package changes

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// quiet is a feed of rows that nobody changes.
type quiet struct{}

func (quiet) Follow(ctx context.Context, handle func(origin.Changes)) error {
	handle(origin.Changes{})
	<-ctx.Done()
	return ctx.Err()
}

func TestFeedWithoutTriggersBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errGone := fmt.Errorf("%w: the trigger is gone", origin.ErrFeedUnavailable)
		var gone atomic.Pointer[error]
		live := 0
		feed := Checked(quiet{}, func(ctx context.Context) error {
			if _, bounded := ctx.Deadline(); !bounded {
				t.Error("a look without end")
			}
			if err := gone.Load(); err != nil {
				return *err
			}
			return nil
		})
		broke := make(chan error, 1)
		go func() { broke <- feed.Follow(t.Context(), func(origin.Changes) { live++ }) }()
		time.Sleep(10 * checkEvery)
		select {
		case err := <-broke:
			t.Fatalf("it broke while all was there: %v", err)
		default:
		}
		gone.Store(&errGone)
		began := time.Now()
		if err := <-broke; !errors.Is(err, errGone) || time.Since(began) > checkEvery {
			t.Errorf("got %v after %v; want what is gone within %v", err, time.Since(began), checkEvery)
		}
		if err := feed.Follow(t.Context(), func(origin.Changes) { live++ }); !errors.Is(err, errGone) || live != 1 {
			t.Errorf("got %v, live %d times; want it never to begin", err, live)
		}
	})
}

// A busy database responds to a check too late, and reports changes nevertheless.
func TestFailedCheckDoesNotStopTheFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looks := 0
		feed := Checked(quiet{}, func(ctx context.Context) error {
			if looks++; looks == 1 || looks > 3 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), 5*checkEvery)
		defer cancel()
		if err := feed.Follow(ctx, func(origin.Changes) {}); ctx.Err() == nil || looks < 4 {
			t.Errorf("got %v after %d looks", err, looks)
		}
	})
}

func TestCheckedFeedEndsWithItsContextAndWithItsFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		feed := Checked(quiet{}, func(context.Context) error { return nil })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := feed.Follow(ctx, func(origin.Changes) {}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		errLost := errors.New("connection lost")
		feed = Checked(failing{errLost}, func(context.Context) error { return nil })
		if err := feed.Follow(t.Context(), func(origin.Changes) {}); !errors.Is(err, errLost) {
			t.Errorf("got %v; want what broke the feed", err)
		}
	})
}

type failing struct{ err error }

func (f failing) Follow(context.Context, func(origin.Changes)) error { return f.err }
