package changes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// script records the calls, in order.
type script struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (s *script) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

// take returns the lines since the last take.
func (s *script) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := s.lines
	s.lines = nil
	return strings.Join(lines, "; ")
}

func describe(i kv.Invalidation) string {
	if i.Prefix {
		return i.Dataset + "/" + i.Key + "*"
	}
	return fmt.Sprintf("%s/%s@%d", i.Dataset, i.Key, i.Version)
}

type dataset struct {
	*script
	name string
}

func (d dataset) Name() string                        { return d.name }
func (d dataset) ApplyInvalidation(i kv.Invalidation) { d.note("invalidate %s", describe(i)) }
func (d dataset) ExpireAll()                          { d.note("expire all of %s", d.name) }
func (d dataset) SetFeedLive(live bool)               { d.note("%s live=%v", d.name, live) }

// members are the peers. The datasets that this member is elected for can change.
type members struct {
	*script
	mu      sync.Mutex // guards elected
	elected []string
}

func (m *members) Elected(dataset string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Contains(m.elected, dataset)
}

func (m *members) Publish(i kv.Invalidation)      { m.note("publish %s", describe(i)) }
func (m *members) SetLiveFeeds(datasets []string) { m.note("announce %v", datasets) }

// feedOf reports the changes that the test sends, until the test sends an error.
type feedOf struct {
	*script
	changes chan origin.Changes
	breaks  chan error
}

func (f feedOf) Follow(ctx context.Context, handle func(origin.Changes)) error {
	f.note("follow")
	for {
		select {
		case c := <-f.changes:
			handle(c)
		case err := <-f.breaks:
			return err
		case <-ctx.Done():
			f.note("end")
			return ctx.Err()
		}
	}
}

// rig has the feeds of two datasets, a and b. This member reads a; b must not change.
type rig struct {
	t *testing.T
	*script
	*Feeds
	members *members
	feed    feedOf
	stop    context.CancelFunc
	done    chan struct{}
}

func newRig(t *testing.T, elected ...string) *rig {
	s := &script{}
	r := &rig{
		t: t, script: s, members: &members{script: s, elected: elected}, done: make(chan struct{}),
		feed: feedOf{s, make(chan origin.Changes), make(chan error)},
	}
	r.Feeds = New(Config{
		Peers:   r.members,
		OnEvent: func(dataset string, err error) { s.note("event %s %v", dataset, err) },
		Defect: func(err error) {
			var panicked interface{ PanicStack() []byte }
			s.note("defect %v, with stack: %v", err, errors.As(err, &panicked) && bytes.Contains(panicked.PanicStack(), []byte("goroutine")))
		},
	})
	r.Replace([]Source{{dataset{s, "b"}, feedOf{s, nil, nil}}, {dataset{s, "a"}, r.feed}})
	ctx, cancel := context.WithCancel(t.Context())
	r.stop = cancel
	go func() {
		defer close(r.done)
		r.Run(ctx)
	}()
	return r
}

// setElected changes the datasets that this member is elected for.
func (r *rig) setElected(datasets ...string) {
	r.members.mu.Lock()
	r.members.elected = datasets
	r.members.mu.Unlock()
	r.RingChanged()
}

// want compares the lines since the last want.
func (r *rig) want(lines ...string) {
	r.t.Helper()
	synctest.Wait()
	if got, want := r.take(), strings.Join(lines, "; "); got != want {
		r.t.Errorf("got  %s\nwant %s", got, want)
	}
}

func (r *rig) end() {
	r.t.Helper()
	r.stop()
	<-r.done
	r.take()
}

// changed returns changes of rows, all with version 7.
func changed(keys ...string) origin.Changes {
	var c origin.Changes
	for _, key := range keys {
		c.Rows = append(c.Rows, origin.Changed{Key: key, Version: 7})
	}
	return c
}

func TestChangesAreAppliedAndPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a")
		r.want("follow")
		r.feed.changes <- origin.Changes{}
		r.want("expire all of a", "a live=true", "announce [a]", "event a <nil>")
		if !r.Reading("a") || r.Reading("b") {
			t.Errorf("reading a: %v, b: %v; want only a", r.Reading("a"), r.Reading("b"))
		}
		r.feed.changes <- changed("k", "l")
		r.want("invalidate a/k@7", "publish a/k@7", "invalidate a/l@7", "publish a/l@7")
		r.stop()
		<-r.done
		r.want("end", "a live=false", "announce []")
	})
}

// Otherwise each of a thousand pods would read the database.
func TestMemberThatIsNotElectedDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.want()
		r.RingChanged()
		r.want()
		r.setElected("a")
		r.want("follow")
		r.end()
	})
}

func TestReplacedReaderHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a")
		r.feed.changes <- origin.Changes{}
		r.want("follow", "expire all of a", "a live=true", "announce [a]", "event a <nil>")
		r.setElected()
		time.Sleep(handover - 1)
		r.want()
		r.setElected("a") // again, before it has ended
		time.Sleep(2 * handover)
		r.want()
		r.setElected()
		time.Sleep(handover)
		r.want("end", "a live=false", "announce []")
		time.Sleep(time.Hour)
		r.want()
		r.setElected("a")
		r.want("follow")
		r.end()
	})
}

func TestFeedIsLiveWhileAnyMemberReadsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.LiveFeeds("m1", []string{"a"})
		r.want("expire all of a", "a live=true")
		r.LiveFeeds("m2", []string{"a", "b", "no such dataset"})
		r.want("expire all of b", "b live=true")
		r.Missed("m1")
		r.want()
		r.LiveFeeds("m2", []string{"a"})
		r.want("b live=false")
		r.LiveFeeds("m2", nil)
		r.want("a live=false")
		r.LiveFeeds("m1", []string{"a"})
		r.want("expire all of a", "a live=true")
		r.end()
	})
}

func TestOwnReadingCountsLikeThatOfOtherMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a")
		r.want("follow")
		r.LiveFeeds("m1", []string{"a"})
		r.want("expire all of a", "a live=true")
		r.feed.changes <- origin.Changes{}
		r.want("announce [a]", "event a <nil>")
		r.Missed("m1")
		r.want()
		r.feed.breaks <- errors.New("cut")
		r.want("a live=false", "announce []", "event a cut")
		r.end()
	})
}

// A new reader reports everything before its start as missed. If it published that, each election would invalidate the whole
// dataset on all members.
func TestChangesBeforeTheStartAreNotPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a")
		r.want("follow")
		r.LiveFeeds("m1", []string{"a"})
		r.want("expire all of a", "a live=true")
		r.feed.changes <- origin.Changes{Missed: true, Rows: changed("k").Rows}
		r.want("invalidate a/k@7", "publish a/k@7", "announce [a]", "event a <nil>")
		r.end()
	})
}

func TestMissedChangesInvalidateEverythingOnAllMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a")
		r.feed.changes <- origin.Changes{}
		r.want("follow", "expire all of a", "a live=true", "announce [a]", "event a <nil>")
		r.feed.changes <- origin.Changes{Missed: true}
		r.want("invalidate a/*", "publish a/*")
		r.end()
	})
}

func TestBrokenFeedIsRetriedWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a")
		r.want("follow")
		wait := firstPause
		for i := range 10 {
			r.feed.breaks <- errors.New("no database")
			if i == 0 {
				r.want("event a no database") // once, not for each attempt
			}
			time.Sleep(wait/2 - 1)
			r.want()
			time.Sleep(wait/2 + 1)
			r.want("follow")
			wait = min(2*wait, longestPause)
		}
		r.feed.changes <- origin.Changes{}
		r.want("expire all of a", "a live=true", "announce [a]", "event a <nil>")
		time.Sleep(steady)
		r.feed.breaks <- errors.New("cut")
		r.want("a live=false", "announce []", "event a cut")
		time.Sleep(firstPause)
		r.want("follow")
		r.end()
	})
}

// A database that ends each connection soon after it was made would fill the log.
func TestFlappingFeedIsRetriedWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a")
		attempts := 0
		for began := time.Now(); time.Since(began) < time.Minute; attempts++ {
			r.feed.changes <- origin.Changes{}
			time.Sleep(500 * time.Millisecond)
			r.feed.breaks <- errors.New("terminated")
		}
		if attempts > 26 { // one for half of longestPause and a half second, and the first few
			t.Errorf("%d attempts in a minute", attempts)
		}
		r.end()
	})
}

// A reload adds and removes datasets while others stay.
func TestReplaceKeepsOtherFeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, "a", "c")
		r.feed.changes <- origin.Changes{}
		r.want("follow", "expire all of a", "a live=true", "announce [a]", "event a <nil>")
		r.LiveFeeds("m", []string{"c"})
		r.want()
		a := Source{dataset{r.script, "a"}, r.feed}
		c := Source{dataset{r.script, "c"}, feedOf{r.script, make(chan origin.Changes), nil}}
		r.Replace([]Source{c, a})
		r.want("expire all of c", "c live=true", "follow")
		r.Replace([]Source{a})
		r.want("end", "c live=false")
		r.Replace(nil)
		r.want("end", "a live=false", "announce []")
		r.Replace([]Source{a})
		r.want("follow")
		r.end()
	})
}
