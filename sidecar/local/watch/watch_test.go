package watch

import (
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
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
)

// recorder is a Sink that records its events.
type recorder struct {
	events chan Event
	beats  chan struct{}
}

func newRecorder() *recorder {
	return &recorder{events: make(chan Event, 1000), beats: make(chan struct{}, 1000)}
}

func (l *recorder) Send(e Event) error { l.events <- e; return nil }
func (l *recorder) Heartbeat() error   { l.beats <- struct{}{}; return nil }

// recorded returns the events since its last call, as words, and the last token.
func (l *recorder) recorded() (words []string, token string) {
	synctest.Wait()
	for {
		select {
		case e := <-l.events:
			words, token = append(words, wordOf(e)), e.Token
		default:
			return words, token
		}
	}
}

func wordOf(e Event) string {
	switch {
	case e.Kind == Reset:
		return "reset"
	case e.Kind == Current:
		return "current"
	case e.Result.Err != nil:
		return e.Key + "!"
	case e.Result.Answer.NotFound:
		return e.Key + "-"
	}
	return e.Key + "=" + string(e.Result.Answer.Value)
}

func newEngine(t *testing.T) *Engine {
	return NewEngine(api.NewBackend(t.Context(), api.Config{}, api.NewCatalog()))
}

// scripted is a dataset with another GetMany.
type scripted struct {
	api.Dataset
	get func() kv.Answer
}

func (s scripted) GetMany(_ context.Context, keys []string, _ kv.ReadOptions, _ kv.BatchLimit) []kv.Result {
	results := make([]kv.Result, len(keys))
	for i := range results {
		results[i].Answer = s.get()
	}
	return results
}

// watched is a watch under test, in a synctest bubble.
type watched struct {
	*recorder
	t    *testing.T
	stop context.CancelFunc
	done chan error
}

func startWatch(t *testing.T, e *Engine, d api.Dataset, resume string, keys ...string) *watched {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &watched{recorder: newRecorder(), t: t, stop: cancel, done: make(chan error, 1)}
	go func() { w.done <- e.New(api.Served{Dataset: d}, keys, resume).Run(ctx, w.recorder) }()
	return w
}

func (w *watched) expect(want ...string) (token string) {
	w.t.Helper()
	got, token := w.recorded()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		w.t.Errorf("got events %q, want %q", got, want)
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
	policy := kv.DefaultPolicy()
	policy.TTL, policy.TTLJitter, policy.StaleIfError = ttl, 0, 0
	d, err := cache.New(cache.Config{Name: "d", Policy: policy, Origin: fake, Writer: fake, MaxBytes: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// change writes a value after the pause of every watch has ended.
func change(t *testing.T, d api.Dataset, key, value string) {
	t.Helper()
	time.Sleep(9 * minInterval)
	if _, err := d.Write(t.Context(), kv.Change{Key: key, Value: []byte(value)}); err != nil {
		t.Fatal(err)
	}
}

func TestWatchSendsStatesThenCurrentThenChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := shortLived(t, origintest.New(map[string]string{"a": "1", "b": "1"}), time.Hour)
		w := startWatch(t, newEngine(t), d, "", "a", "b", "c")
		defer w.end()
		w.expect("a=1", "b=1", "c-", "current")
		change(t, d, "a", "2")
		w.expect("a=2")
		change(t, d, "c", "new")
		w.expect("c=new")
		change(t, d, "other", "x")
		change(t, d, "a", "2") // the same value
		w.expect()
		time.Sleep(9 * minInterval)
		if _, err := d.Write(t.Context(), kv.Change{Key: "b", Delete: true}); err != nil {
			t.Fatal(err)
		}
		w.expect("b-")
	})
}

// The watch sends a change that nothing announces, such as that of a writer that bypasses the cache, within the ttl.
func TestWatchSendsUnannouncedChangeWithinTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := origintest.New(map[string]string{"a": "1", "b": "1"})
		d := shortLived(t, fake, 3*time.Second)
		w := startWatch(t, newEngine(t), d, "", "a", "b", "none")
		defer w.end()
		w.expect("a=1", "b=1", "none-", "current")
		fake.Set("a", "2")
		fake.Set("none", "born")
		time.Sleep(kv.DefaultPolicy().NegativeTTL + minReread)
		w.expect("none=born")
		time.Sleep(2 * time.Second)
		w.expect("a=2")
		fake.Delete("a")
		time.Sleep(3*time.Second + minReread)
		w.expect("a-")
		if queries := fake.Queries(); queries > 20 {
			t.Errorf("%d queries", queries)
		}
	})
}

