package peer_test

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/e2e/rig"
	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
)

// sink records its calls in order. It fails the test when two calls are concurrent, unless they may be for several members.
type sink struct {
	t       testing.TB
	several bool
	calls   chan string
	ages    chan time.Duration
	inside  atomic.Int64
}

func newSink(t testing.TB) *sink {
	return &sink{t: t, calls: make(chan string, 100_000), ages: make(chan time.Duration, 100_000)}
}

func (s *sink) record(what string) {
	if s.inside.Add(1) != 1 && !s.several {
		s.t.Error("two concurrent calls for one member")
	}
	s.calls <- what
	s.inside.Add(-1)
}

func (s *sink) Invalidate(list []kv.Invalidation) {
	for _, i := range list {
		s.ages <- i.Age
		i.Age = 0
		s.record(describe(i))
	}
}

func describe(i kv.Invalidation) string {
	if i.Prefix {
		i.Key += "*"
	}
	return fmt.Sprintf("drop %s/%s@%d", i.Dataset, i.Key, i.Version)
}

func (s *sink) Missed(member string) { s.record("missed " + member) }

func (s *sink) LiveFeeds(member string, datasets []string) {
	s.record(fmt.Sprint("live ", member, " ", datasets))
}

// next waits for the next call.
func (s *sink) next() string {
	s.t.Helper()
	select {
	case what := <-s.calls:
		return what
	case <-time.After(peertest.Timeout):
		s.t.Fatal("the sink was not called")
		return ""
	}
}

func (s *sink) expect(list ...string) {
	s.t.Helper()
	for _, want := range list {
		if got := s.next(); got != want {
			s.t.Errorf("got call %q, want %q", got, want)
		}
	}
}

// wasCalled reports whether the sink had the call, and drops the calls before it.
func (s *sink) wasCalled(want string) bool {
	for {
		select {
		case what := <-s.calls:
			if what == want {
				return true
			}
		default:
			return false
		}
	}
}

func memberAt(id, addr string) ring.Member { return ring.Member{ID: id, Addr: addr} }

func TestAnswerStartsASubscription(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(testing.TB, kv.Peers, string) error{"fetch": peertest.Fetch, "write": peertest.Write} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSink(t)
			writer, m := peertest.StartWriter(t, "m", peer.Config{})
			p := peertest.StartPool(t, peer.Config{Sink: s}, m)
			writer.Publish(peertest.Drop("before", 1))
			if err := peertest.Ping(t, p, m.Member); err != nil {
				t.Fatal(err)
			}
			if n := m.Service.Stats().Subscribers; n != 0 {
				t.Errorf("got %d subscribers before the first call, want 0", n)
			}
			if err := ask(t, p, "m"); err != nil {
				t.Fatal(err)
			}
			s.expect("missed m") // answers from before the stream may be outdated
			writer.Publish(kv.Invalidation{Dataset: "metrics", Key: "a/b", Version: 7, Age: time.Hour})
			writer.Publish(kv.Invalidation{Dataset: "metrics", Prefix: true})
			s.expect("drop metrics/a/b@7", "drop metrics/*@0")
			if age := <-s.ages; age < time.Hour || age > time.Hour+peertest.Timeout {
				t.Errorf("got age %v, want an hour and the time of delivery", age)
			}
			if err := ask(t, p, "m"); err != nil {
				t.Fatal(err)
			}
			if s := m.Service.Stats(); s.Subscribers != 1 || s.MaxSubscribers != 4096 {
				t.Errorf("got stats %+v of the member, want one subscriber", s)
			}
			if s := p.Stats(); s.Subscriptions != 1 || s.Received != 2 || s.Gaps != 0 {
				t.Errorf("got stats %+v", s)
			}
			if s := writer.Stats(); s.Published != 3 {
				t.Errorf("got stats %+v of the writer", s)
			}
		})
	}
}

// subscribed returns a pool with a subscription to a writer through a proxy.
func subscribed(t *testing.T, c peer.Config, options ...peertest.Option) (s *sink, writer *peer.Pool, w *peertest.Proxy, p *peer.Pool) {
	t.Helper()
	writer, m := peertest.StartWriter(t, "m", c, options...)
	s, w = newSink(t), peertest.StartProxy(t, m.Addr)
	p = peertest.StartConnected(t, peer.Config{Sink: s, PingAfter: time.Second}, w.Through(m))
	if err := peertest.Fetch(t, p, "m"); err != nil {
		t.Fatal(err)
	}
	s.expect("missed m")
	return s, writer, w, p
}

