package local

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

// listener is an audience that keeps what it is told.
type listener struct {
	events chan event
	beats  chan struct{}
}

func newListener() *listener {
	return &listener{events: make(chan event, 1000), beats: make(chan struct{}, 1000)}
}

func (l *listener) tell(e event) error { l.events <- e; return nil }
func (l *listener) beat() error        { l.beats <- struct{}{}; return nil }

// heard returns what was told since it was asked last, as words, and the last token.
func (l *listener) heard() (words []string, token string) {
	synctest.Wait()
	for {
		select {
		case e := <-l.events:
			words, token = append(words, wordOf(e)), e.token
		default:
			return words, token
		}
	}
}

func wordOf(e event) string {
	switch {
	case e.kind == eventReset:
		return "reset"
	case e.kind == eventCurrent:
		return "current"
	case e.outcome.err != nil:
		return e.key + "!"
	case e.outcome.answer.NotFound:
		return e.key + "-"
	}
	return e.key + "=" + string(e.outcome.answer.Value)
}

// watched is a watch under test, in a bubble.
type watched struct {
	*listener
	t    *testing.T
	stop context.CancelFunc
	done chan error
}

func watchIt(t *testing.T, s *Server, d Dataset, resume string, keys ...string) *watched {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watched{listener: newListener(), t: t, stop: cancel, done: make(chan error, 1)}
	go func() { w.done <- s.newWatch(Served{Dataset: d}, keys, resume).run(ctx, w.listener) }()
	return w
}

func (w *watched) expect(want ...string) (token string) {
	w.t.Helper()
	got, token := w.heard()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.t.Errorf("told %q, want %q", got, want)
	}
	return token
}

func (w *watched) end() {
	w.t.Helper()
	w.stop()
	if err := <-w.done; err != nil {
		w.t.Error(err)
	}
}

func shortLived(t *testing.T, fake *origintest.Fake, ttl time.Duration) *cache.Dataset {
	policy := cache.DefaultPolicy()
	policy.TTL, policy.TTLJitter, policy.StaleIfError = ttl, 0, 0
	d, err := cache.New(cache.Config{Name: "d", Policy: policy, Origin: fake, Writer: fake, MaxBytes: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// change writes a value, when no watch is taking breath.
func change(t *testing.T, d Dataset, key, value string) {
	t.Helper()
	time.Sleep(9 * breath)
	if _, err := d.Write(t.Context(), cache.Change{Key: key, Value: []byte(value)}); err != nil {
		t.Fatal(err)
	}
}

func TestWatchTellsStatesThenCurrentThenChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := shortLived(t, origintest.New(map[string]string{"a": "1", "b": "1"}), time.Hour)
		w := watchIt(t, New(Config{}, NewCatalog()), d, "", "a", "b", "c")
		defer w.end()
		w.expect("a=1", "b=1", "c-", "current")
		change(t, d, "a", "2")
		w.expect("a=2")
		change(t, d, "c", "new")
		w.expect("c=new")
		change(t, d, "other", "x")
		change(t, d, "a", "2") // the same value
		w.expect()
		time.Sleep(9 * breath)
		if _, err := d.Write(t.Context(), cache.Change{Key: "b", Delete: true}); err != nil {
			t.Fatal(err)
		}
		w.expect("b-")
	})
}

// A change that nobody tells of, such as by a writer that goes around the cache, is told within the ttl.
func TestWatchSeesAnUntoldChangeWithinTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := origintest.New(map[string]string{"a": "1", "b": "1"})
		d := shortLived(t, fake, 3*time.Second)
		w := watchIt(t, New(Config{}, NewCatalog()), d, "", "a", "b", "none")
		defer w.end()
		w.expect("a=1", "b=1", "none-", "current")
		fake.Set("a", "2")
		fake.Set("none", "born")
		time.Sleep(cache.DefaultPolicy().NegativeTTL + soonestReread)
		w.expect("none=born")
		time.Sleep(2 * time.Second)
		w.expect("a=2")
		fake.Delete("a")
		time.Sleep(3*time.Second + soonestReread)
		w.expect("a-")
		if queries := fake.Queries(); queries > 20 {
			t.Errorf("%d queries", queries)
		}
	})
}