// A failing origin causes one error event per key, and few reads.
func TestWatchSendsAnErrorOnceAndThenTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := origintest.New(map[string]string{"a": "1"})
		d := shortLived(t, fake, time.Second)
		w := startWatch(t, newEngine(t), d, "", "a")
		defer w.end()
		token := w.expect("a=1", "current")
		fake.Fail(errors.New("the database is down"))
		before := fake.Queries()
		time.Sleep(time.Minute)
		if got := w.expect("a!"); got != token {
			t.Error("an error changed the token")
		}
		if n := fake.Queries() - before; n < 5 || n > 30 {
			t.Errorf("%d queries in a minute, want 5 to 30", n)
		}
		fake.Fail(nil)
		time.Sleep(maxRetry + minReread)
		w.expect("a=1") // otherwise the client would assume that it still fails
		fake.Set("a", "2")
		time.Sleep(time.Second + minReread)
		w.expect("a=2")
	})
}

// The watch sends a stale answer as the state, and the next read waits.
func TestWatchOfStaleAnswersBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		real := shortLived(t, origintest.New(nil), time.Hour)
		d := scripted{Dataset: real,
			get: func() kv.Answer {
				reads++
				return kv.Answer{Value: []byte("1"), ETag: `"1"`, Stale: true, Source: kv.SourceHit}
			}}
		w := startWatch(t, newEngine(t), d, "", "a")
		time.Sleep(time.Minute)
		w.expect("a=1", "current")
		w.end()
		if reads < 10 || reads > 30 {
			t.Errorf("%d reads in a minute, want 10 to 30", reads)
		}
	})
}

func TestWatchRereadsAtMostAtItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		real := shortLived(t, origintest.New(nil), time.Hour)
		d := scripted{Dataset: real,
			get: func() kv.Answer {
				reads++
				return kv.Answer{Value: []byte("1"), ETag: `"1"`, Fresh: time.Nanosecond, Source: kv.SourceHit}
			}}
		w := startWatch(t, newEngine(t), d, "", "a")
		time.Sleep(10 * time.Second)
		w.end()
		if reads < 40 || reads > 101 {
			t.Errorf("%d reads in 10 s, want 40 to 101", reads)
		}
	})
}

// A key that is written all the time must not occupy a processor for each of its watches.
func TestWatchOfHotKeyPausesBetweenRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := shortLived(t, origintest.New(map[string]string{"a": "0"}), time.Hour)
		w := startWatch(t, newEngine(t), d, "", "a")
		for i := range 10000 {
			if _, err := d.Write(t.Context(), kv.Change{Key: "a", Value: fmt.Append(nil, i)}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(2 * minInterval)
		got, _ := w.recorded()
		if n := len(got); n < 100 || n > 203 || got[n-1] != "a=9999" {
			t.Errorf("%d events in a second, the last %q", n, got[n-1])
		}
		w.end()
	})
}

func TestWatchResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := origintest.New(map[string]string{"a": "1", "b": "1"})
		e, d := newEngine(t), shortLived(t, fake, time.Hour)
		w := startWatch(t, e, d, "", "a", "b", "c")
		token := w.expect("a=1", "b=1", "c-", "current")
		w.end()

		// Another sidecar, which has loaded the same rows.
		elsewhere := shortLived(t, fake, time.Hour)
		w = startWatch(t, e, elsewhere, token, "c", "b", "a")
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
			w = startWatch(t, e, elsewhere, stale, "a", "b", "c")
			if got := w.expect("reset", "a=1", "b=2", "c-", "current"); got != now {
				t.Errorf("token %q, want %q", got, now)
			}
			w.end()
		}
		w = startWatch(t, e, elsewhere, now, "a", "b") // other keys
		w.expect("reset", "a=1", "b=2", "current")
		w.end()
	})
}

func TestResetComesFirstAndCurrentLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := shortLived(t, origintest.New(map[string]string{"a": "1", "b": "1"}), time.Hour)
		w := startWatch(t, newEngine(t), d, "old", "a", "b")
		got, _ := w.recorded()
		if len(got) != 4 || got[0] != "reset" || got[3] != "current" {
			t.Errorf("%q", got)
		}
		w.end()
	})
}