func TestBrokenStreamIsReportedBeforeNewerInvalidations(t *testing.T) {
	t.Parallel()
	s, writer, w, p := subscribed(t, peer.Config{})
	writer.Publish(peertest.Drop("k", 1))
	s.expect("drop metrics/k@1")
	w.Cut()
	s.expect("missed m")
	writer.Publish(peertest.Drop("k", 2))
	s.expect("drop metrics/k@2") // it continued where it ended: nothing was missed again
	if stats := p.Stats(); stats.Gaps != 1 || stats.Subscriptions != 1 {
		t.Errorf("got stats %+v", stats)
	}
}

// Databases have rows whose keys the cache rejects, and a change feed reports them.
func TestKeyThatCannotBeCachedIsNotPublished(t *testing.T) {
	t.Parallel()
	s, writer, _, _ := subscribed(t, peer.Config{})
	for _, key := range []string{"", "a\x00b", "\xff", strings.Repeat("k", kv.MaxKeyBytes+1)} {
		writer.Publish(peertest.Drop(key, 1))
	}
	writer.Publish(peertest.Drop("k", 2))
	s.expect("drop metrics/k@2")
}

func TestSubscriberBehindTheLogStartsAgain(t *testing.T) {
	t.Parallel()
	s, writer, w, _ := subscribed(t, peer.Config{LogSize: 4})
	writer.Publish(peertest.Drop("k", 1))
	s.expect("drop metrics/k@1")
	w.Freeze() // new connections deliver nothing
	w.Cut()
	s.expect("missed m")
	for version := range int64(5) {
		writer.Publish(peertest.Drop("k", 2+version))
	}
	w.Thaw()
	s.expect("missed m")
	writer.Publish(peertest.Drop("k", 7))
	s.expect("drop metrics/k@7")
}

func TestRestartOfAMemberIsReported(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	writer, m := peertest.StartWriter(t, "m", peer.Config{}, peertest.At(rig.FreeAddress(t)))
	p := peertest.StartPool(t, peer.Config{Sink: s}, m)
	if err := peertest.Fetch(t, p, "m"); err != nil {
		t.Fatal(err)
	}
	s.expect("missed m")
	writer.Publish(peertest.Drop("k", 1))
	s.expect("drop metrics/k@1")
	m.Kill(t)
	s.expect("missed m")
	again, _ := peertest.StartWriter(t, "m", peer.Config{}, peertest.At(m.Addr))
	s.expect("missed m") // sequences of two runs are not comparable
	again.Publish(peertest.Drop("k", 2))
	s.expect("drop metrics/k@2")
}

// A frozen member sends no heartbeat, and its kernel keeps the stream open.
func TestSilentStreamIsReported(t *testing.T) {
	t.Parallel()
	s, writer, w, p := subscribed(t, peer.Config{})
	w.Freeze()
	writer.Publish(peertest.Drop("k", 1))
	began := time.Now()
	s.expect("missed m")
	if took := time.Since(began); took < time.Second {
		t.Errorf("Missed after %v, before a heartbeat is due", took)
	}
	peertest.Eventually(t, "the breaker is open without a call to the member", func() bool { return p.Stats().BreakersOpen == 1 })
	w.Thaw()
	s.expect("drop metrics/k@1")
}

// script answers each stream with the next list of responses.
type script struct {
	peerv1.UnimplementedPeerServer
	streams  chan []*peerv1.SubscribeResponse
	requests chan *peerv1.SubscribeRequest
}

func (s *script) Fetch(context.Context, *peerv1.FetchRequest) (*peerv1.FetchResponse, error) {
	return &peerv1.FetchResponse{}, nil
}

func (s *script) Subscribe(req *peerv1.SubscribeRequest, out grpc.ServerStreamingServer[peerv1.SubscribeResponse]) error {
	select {
	case s.requests <- req:
	case <-out.Context().Done():
		return nil
	}
	for _, r := range <-s.streams {
		if err := out.Send(r); err != nil {
			return err
		}
	}
	<-out.Context().Done()
	return nil
}

func response(epoch, sequence uint64, keys ...string) *peerv1.SubscribeResponse {
	r := &peerv1.SubscribeResponse{Epoch: epoch, Sequence: sequence}
	for _, k := range keys {
		r.Invalidations = append(r.Invalidations, &peerv1.Invalidation{Dataset: "metrics", Key: k})
	}
	return r
}