// An origin that fails is one error per key, and no storm.
func TestWatchTellsAnErrorOnceAndThenTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := origintest.New(map[string]string{"a": "1"})
		d := shortLived(t, fake, time.Second)
		w := watchIt(t, New(Config{}, NewCatalog()), d, "", "a")
		defer w.end()
		token := w.expect("a=1", "current")
		fake.Fail(errors.New("the database is away"))
		before := fake.Queries()
		time.Sleep(time.Minute)
		if got := w.expect("a!"); got != token {
			t.Error("an error is no state that the client knows")
		}
		if n := fake.Queries() - before; n < 5 || n > 30 {
			t.Errorf("%d queries in a minute", n)
		}
		fake.Fail(nil)
		time.Sleep(longestRetry + soonestReread)
		w.expect("a=1") // or the client would believe that it still fails
		fake.Set("a", "2")
		time.Sleep(time.Second + soonestReread)
		w.expect("a=2")
	})
}

// A stale answer is the state, and the next read waits.
func TestWatchOfStaleAnswersDoesNotSpin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		real := shortLived(t, origintest.New(nil), time.Hour)
		d := scripted{name: "d", watch: real.Watch,
			get: func(context.Context, string, cache.ReadOptions) (cache.Answer, error) {
				reads++
				return cache.Answer{Value: []byte("1"), ETag: `"1"`, Stale: true, Source: cache.SourceHit}, nil
			}}
		w := watchIt(t, New(Config{}, NewCatalog()), d, "", "a")
		time.Sleep(time.Minute)
		w.expect("a=1", "current")
		w.end()
		if reads < 10 || reads > 30 {
			t.Errorf("%d reads in a minute", reads)
		}
	})
}

func TestWatchReadsNoMoreOftenThanItsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		real := shortLived(t, origintest.New(nil), time.Hour)
		d := scripted{name: "d", watch: real.Watch,
			get: func(context.Context, string, cache.ReadOptions) (cache.Answer, error) {
				reads++
				return cache.Answer{Value: []byte("1"), ETag: `"1"`, Fresh: time.Nanosecond, Source: cache.SourceHit}, nil
			}}
		w := watchIt(t, New(Config{}, NewCatalog()), d, "", "a")
		time.Sleep(10 * time.Second)
		w.end()
		if reads < 40 || reads > 101 {
			t.Errorf("%d reads in 10 s", reads)
		}
	})
}

// A key that is written all the time must not take a processor for each of its watches.
func TestWatchOfAHotKeyTakesBreath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := shortLived(t, origintest.New(map[string]string{"a": "0"}), time.Hour)
		w := watchIt(t, New(Config{}, NewCatalog()), d, "", "a")
		for i := range 10000 {
			if _, err := d.Write(t.Context(), cache.Change{Key: "a", Value: fmt.Append(nil, i)}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(2 * breath)
		got, _ := w.heard()
		if n := len(got); n < 100 || n > 203 || got[n-1] != "a=9999" {
			t.Errorf("%d events in a second, the last %q", n, got[n-1])
		}
		w.end()
	})
}

func TestWatchResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := origintest.New(map[string]string{"a": "1", "b": "1"})
		s, d := New(Config{}, NewCatalog()), shortLived(t, fake, time.Hour)
		w := watchIt(t, s, d, "", "a", "b", "c")
		token := w.expect("a=1", "b=1", "c-", "current")
		w.end()

		// Another sidecar has loaded the same rows.
		elsewhere := shortLived(t, fake, time.Hour)
		w = watchIt(t, s, elsewhere, token, "c", "b", "a")
		if got := w.expect("current"); got != token {
			t.Errorf("token %q, want %q", got, token)
		}
		change(t, elsewhere, "b", "2")
		now := w.expect("b=2")
		w.end()
		if now == token {
			t.Error("another state has the same token")
		}
		for _, stale := range []string{token, "garbage", now + "x"} {
			w = watchIt(t, s, elsewhere, stale, "a", "b", "c")
			if got := w.expect("reset", "a=1", "b=2", "c-", "current"); got != now {
				t.Errorf("token %q, want %q", got, now)
			}
			w.end()
		}
		w = watchIt(t, s, elsewhere, now, "a", "b") // other keys
		w.expect("reset", "a=1", "b=2", "current")
		w.end()
	})
}

// The states that follow a reset begin after it, and current ends them.
func TestWatchKeepsTheOrderOfEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := shortLived(t, origintest.New(map[string]string{"a": "1", "b": "1"}), time.Hour)
		w := watchIt(t, New(Config{}, NewCatalog()), d, "old", "a", "b")
		got, _ := w.heard()
		if len(got) != 4 || got[0] != "reset" || got[3] != "current" {
			t.Errorf("%q", got)
		}
		w.end()
	})
}