// A client that was disconnected in the middle of the states must not be taken for one that knows them all.
func TestTokenOfSomeStatesDiffersFromThatOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := shortLived(t, origintest.New(map[string]string{"a": "1", "b": "1"}), time.Hour)
		w := startWatch(t, newEngine(t), d, "", "a", "b")
		synctest.Wait()
		tokens := map[string]int{}
		for range 3 {
			tokens[(<-w.events).Token]++
		}
		if len(tokens) != 2 { // one state; two; two and current
			t.Errorf("%v", tokens)
		}
		w.end()
	})
}

func TestWatchSendsHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := shortLived(t, origintest.New(map[string]string{"a": "1"}), time.Hour)
		w := startWatch(t, newEngine(t), d, "", "a")
		time.Sleep(time.Minute + time.Second)
		if n := len(w.beats); n != 4 {
			t.Errorf("got %d heartbeats in a minute, want 4", n)
		}
		w.end()
	})
}

// However many changes occur while the client is slow, it then gets the newest state of each key, once.
func TestSlowClientGetsTheNewestState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := shortLived(t, origintest.New(map[string]string{"a": "0"}), time.Hour)
		e := newEngine(t)
		slow := &gated{recorder: newRecorder(), gate: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- e.New(api.Served{Dataset: d}, []string{"a"}, "").Run(ctx, slow) }()
		synctest.Wait()
		for i := range 10000 {
			if _, err := d.Write(t.Context(), kv.Change{Key: "a", Value: fmt.Append(nil, i)}); err != nil {
				t.Fatal(err)
			}
		}
		close(slow.gate)
		time.Sleep(time.Second)
		if got, _ := slow.recorded(); !slices.Equal(got, []string{"a=0", "current", "a=9999"}) {
			t.Errorf("%q", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// gated accepts no event until its gate is open.
type gated struct {
	*recorder
	gate chan struct{}
}

func (g *gated) Send(e Event) error {
	<-g.gate
	return g.recorder.Send(e)
}

// A read that fails because the watch ends, for example when the sidecar stops, is not an error of the key.
func TestEndOfWatchIsNotSentAsError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := origintest.New(map[string]string{"a": "1"})
		release := fake.Block()
		d := shortLived(t, fake, time.Hour)
		w := startWatch(t, newEngine(t), d, "", "a")
		synctest.Wait()
		w.end()
		w.expect()
		release()
		synctest.Wait()
	})
}

func TestWatchEndsWithItsSink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := shortLived(t, origintest.New(map[string]string{"a": "1"}), time.Hour)
		disconnected := errors.New("the client has disconnected")
		err := newEngine(t).New(api.Served{Dataset: d}, []string{"a"}, "").Run(t.Context(), failingSink{disconnected})
		if !errors.Is(err, disconnected) {
			t.Error(err)
		}
	})
}

type failingSink struct{ err error }

func (d failingSink) Send(Event) error { return d.err }
func (d failingSink) Heartbeat() error { return d.err }

// A watch of large values reads a few at a time, and all of them in the end.
func TestWatchHoldsFewValuesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		values := map[string]string{"huge": strings.Repeat("h", 2*maxBytes)}
		keys := []string{"huge"}
		for i := range 40 {
			key := fmt.Sprint("k", i)
			keys, values[key] = append(keys, key), strings.Repeat("v", maxBytes/8)
		}
		d := shortLived(t, origintest.New(values), time.Hour)
		e := newEngine(t)
		w := e.New(api.Served{Dataset: d}, keys, "")
		held := 0
		for _, r := range w.readSome(t.Context(), keys, kv.ReadOptions{}, maxBytes, new(budget.Loan)) {
			held += len(r.Answer.Value)
		}
		if held > 3*maxBytes {
			t.Errorf("%d bytes at once", held)
		}
		visited := map[string]int{}
		err := w.read(t.Context(), keys, func(key string, r kv.Result) error {
			visited[key]++
			return r.Err
		})
		if err != nil || len(visited) != len(keys) {
			t.Errorf("%d of %d keys, %v", len(visited), len(keys), err)
		}
		if n := e.backend.Stats().BatchTruncated.Load(); n != 0 {
			t.Errorf("%d keys of batches refused", n)
		}
	})
}