func TestGapIsReportedBeforeNewerInvalidations(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		responses []*peerv1.SubscribeResponse
		calls     []string
	}{
		"none": {
			[]*peerv1.SubscribeResponse{response(1, 5), response(1, 7, "a", "b"), response(1, 7), response(1, 8, "c")},
			[]string{"missed m", "drop metrics/a@0", "drop metrics/b@0", "drop metrics/c@0"},
		},
		"gap in the sequence": {
			[]*peerv1.SubscribeResponse{response(1, 5), response(1, 7, "b"), response(1, 8, "c")},
			[]string{"missed m", "missed m", "drop metrics/b@0", "drop metrics/c@0"},
		},
		"gap in a heartbeat": {
			[]*peerv1.SubscribeResponse{response(1, 5), response(1, 6), response(1, 7, "b")},
			[]string{"missed m", "missed m", "drop metrics/b@0"},
		},
		"lower sequence": {
			[]*peerv1.SubscribeResponse{response(1, 5), response(1, 5, "a")},
			[]string{"missed m", "missed m", "drop metrics/a@0"},
		},
		"another epoch": {
			[]*peerv1.SubscribeResponse{response(1, 5), response(2, 6, "a")},
			[]string{"missed m", "missed m", "drop metrics/a@0"},
		},
		"too many for the sequence": {
			[]*peerv1.SubscribeResponse{response(1, 0), response(1, 1, "a", "b")},
			[]string{"missed m", "missed m", "drop metrics/a@0", "drop metrics/b@0"},
		},
		"feeds": {
			[]*peerv1.SubscribeResponse{
				{Epoch: 1, LiveFeeds: []string{"a"}}, {Epoch: 1, LiveFeeds: []string{"a"}}, {Epoch: 1},
				{Epoch: 1, LiveFeeds: []string{"b"}},
			},
			[]string{"missed m", "live m [a]", "live m []", "live m [b]"},
		},
		"gap with a feed that stays live": {
			[]*peerv1.SubscribeResponse{{Epoch: 1, LiveFeeds: []string{"a"}}, {Epoch: 1, Sequence: 2, LiveFeeds: []string{"a"}}},
			[]string{"missed m", "live m [a]", "live m []", "missed m", "live m [a]"},
		},
		"empty key": {
			[]*peerv1.SubscribeResponse{{Epoch: 1, LiveFeeds: []string{"a"}}, response(1, 1, "")},
			[]string{"missed m", "live m [a]", "live m []", "missed m"},
		},
		"too many": {
			[]*peerv1.SubscribeResponse{response(1, 5), response(1, 1006, slices.Repeat([]string{"k"}, 1001)...)},
			[]string{"missed m", "missed m"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			service := &script{streams: make(chan []*peerv1.SubscribeResponse, 1), requests: make(chan *peerv1.SubscribeRequest, 1)}
			service.streams <- tc.responses
			s := newSink(t)
			p := peertest.StartPool(t, peer.Config{Sink: s}, peertest.ServeRaw(t, service))
			if err := peertest.Fetch(t, p, "m"); err != nil {
				t.Fatal(err)
			}
			s.expect(tc.calls...)
		})
	}
}

func TestSubscriberContinuesAfterTheLastResponse(t *testing.T) {
	t.Parallel()
	service := &script{streams: make(chan []*peerv1.SubscribeResponse, 2), requests: make(chan *peerv1.SubscribeRequest, 2)}
	service.streams <- []*peerv1.SubscribeResponse{response(9, 5), response(9, 6, "a")}
	service.streams <- nil
	m := peertest.ServeRaw(t, service)
	w, s := peertest.StartProxy(t, m.Addr), newSink(t)
	p := peertest.StartPool(t, peer.Config{Sink: s}, w.Through(m))
	if err := peertest.Fetch(t, p, "m"); err != nil {
		t.Fatal(err)
	}
	if r := <-service.requests; r.GetEpoch() != 0 || r.GetSequence() != 0 || r.GetNode() != "self" {
		t.Errorf("first request: got %v", r)
	}
	s.expect("missed m", "drop metrics/a@0")
	w.Cut()
	s.expect("missed m")
	if r := <-service.requests; r.GetEpoch() != 9 || r.GetSequence() != 6 {
		t.Errorf("second request: got %v, want sequence 6 of epoch 9", r)
	}
}

