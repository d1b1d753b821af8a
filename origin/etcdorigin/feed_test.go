package etcdorigin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/ringside-cache/ringside/origin"
)

const feedTimeout = time.Minute

// follower is a running Follow.
type follower struct {
	*testing.T
	received chan origin.Changes
	ended    chan error
	cancel   context.CancelFunc
}

func feedOf(t *testing.T, e cluster) *feed {
	t.Helper()
	f, err := open(t, origin.Auth{}, e.Endpoint()).Feed(origin.Dataset{Name: "things", Prefix: "/things/"}, origin.FeedConfig{Kind: origin.FeedWatch})
	check(t, err)
	return f.(*feed)
}

// follow starts Follow; again and again if it is persistent, because a busy machine may be silent for too long.
func follow(t *testing.T, f *feed, persistent bool) *follower {
	ctx, cancel := context.WithCancel(context.Background())
	w := &follower{t, make(chan origin.Changes, 1000), make(chan error, 1), cancel}
	go func() {
		err := f.Follow(ctx, func(c origin.Changes) { w.received <- c })
		for persistent && ctx.Err() == nil {
			err = f.Follow(ctx, func(c origin.Changes) { w.received <- c })
		}
		w.ended <- err
	}()
	t.Cleanup(w.stop)
	return w
}

// stop cancels Follow and waits for it.
func (w *follower) stop() {
	w.cancel()
	w.ended <- w.end()
}

func (w *follower) end() error {
	w.Helper()
	select {
	case err := <-w.ended:
		return err
	case <-time.After(feedTimeout):
		w.Fatal("Follow has not ended")
		return nil
	}
}

func (w *follower) next() origin.Changes {
	w.Helper()
	select {
	case c := <-w.received:
		return c
	case err := <-w.ended:
		w.ended <- err
		w.Fatalf("Follow has ended: %v", err)
	case <-time.After(feedTimeout):
		w.Fatal("got no changes")
	}
	return origin.Changes{}
}

// wantMissed receives Changes until one is Missed.
func (w *follower) wantMissed() {
	w.Helper()
	for !w.next().Missed {
	}
}

// want receives Changes until all of versions are reported, and fails if others are, or if one is missed.
func (w *follower) want(versions map[string]int64) {
	w.Helper()
	got := map[string]int64{}
	for !maps.Equal(got, versions) {
		c := w.next()
		if c.Missed {
			w.Fatalf("missed; want %v", versions)
		}
		for _, row := range c.Rows {
			if got[row.Key] = row.Version; len(got) > len(versions) {
				w.Fatalf("got %v, want %v", got, versions)
			}
		}
	}
}

func (c cluster) putOne(t *testing.T, key, value string) (revision int64) {
	t.Helper()
	resp, err := c.Put(soon(t), key, value)
	check(t, err)
	return resp.Header.Revision
}

func TestFeed(t *testing.T) {
	t.Parallel()
	e := start(t)
	e.put(t, "/things/a", "before")
	f := feedOf(t, e)
	w := follow(t, f, true)
	w.wantMissed()
	if err := f.Follow(soon(t), nil); !errors.Is(err, errFollowed) {
		t.Errorf("a second Follow: got %v", err)
	}
	w.want(map[string]int64{"a": e.putOne(t, "/things/a", "1")})
	e.put(t, "/thing", "x", "/things0", "x", "/things/", "x", "/things/\xff", "x", "/things/nul\x00", "x")
	w.want(map[string]int64{"../x": e.putOne(t, "/things/../x", "1")})
	_, err := e.Delete(soon(t), "/things/a")
	check(t, err)
	w.want(map[string]int64{"a": 0})
	resp, err := e.Txn(soon(t)).Then(clientv3.OpPut("/things/b", ""), clientv3.OpPut("/things/c", "")).Commit()
	check(t, err)
	w.want(map[string]int64{"b": resp.Header.Revision, "c": resp.Header.Revision})
	w.stop()
	if err := w.end(); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v, want context.Canceled", err)
	}
	w.ended <- nil
}