// A client that was cut off in the middle of the states must not be taken for one that knows them all.
func TestTokenOfHalfTheStatesIsNotThatOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := shortLived(t, origintest.New(map[string]string{"a": "1", "b": "1"}), time.Hour)
		w := watchIt(t, New(Config{}, NewCatalog()), d, "", "a", "b")
		synctest.Wait()
		tokens := map[string]int{}
		for range 3 {
			tokens[(<-w.events).token]++
		}
		if len(tokens) != 2 { // one state; two; two and current
			t.Errorf("%v", tokens)
		}
		w.end()
	})
}

func TestWatchBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := shortLived(t, origintest.New(map[string]string{"a": "1"}), time.Hour)
		w := watchIt(t, New(Config{}, NewCatalog()), d, "", "a")
		time.Sleep(time.Minute + time.Second)
		if n := len(w.beats); n != 4 {
			t.Errorf("%d beats in a minute", n)
		}
		w.end()
	})
}

// However many changes come while the client is slow, it then gets the newest state of each key, once.
func TestSlowClientGetsTheNewestState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := shortLived(t, origintest.New(map[string]string{"a": "0"}), time.Hour)
		s := New(Config{}, NewCatalog())
		slow := &gated{listener: newListener(), gate: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.newWatch(Served{Dataset: d}, []string{"a"}, "").run(ctx, slow) }()
		synctest.Wait()
		for i := range 10000 {
			if _, err := d.Write(t.Context(), cache.Change{Key: "a", Value: fmt.Append(nil, i)}); err != nil {
				t.Fatal(err)
			}
		}
		close(slow.gate)
		time.Sleep(time.Second)
		if got, _ := slow.heard(); !slices.Equal(got, []string{"a=0", "current", "a=9999"}) {
			t.Errorf("%q", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// gated takes nothing until its gate is open.
type gated struct {
	*listener
	gate chan struct{}
}

func (g *gated) tell(e event) error {
	<-g.gate
	return g.listener.tell(e)
}

// What was read when the watch ended, such as by a stop of the sidecar, says nothing about the keys.
func TestEndOfAWatchIsNoErrorOfItsKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := origintest.New(map[string]string{"a": "1"})
		release := fake.Block()
		d := shortLived(t, fake, time.Hour)
		w := watchIt(t, New(Config{}, NewCatalog()), d, "", "a")
		synctest.Wait()
		w.end()
		w.expect()
		release()
		synctest.Wait()
	})
}

func TestWatchEndsWithItsAudience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := shortLived(t, origintest.New(map[string]string{"a": "1"}), time.Hour)
		gone := errors.New("the client is gone")
		err := New(Config{}, NewCatalog()).newWatch(Served{Dataset: d}, []string{"a"}, "").run(t.Context(), deaf{gone})
		if !errors.Is(err, gone) {
			t.Error(err)
		}
	})
}

type deaf struct{ err error }

func (d deaf) tell(event) error { return d.err }
func (d deaf) beat() error      { return d.err }

// A watch of large values reads a few at a time, and every one in the end.
func TestWatchHoldsFewValuesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		values := map[string]string{"huge": strings.Repeat("h", 2*watchBytes)}
		keys := []string{"huge"}
		for i := range 40 {
			key := fmt.Sprint("k", i)
			keys, values[key] = append(keys, key), strings.Repeat("v", watchBytes/8)
		}
		d := shortLived(t, origintest.New(values), time.Hour)
		s := New(Config{}, NewCatalog())
		w := s.newWatch(Served{Dataset: d}, keys, "")
		held := 0
		for _, o := range w.readSome(t.Context(), keys) {
			held += len(o.answer.Value)
		}
		if held > 3*watchBytes {
			t.Errorf("%d bytes at once", held)
		}
		told := map[string]int{}
		err := w.read(t.Context(), keys, func(key string, o outcome) error {
			told[key]++
			return o.err
		})
		if err != nil || len(told) != len(keys) {
			t.Errorf("%d of %d keys, %v", len(told), len(keys), err)
		}
		if n := s.stats.BatchTruncated.Load(); n != 0 {
			t.Errorf("%d keys of batches refused", n)
		}
	})
}

func TestCheckWatchKeys(t *testing.T) {
	many := make([]string, MaxWatchKeys+1)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	if got, err := checkWatchKeys([]string{"b", "a", "b"}); err != nil || !slices.Equal(got, []string{"b", "a"}) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := checkWatchKeys(many[1:]); err != nil || len(got) != MaxWatchKeys {
		t.Errorf("%d, %v", len(got), err)
	}
	for _, bad := range [][]string{nil, {}, {""}, {"a", "\xff"}, many, {strings.Repeat("k", 1025)}} {
		if got, err := checkWatchKeys(bad); err == nil {
			t.Errorf("%.60q: %q", bad, got)
		}
	}
}