func TestCheckKeys(t *testing.T) {
	many := make([]string, MaxKeys+1)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	if got, err := CheckKeys([]string{"b", "a", "b"}); err != nil || !slices.Equal(got, []string{"b", "a"}) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := CheckKeys(many[1:]); err != nil || len(got) != MaxKeys {
		t.Errorf("%d, %v", len(got), err)
	}
	for _, bad := range [][]string{nil, {}, {""}, {"a", "\xff"}, many, {strings.Repeat("k", 1025)}} {
		if got, err := CheckKeys(bad); err == nil {
			t.Errorf("%.60q: %q", bad, got)
		}
	}
}

func TestNoWatchOpensAfterStop(t *testing.T) {
	e := newEngine(t)
	if err := e.Open(); err != nil {
		t.Fatal(err)
	}
	e.Stop()
	if err := e.Open(); kv.KindOf(err) != kv.KindCanceled {
		t.Errorf("got %v, want an error of KindCanceled", err)
	}
	e.Close()
	e.Wait()
}

// blocked is a sink whose client does not read.
type blocked struct{ until chan struct{} }

func (b blocked) Send(Event) error { <-b.until; return nil }
func (b blocked) Heartbeat() error { return nil }

func TestValuesOfSlowWatchesTakeMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 100 << 10
		rows := map[string]string{"a": strings.Repeat("a", size), "b": strings.Repeat("b", size)}
		b := budget.New(4 << 20)
		e := NewEngine(api.NewBackend(t.Context(), api.Config{Budget: b}, api.NewCatalog()))
		d := shortLived(t, origintest.New(rows), time.Hour)
		sink := blocked{make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		var watches sync.WaitGroup
		for range 3 {
			watches.Go(func() { _ = e.New(api.Served{Dataset: d}, []string{"a", "b"}, "").Run(ctx, sink) })
		}
		synctest.Wait()
		if got, want := b.Stats()[budget.Watches].Used, int64(3*2*size); got < want {
			t.Errorf("got %d bytes taken by watches that hold values of %d bytes, want at least those", got, want)
		}
		cancel()
		close(sink.until)
		watches.Wait()
		if got := b.Stats()[budget.Watches].Used; got != 0 {
			t.Errorf("got %d bytes taken after all watches have ended, want 0", got)
		}
	})
}

func TestWatchesTakeMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(1 << 20)
		e := NewEngine(api.NewBackend(t.Context(), api.Config{Budget: b}, api.NewCatalog()))
		keys := make([]string, MaxKeys)
		for i := range keys {
			keys[i] = fmt.Sprint("key-", i)
		}
		d := scripted{Dataset: shortLived(t, origintest.New(nil), time.Hour), get: func() kv.Answer { return kv.Answer{NotFound: true, Fresh: time.Hour} }}
		var open []*watched
		for {
			w := startWatch(t, e, d, "", keys...)
			synctest.Wait()
			if len(w.done) > 0 {
				if err := <-w.done; kv.KindOf(err) != kv.KindOverloaded || len(w.events) > 0 {
					t.Errorf("got %v and %d events of a watch without memory, want overloaded and none", err, len(w.events))
				}
				break
			}
			open = append(open, w)
		}
		per := b.Stats()[budget.Watches].Used / int64(len(open))
		if per < 100*keyBytes+watchBytes || b.Stats()[budget.Watches].Used+per <= b.Limit(budget.Watches) {
			t.Errorf("%d watches of %d bytes each are open, want as many as fit into %d", len(open), per, b.Limit(budget.Watches))
		}
		for _, w := range open {
			w.end()
		}
		if used := b.Stats()[budget.Watches].Used; used != 0 {
			t.Errorf("got %d bytes taken after all watches have ended, want 0", used)
		}
	})
}

// A data error is a state of the key: it is sent once, replaces an outage, and has its own end.
func TestWatchReportsDataErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := origintest.New(map[string]string{"k": "v"})
		d := shortLived(t, fake, time.Second)
		w := startWatch(t, newEngine(t), d, "", "k")
		first := w.expect("k=v", "current")
		fake.Spoil("k", origin.SeveralRows)
		time.Sleep(3 * time.Second)
		if token := w.expect("k!"); token == first {
			t.Error("the token does not change with a data error")
		}
		fake.Fail(errors.New("down"))
		time.Sleep(3 * time.Second)
		w.expect("k!")
		fake.Fail(nil)
		time.Sleep(10 * time.Second)
		w.expect("k!")
		fake.Restore("k")
		time.Sleep(3 * time.Second)
		w.expect("k=v")
		w.end()
	})
}