// What happens while Follow does not run is reported by the next one, also when it does not fit into one message, and after a restart.
func TestFeedContinuesAtItsPosition(t *testing.T) {
	t.Parallel()
	e := start(t)
	f := feedOf(t, e)
	w := follow(t, f, true)
	w.wantMissed()
	w.stop()
	versions := map[string]int64{}
	for i := range 8 {
		key := fmt.Sprint("large-", i)
		versions[key] = e.putOne(t, "/things/"+key, strings.Repeat("x", 600<<10))
	}
	e.Kill()
	e.Start()
	w = follow(t, f, true)
	if c := w.next(); len(c.Rows) != len(versions) || c.Missed {
		t.Errorf("begins with %+v; want %v, so that the feed is live when it has caught up", c, versions)
	}
	w.want(map[string]int64{"a": e.putOne(t, "/things/a", "1")})
	w.stop()

	// A transaction is in two fragments.
	versions = map[string]int64{"first": e.putOne(t, "/things/first", strings.Repeat("x", 1<<20))}
	resp, err := e.Txn(soon(t)).Then(clientv3.OpPut("/things/b", strings.Repeat("x", 700<<10)), clientv3.OpPut("/things/c", strings.Repeat("x", 700<<10))).Commit()
	check(t, err)
	versions["b"], versions["c"] = resp.Header.Revision, resp.Header.Revision
	versions["last"] = e.putOne(t, "/things/last", "")
	follow(t, f, true).want(versions)
}

func TestFeedOfCompactedChanges(t *testing.T) {
	t.Parallel()
	e := start(t)
	f := feedOf(t, e)
	w := follow(t, f, true)
	w.wantMissed()
	w.stop()
	e.put(t, "/things/a", "1", "/things/a", "2", "/things/a", "3")
	e.Compact()
	w = follow(t, f, true)
	w.wantMissed()
	w.want(map[string]int64{"a": e.putOne(t, "/things/a", "4")})
	w.stop()
	e.Compact() // up to the position, which is not lost
	w = follow(t, f, true)
	w.want(map[string]int64{"a": e.putOne(t, "/things/a", "5")})
}

// A restored etcd has earlier revisions, and no change until it gets to the position.
func TestFeedOfARestoredEtcd(t *testing.T) {
	t.Parallel()
	e := start(t)
	for range 10 {
		e.put(t, "/things/a", "1")
	}
	f := feedOf(t, e)
	w := follow(t, f, true)
	w.wantMissed()
	e.Wipe()
	e.Start()
	w.wantMissed()
	w.want(map[string]int64{"a": e.putOne(t, "/things/a", "2")})
}

func TestFeedOfAnEtcdThatHangs(t *testing.T) {
	t.Parallel()
	e := start(t)
	f := feedOf(t, e)
	w := follow(t, f, true)
	w.wantMissed()
	w.stop()
	w = follow(t, f, false)
	e.Freeze()
	if err := w.end(); !errors.Is(err, errSilent) {
		t.Errorf("ended with %v, want %v", err, errSilent)
	}
	w.ended <- nil
	e.Thaw()
	w = follow(t, f, true)
	w.want(map[string]int64{"a": e.putOne(t, "/things/a", "1")})
}

func TestFeedWithoutRights(t *testing.T) {
	t.Parallel()
	e := start(t, "--bcrypt-cost", "4")
	s := open(t, origin.Auth{Username: "reader", PasswordFile: e.secure(t)}, e.Endpoint())
	watch := origin.FeedConfig{Kind: origin.FeedWatch}
	secrets, err := s.Feed(origin.Dataset{Name: "secrets", Prefix: "/secrets/"}, watch)
	check(t, err)
	if err := secrets.Follow(soon(t), nil); !isDenied(err) && !errors.Is(err, errSilent) {
		t.Errorf("got %v, want that the permission is denied", err)
	}
	permitted, err := s.Feed(origin.Dataset{Name: "things", Prefix: "/things/"}, watch)
	check(t, err)
	follow(t, permitted.(*feed), true).wantMissed()
	if _, err := s.Feed(origin.Dataset{Prefix: "/things/"}, origin.FeedConfig{Kind: origin.FeedPoll}); err == nil {
		t.Error("etcd has a feed that polls")
	}
}

func TestPendingIsBounded(t *testing.T) {
	t.Parallel()
	var p pending
	report := func() (rows, missed int) {
		p.report(func(c origin.Changes) {
			if rows += len(c.Rows); c.Missed {
				missed++
			}
			if len(c.Rows) > maxRows {
				t.Errorf("%d rows at once", len(c.Rows))
			}
		})
		return rows, missed
	}
	for i := range maxPending {
		p.add(fmt.Sprint(i), 1)
		p.add("0", int64(i))
	}
	if rows, missed := report(); rows != maxPending || missed != 0 {
		t.Errorf("got %d rows, %d gaps; want %d, 0", rows, missed, maxPending)
	}
	for i := range maxPending + 2 {
		p.add(fmt.Sprint(i), 1)
	}
	if rows, missed := report(); rows != 0 || missed != 1 || !p.isEmpty() {
		t.Errorf("got %d rows, %d gaps; want 0, 1", rows, missed)
	}
}