func TestSlowSubscriberIsCutOffAndDelaysNoOther(t *testing.T) {
	t.Parallel()
	writer, m := peertest.StartWriter(t, "m", peer.Config{})
	s := newSink(t)
	if err := peertest.Fetch(t, peertest.StartPool(t, peer.Config{Sink: s}, m), "m"); err != nil {
		t.Fatal(err)
	}
	s.expect("missed m")
	stuck := peertest.Subscribe(t, m, &peerv1.SubscribeRequest{})
	if _, err := stuck.Recv(); err != nil {
		t.Fatal(err)
	}
	key := strings.Repeat("k", kv.MaxKeyBytes)
	for version := range int64(2 * 4096) {
		writer.Publish(peertest.Drop(key, version)) // were it to peertest.Block, the test would hang
	}
	peertest.Eventually(t, "the other subscriber receives the last invalidation, perhaps after a gap", func() bool {
		writer.Publish(peertest.Drop("last", 1))
		return s.wasCalled("drop metrics/last@1")
	})
	peertest.Eventually(t, "the slow subscriber is cut off", func() bool { return m.Service.Stats().Subscribers == 1 })
	if n := m.Service.Stats().SubscribersCut; n == 0 {
		t.Error("the cut-off is not counted")
	}
	for {
		if _, err := stuck.Recv(); err != nil {
			if status.Code(err) != codes.OutOfRange {
				t.Errorf("got error %v, want OUT_OF_RANGE", err)
			}
			return
		}
	}
}

func TestStopEndsStreamsAndLeaveDoesNot(t *testing.T) {
	t.Parallel()
	writer, m := peertest.StartWriter(t, "m", peer.Config{})
	s := newSink(t)
	p := peertest.StartPool(t, peer.Config{Sink: s}, m)
	if err := peertest.Fetch(t, p, "m"); err != nil {
		t.Fatal(err)
	}
	s.expect("missed m")
	m.Service.Leave()
	writer.Publish(peertest.Drop("k", 1))
	s.expect("drop metrics/k@1")
	m.Server.Stop(context.Background()) // if it waited for the subscriber, the test would hang
	s.expect("missed m")
}

func TestSubscriptionEndsWhenTheMemberIsIdle(t *testing.T) {
	t.Parallel()
	_, m := peertest.StartWriter(t, "m", peer.Config{})
	s := newSink(t)
	p := peertest.StartPool(t, peer.Config{Sink: s, SubscriptionIdle: 10 * time.Millisecond}, m)
	for range 2 {
		peertest.Eventually(t, "a stream begins", func() bool { // not if the goroutine starts later than SubscriptionIdle
			if len(s.calls) > 0 {
				return true
			}
			if err := peertest.Fetch(t, p, "m"); err != nil {
				t.Error(err)
			}
			return false
		})
		s.expect("missed m", "missed m")
		peertest.Eventually(t, "the stream has ended", func() bool {
			return m.Service.Stats().Subscribers == 0 && p.Stats().Subscriptions == 0
		})
	}
	if n := p.Stats().Gaps; n != 0 {
		t.Errorf("got %d gaps, want none", n)
	}
}

func TestSubscriptionEndsWhenTheMemberLeaves(t *testing.T) {
	t.Parallel()
	s := newSink(t)
	writer, m := peertest.StartWriter(t, "m", peer.Config{})
	writer.SetLiveFeeds([]string{"b", "a", "a"})
	p := peertest.StartPool(t, peer.Config{Sink: s, AttemptTimeout: time.Hour, SubscriptionIdle: time.Hour}, m)
	if err := peertest.Fetch(t, p, "m"); err != nil {
		t.Fatal(err)
	}
	s.expect("missed m", "live m [a b]")
	p.SetRing(peertest.NewRing(t, ring.Member{ID: "self", Addr: "127.0.0.1:1"}), nil)
	s.expect("live m []", "missed m")
	peertest.Eventually(t, "its stream has ended", func() bool { return m.Service.Stats().Subscribers == 0 })

	// It returns at another address, before the pool has dropped its peer.
	moved, again := peertest.StartWriter(t, "m", peer.Config{})
	p.SetRing(peertest.NewRing(t, ring.Member{ID: "self", Addr: "127.0.0.1:1"}, again.Member), nil)
	if err := peertest.Fetch(t, p, "m"); err != nil {
		t.Fatal(err)
	}
	s.expect("missed m")
	moved.Publish(peertest.Drop("k", 1))
	s.expect("drop metrics/k@1")
	if n := p.Stats().Gaps; n != 0 {
		t.Errorf("got %d gaps, want none", n)
	}
}

// slowSink blocks once for longer than a stream may be silent.
type slowSink struct {
	*sink
	slow sync.Once
}

func (s *slowSink) Invalidate(list []kv.Invalidation) {
	s.slow.Do(func() { time.Sleep(3 * time.Second) })
	s.sink.Invalidate(list)
}

