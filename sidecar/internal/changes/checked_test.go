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

// quiet is a feed without changes.
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
				t.Error("the check has no deadline")
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
			t.Fatalf("the feed ended although its triggers exist: %v", err)
		default:
		}
		gone.Store(&errGone)
		began := time.Now()
		if err := <-broke; !errors.Is(err, errGone) || time.Since(began) > checkEvery {
			t.Errorf("got %v after %v; want %v within %v", err, time.Since(began), errGone, checkEvery)
		}
		if err := feed.Follow(t.Context(), func(origin.Changes) { live++ }); !errors.Is(err, errGone) || live != 1 {
			t.Errorf("got %v, live %d times; want %v and live once", err, live, errGone)
		}
	})
}

// A busy database responds to a check too late, and reports changes nevertheless.
func TestFailedCheckDoesNotStopTheFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		checks := 0
		feed := Checked(quiet{}, func(ctx context.Context) error {
			if checks++; checks == 1 || checks > 3 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), 5*checkEvery)
		defer cancel()
		if err := feed.Follow(ctx, func(origin.Changes) {}); ctx.Err() == nil || checks < 4 {
			t.Errorf("got %v after %d checks", err, checks)
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
			t.Errorf("got %v, want %v", err, errLost)
		}
	})
}

type failing struct{ err error }

func (f failing) Follow(context.Context, func(origin.Changes)) error { return f.err }