func TestSlowSinkDoesNotEndTheStream(t *testing.T) {
	t.Parallel()
	writer, m := peertest.StartWriter(t, "m", peer.Config{})
	s := &slowSink{sink: newSink(t)}
	if err := peertest.Fetch(t, peertest.StartPool(t, peer.Config{Sink: s}, m), "m"); err != nil {
		t.Fatal(err)
	}
	s.expect("missed m")
	writer.Publish(peertest.Drop("k", 1))
	s.expect("drop metrics/k@1")
	writer.Publish(peertest.Drop("k", 2))
	s.expect("drop metrics/k@2")
}

// TestCloseEndsSubscriptions is not parallel because it counts goroutines.
func TestCloseEndsSubscriptions(t *testing.T) {
	writer, m := peertest.StartWriter(t, "m", peer.Config{})
	before := math.MaxInt
	for range 3 {
		s := newSink(t)
		p := peertest.StartPool(t, peer.Config{Sink: s}, m)
		if err := peertest.Fetch(t, p, "m"); err != nil {
			t.Fatal(err)
		}
		s.expect("missed m")
		writer.Publish(peertest.Drop("k", 1))
		s.expect("drop metrics/k@1")
		p.Close()
		calls := len(s.calls)
		writer.Publish(peertest.Drop("k", 2))
		peertest.Eventually(t, "all goroutines have ended", func() bool {
			return m.Service.Stats().Subscribers == 0 && m.Server.Stats().Conns == 0 && runtime.NumGoroutine() <= before
		})
		if len(s.calls) != calls {
			t.Error("the sink was called after Close")
		}
		before = runtime.NumGoroutine() // the goroutines left by the first pool belong to the member
	}
}

// liveSink records the live feeds of many members.
type liveSink chan string

func (liveSink) Invalidate([]kv.Invalidation) {}

func (liveSink) Missed(string) {}

func (s liveSink) LiveFeeds(member string, datasets []string) {
	s <- fmt.Sprint(member, datasets)
}

func TestFeedReadersAreSubscribedToWithoutCalls(t *testing.T) {
	t.Parallel()
	r := []ring.Member{{ID: "self", Addr: "127.0.0.1:1"}}
	var members []*peertest.Member
	writers := make(map[string]*peer.Pool)
	for _, id := range []string{"a", "b", "c", "d"} {
		writer, m := peertest.StartWriter(t, id, peer.Config{})
		writer.SetLiveFeeds([]string{"metrics"})
		members, r, writers[id] = append(members, m), append(r, m.Member), writer
	}
	all := peertest.NewRing(t, r...)
	var want []string
	for id, writer := range writers {
		writer.SetRing(all, nil)
		if writer.Elected("metrics") {
			want = append(want, id+"[metrics]")
		}
	}
	s := make(liveSink, 100)
	p := peertest.StartPool(t, peer.Config{Sink: s, Feeds: []string{"metrics"}, SubscriptionIdle: time.Nanosecond}, members...)
	for range want {
		if got := <-s; !slices.Contains(want, got) {
			t.Errorf("got live %s, want %v", got, want)
		}
	}
	if n := p.Stats().Subscriptions; n != int64(len(want)) {
		t.Errorf("got %d subscriptions, want %v", n, want)
	}
	// The two leave, and others are elected.
	r = slices.DeleteFunc(r, func(m ring.Member) bool { return slices.Contains(want, m.ID+"[metrics]") })
	p.SetRing(peertest.NewRing(t, r...), nil)
	for range want {
		if got := <-s; !strings.HasSuffix(got, "[]") && slices.Contains(want, got) {
			t.Errorf("got live feeds %s of a member that has left", got)
		}
	}
	peertest.Eventually(t, "there are subscriptions to the next readers", func() bool { return p.Stats().Subscriptions > 0 || p.Elected("metrics") })
}

func TestTwoFeedReadersAreElected(t *testing.T) {
	t.Parallel()
	members := named("a", "b", "c", "d", "e")
	for size := range len(members) + 1 {
		r := peertest.NewRing(t, members[:size]...)
		elected := 0
		for _, m := range members[:size] {
			p := peer.NewPool(peer.Config{Self: m.ID})
			p.SetRing(r, nil)
			if p.Elected("metrics") {
				elected++
			}
			p.Close()
		}
		if elected != min(size, 2) {
			t.Errorf("got %d elected of %d", elected, size)
		}
	}
	p := peer.NewPool(peer.Config{Self: "a"})
	defer p.Close()
	if !p.Elected("metrics") {
		t.Error("a member without a ring is not elected")
	}
	p.SetRing(peertest.NewRing(t, named("b", "c")...), nil)
	if p.Elected("metrics") {
		t.Error("a member that is not on the ring is elected")
	}
}
