package peer_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
)

func TestFetchTransfersQueryAndAnswer(t *testing.T) {
	t.Parallel()
	wantQuery := kv.Query{
		Dataset: "metrics", Key: "a/b c", NoCache: true, MemoryOnly: true, MinVersion: 7, MaxAge: time.Second,
	}
	answers := map[string]kv.Answer{
		"present": {
			Value: []byte("v"), Version: 7, Age: 3 * time.Second, Fresh: time.Minute, Took: time.Hour, Source: kv.SourcePeerHit,
		},
		"loaded": {Value: []byte("v"), Source: kv.SourceLoad, Fresh: time.Nanosecond},
		"absent": {NotFound: true, Source: kv.SourceLoad, Fresh: time.Second},
		"stale":  {Value: []byte("v"), Stale: true, Detail: "origin-error", Source: kv.SourcePeerHit, Fresh: -1},
	}
	var next kv.Answer
	m := peertest.StartMember(t, "m", peertest.Serving(func(_ context.Context, q kv.Query) (kv.Answer, error) {
		if q != wantQuery {
			t.Errorf("got query %+v, want %+v", q, wantQuery)
		}
		return next, nil
	}))
	to := peertest.PeerTo(t, peertest.StartPool(t, peer.Config{}, m), "m")
	for name, want := range answers {
		t.Run(name, func(t *testing.T) {
			next = want
			got, err := to.Fetch(context.Background(), wantQuery)
			if err != nil {
				t.Fatal(err)
			}
			want.Owner = "m"
			if string(got.Value) != string(want.Value) {
				t.Errorf("got value %q, want %q", got.Value, want.Value)
			}
			if want.NotFound && got.Value != nil {
				t.Errorf("absent with value %q", got.Value)
			}
			got.Value, want.Value = nil, nil
			if got.Owner != want.Owner || got.Source != want.Source || got.Version != want.Version || got.Age != want.Age ||
				got.Fresh != want.Fresh || got.Took != want.Took || got.Stale != want.Stale || got.NotFound != want.NotFound ||
				got.Detail != want.Detail {
				t.Errorf("got answer %+v, want %+v", got, want)
			}
		})
	}
}

func TestFetchesShareOneConnection(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m")
	p := peertest.StartPool(t, peer.Config{}, m)
	to := peertest.PeerTo(t, p, "m")
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for range 100 {
				if _, err := to.Fetch(context.Background(), peertest.Get("k")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := m.Listener.Accepted.Load(); n != 1 {
		t.Errorf("1000 fetches opened %d connections, want 1", n)
	}
	if n := m.Dataset.Fetches.Load(); n != 1000 {
		t.Errorf("the member served %d fetches, want 1000", n)
	}
	if s := p.Stats(); s.Unreachable != 0 || s.Conns != 1 {
		t.Errorf("got stats %+v", s)
	}
}

func TestRestartedMemberIsUsedAgain(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m", peertest.At(rig.FreeAddress(t)))
	p := peertest.StartPool(t, peer.Config{}, m)
	to := peertest.PeerTo(t, p, "m")
	m.Kill(t)
	for range 3 {
		// Without a deadline: if the call waited for a connection, the test would hang.
		if _, err := to.Fetch(context.Background(), peertest.Get("k")); !errors.Is(err, kv.ErrUnreachable) {
			t.Fatalf("got error %v, want unreachable", err)
		}
	}
	if s := p.Stats(); s.BreakersOpen != 1 || s.PingTimeouts != 0 {
		t.Errorf("after 3 refusals: %+v, want the breaker open and no ping timeout", s)
	}
	peertest.StartMember(t, "m", peertest.At(m.Addr))
	peertest.Eventually(t, "the restarted member is used", func() bool {
		_, err := to.Fetch(context.Background(), peertest.Get("k"))
		return err == nil
	})
}

// The first ping of a member and the first call to it make the same connection. (The race detector must be on.)
func TestPingWhileTheConnectionIsMade(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m")
	for range 50 {
		p := peertest.StartPool(t, peer.Config{}, m)
		to := peertest.PeerTo(t, p, "m")
		var both sync.WaitGroup
		both.Go(func() {
			if err := peertest.Ping(t, p, m.Member); err != nil {
				t.Error(err)
			}
		})
		if _, err := to.Fetch(context.Background(), peertest.Get("k")); err != nil {
			t.Error(err)
		}
		both.Wait()
		p.Close()
	}
}

func TestOnePingFailsAllCallsToAFrozenMember(t *testing.T) {
	t.Parallel()
	p := peertest.StartPool(t, peer.Config{PingAfter: 100 * time.Millisecond, AttemptTimeout: time.Hour}, peertest.BlackHole(t, "m"))
	to := peertest.PeerTo(t, p, "m")
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := to.Fetch(context.Background(), peertest.Get("k")); !errors.Is(err, kv.ErrUnreachable) {
				t.Errorf("got error %v, want unreachable", err)
			}
		})
	}
	wg.Wait()
	if s := p.Stats(); s.PingTimeouts != 1 || s.BreakersOpen != 1 || s.BreakersOpened != 1 || s.Unreachable != 50 {
		t.Errorf("got stats %+v, want one ping timeout for all", s)
	}
}

// deaf makes its kernel drop connections, like a network that drops packets.
func deaf(t *testing.T, id string) *peertest.Member {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	m := &peertest.Member{Member: ring.Member{ID: id, Addr: fmt.Sprint("127.0.0.1:", name.(*syscall.SockaddrInet4).Port)}}
	for { // until the kernel's queue is full
		c, err := net.DialTimeout("tcp", m.Addr, 500*time.Millisecond)
		if err != nil {
			return m
		}
		t.Cleanup(func() { c.Close() })
	}
}

func TestMemberBehindDroppedPacketsIsUnreachable(t *testing.T) {
	t.Parallel()
	m := deaf(t, "m")
	p := peertest.StartPool(t, peer.Config{PingAfter: 100 * time.Millisecond, AttemptTimeout: time.Hour}, m)
	to := peertest.PeerTo(t, p, "m")
	connecting := make(chan struct{})
	go func() { // gRPC's own limit of an attempt to connect
		defer close(connecting)
		if c, err := net.DialTimeout("tcp", m.Addr, time.Second); err == nil {
			t.Error("the member accepted a connection")
			c.Close()
		}
	}()
	_, err := to.Fetch(context.Background(), peertest.Get("k"))
	select {
	case <-connecting:
		t.Error("the ping did not time out before the attempt to connect ended")
	default:
	}
	if !errors.Is(err, kv.ErrUnreachable) {
		t.Errorf("got error %v, want unreachable", err)
	}
	<-connecting
}

func TestThawedMemberIsUsedAgain(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m")
	w := peertest.StartProxy(t, m.Addr)
	p := peertest.StartConnected(t, peer.Config{PingAfter: time.Second, AttemptTimeout: time.Hour}, w.Through(m))
	to := peertest.PeerTo(t, p, "m")
	if _, err := to.Fetch(context.Background(), peertest.Get("k")); err != nil {
		t.Fatal(err)
	}
	w.Freeze()
	if _, err := to.Fetch(context.Background(), peertest.Get("k")); !errors.Is(err, kv.ErrUnreachable) {
		t.Fatalf("got error %v, want unreachable", err)
	}
	before := m.Dataset.Fetches.Load()
	if _, err := to.Fetch(context.Background(), peertest.Get("k")); !strings.Contains(err.Error(), "breaker") {
		t.Errorf("got error %v, want an open breaker", err)
	}
	w.Thaw()
	peertest.Eventually(t, "a ping closes the breaker", func() bool { return p.Stats().BreakersOpen == 0 })
	if after := m.Dataset.Fetches.Load(); after > before+1 { // the frozen fetch may arrive now
		t.Errorf("%d fetches reached the member while its breaker was open, want at most 1", after-before)
	}
	if _, err := to.Fetch(context.Background(), peertest.Get("k")); err != nil {
		t.Error(err)
	}
}

// A connection recovers late from a long network failure, because TCP doubles its wait after each loss.
func TestFrozenConnectionIsReplaced(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m")
	w := peertest.StartProxy(t, m.Addr)
	p := peertest.StartConnected(t, peer.Config{PingAfter: time.Second}, w.Through(m))
	if err := peertest.Fetch(t, p, "m"); err != nil {
		t.Fatal(err)
	}
	w.FreezeOpen()
	if err := peertest.Fetch(t, p, "m"); !errors.Is(err, kv.ErrUnreachable) {
		t.Fatalf("got error %v, want unreachable", err)
	}
	peertest.Eventually(t, "a new connection is used", func() bool { return peertest.Fetch(t, p, "m") == nil })
}

func TestSlowOwnerDoesNotOpenTheBreaker(t *testing.T) {
	t.Parallel()
	const pingAfter = time.Second
	m := peertest.StartMember(t, "m", peertest.Serving(func(ctx context.Context, q kv.Query) (kv.Answer, error) {
		time.Sleep(3 * pingAfter / 2)
		return peertest.Held(ctx, q)
	}))
	p := peertest.StartConnected(t, peer.Config{PingAfter: pingAfter}, m)
	if err := peertest.Fetch(t, p, "m"); err != nil {
		t.Fatal(err)
	}
	if s := p.Stats(); s.PingTimeouts != 0 || s.Unreachable != 0 || s.BreakersOpened != 0 {
		t.Errorf("got stats %+v, want no failure: the member is only slow", s)
	}
	if n := m.Listener.Accepted.Load(); n != 1 {
		t.Errorf("got %d connections, want 1", n)
	}
}

func TestDeadlineOfTheCallerIsReportedAsSuch(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m", peertest.Serving(peertest.Block))
	p := peertest.StartConnected(t, peer.Config{PingAfter: time.Second}, m)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_, err := peertest.PeerTo(t, p, "m").Fetch(ctx, peertest.Get("k"))
	if errors.Is(err, kv.ErrUnreachable) || kv.KindOf(err) != kv.KindDeadline {
		t.Errorf("got error %v, want the caller's deadline", err)
	}
	if s := p.Stats(); s.PingTimeouts != 0 || s.Unreachable != 0 {
		t.Errorf("got stats %+v, want no sign that the member is unreachable", s)
	}
}

// lateTimer is a context whose timer fires late, as under load.
type lateTimer struct {
	context.Context
	deadline time.Time
}

func (c lateTimer) Deadline() (time.Time, bool) { return c.deadline, true }

func TestDeadlineReportedByMemberBeforeCallersTimerFires(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m", peertest.Serving(peertest.Block))
	p := peertest.StartConnected(t, peer.Config{PingAfter: time.Second}, m)
	ctx := lateTimer{context.Background(), time.Now().Add(3 * time.Second)}
	_, err := peertest.PeerTo(t, p, "m").Fetch(ctx, peertest.Get("k"))
	if errors.Is(err, kv.ErrUnreachable) || kv.KindOf(err) != kv.KindDeadline {
		t.Errorf("got error %v, want the caller's deadline", err)
	}
}

func TestDeadlineWithoutSignOfLifeOpensTheBreaker(t *testing.T) {
	t.Parallel()
	p := peertest.StartPool(t, peer.Config{PingAfter: 400 * time.Millisecond}, peertest.BlackHole(t, "m"))
	ctx, cancel := context.WithTimeout(context.Background(), 600*time.Millisecond)
	defer cancel()
	if _, err := peertest.PeerTo(t, p, "m").Fetch(ctx, peertest.Get("k")); err == nil {
		t.Error("got an answer of a member that sends nothing")
	}
	peertest.Eventually(t, "the ping outlives the call and opens the breaker", func() bool { return p.Stats().BreakersOpen == 1 })
}

func TestAttemptTimeoutIsUnreachable(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m", peertest.Serving(peertest.Block))
	p := peertest.StartPool(t, peer.Config{AttemptTimeout: 50 * time.Millisecond}, m)
	if err := peertest.Fetch(t, p, "m"); !errors.Is(err, kv.ErrUnreachable) {
		t.Errorf("got error %v, want unreachable", err)
	}
}

func TestCanceledCallerIsCanceled(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{})
	m := peertest.StartMember(t, "m", peertest.Serving(func(ctx context.Context, q kv.Query) (kv.Answer, error) {
		close(begun)
		return peertest.Block(ctx, q)
	}))
	p := peertest.StartPool(t, peer.Config{}, m)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-begun
		cancel()
	}()
	_, err := peertest.PeerTo(t, p, "m").Fetch(ctx, peertest.Get("k"))
	if errors.Is(err, kv.ErrUnreachable) || kv.KindOf(err) != kv.KindCanceled {
		t.Errorf("got error %v, want canceled", err)
	}
}

func TestConnectionCutDuringACallIsUnreachable(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{}, 1)
	m := peertest.StartMember(t, "m", peertest.Serving(func(ctx context.Context, q kv.Query) (kv.Answer, error) {
		begun <- struct{}{}
		return peertest.Block(ctx, q)
	}))
	w := peertest.StartProxy(t, m.Addr)
	p := peertest.StartPool(t, peer.Config{AttemptTimeout: time.Hour}, w.Through(m))
	go func() {
		<-begun
		w.Cut()
	}()
	if err := peertest.Fetch(t, p, "m"); !errors.Is(err, kv.ErrUnreachable) {
		t.Errorf("got error %v, want unreachable", err)
	}
	if s := p.Stats(); s.PingTimeouts != 0 || s.BreakersOpen != 0 {
		t.Errorf("got stats %+v: want no open breaker after one cut connection", s)
	}
}

func TestDeadlineIsSentWithTheRequest(t *testing.T) {
	t.Parallel()
	seen := make(chan time.Duration, 1)
	m := peertest.StartMember(t, "m", peertest.Serving(func(ctx context.Context, q kv.Query) (kv.Answer, error) {
		deadline, ok := ctx.Deadline()
		if !ok {
			t.Error("the request has no deadline")
		}
		seen <- time.Until(deadline)
		return peertest.Held(ctx, q)
	}))
	p := peertest.StartPool(t, peer.Config{AttemptTimeout: time.Minute}, m)
	to := peertest.PeerTo(t, p, "m")
	for _, tc := range []struct{ caller, most time.Duration }{
		{caller: 2 * time.Second, most: 2 * time.Second},
		{caller: time.Hour, most: time.Minute},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), tc.caller)
		if _, err := to.Fetch(ctx, peertest.Get("k")); err != nil {
			t.Error(err)
		}
		cancel()
		if left := <-seen; left > tc.most {
			t.Errorf("caller had %v: member has %v left, want at most %v", tc.caller, left, tc.most)
		}
	}
}

func TestFetchesToOneMemberAreLimited(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	m := peertest.StartMember(t, "m", peertest.Serving(func(ctx context.Context, q kv.Query) (kv.Answer, error) {
		close(begun)
		<-release
		return peertest.Held(ctx, q)
	}))
	p := peertest.StartPool(t, peer.Config{MaxCalls: 1}, m)
	to := peertest.PeerTo(t, p, "m")
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := to.Fetch(context.Background(), peertest.Get("k")); err != nil {
			t.Error(err)
		}
	})
	<-begun
	_, err := to.Fetch(context.Background(), peertest.Get("k"))
	close(release)
	wg.Wait()
	if errors.Is(err, kv.ErrUnreachable) || kv.KindOf(err) != kv.KindOverloaded || kv.RetryAfter(err) == 0 {
		t.Errorf("got error %v, want overloaded", err)
	}
	if s := p.Stats(); s.Refused != 1 {
		t.Errorf("got stats %+v", s)
	}
}

func TestAnswerAboveTheLimitIsOverloaded(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m", peertest.Serving(func(context.Context, kv.Query) (kv.Answer, error) {
		return kv.Answer{Value: make([]byte, 2000)}, nil
	}))
	p := peertest.StartPool(t, peer.Config{MaxAnswerBytes: 1000}, m)
	err := peertest.Fetch(t, p, "m")
	if errors.Is(err, kv.ErrUnreachable) || kv.KindOf(err) != kv.KindOverloaded {
		t.Errorf("got error %v: want overloaded: the answer of another member would not be smaller", err)
	}
}

func TestConnectedMembersAreLimited(t *testing.T) {
	t.Parallel()
	a, b := peertest.StartMember(t, "a"), peertest.StartMember(t, "b")
	p := peertest.StartPool(t, peer.Config{MaxConns: 1}, a, b)
	if err := peertest.Fetch(t, p, "a"); err != nil {
		t.Fatal(err)
	}
	if err := peertest.Fetch(t, p, "b"); !errors.Is(err, kv.ErrUnreachable) {
		t.Errorf("got error %v, want unreachable", err)
	}
	// gRPC reports a connection as ready a moment after it has used it.
	peertest.Eventually(t, "one connection is counted", func() bool { return p.Stats().Conns == 1 })
	if s := p.Stats(); s.ConnsRefused != 1 {
		t.Errorf("got stats %+v", s)
	}
}

func TestDisagreementIsCountedOnBothSides(t *testing.T) {
	t.Parallel()
	asSuccessor := kv.Query{Dataset: "metrics", Key: "k", Failover: true}
	asPrevious := kv.Query{Dataset: "metrics", Key: "k", MemoryOnly: true}
	cases := map[string]struct {
		other, notOwner bool // the member has another ring; it does not own the key
		query           kv.Query
		want            int64
	}{
		"agree":                     {query: peertest.Get("k")},
		"other ring":                {other: true, query: peertest.Get("k"), want: 1},
		"not owner":                 {notOwner: true, query: peertest.Get("k"), want: 1},
		"successor is not owner":    {notOwner: true, query: asSuccessor},
		"previous is not owner":     {notOwner: true, query: asPrevious},
		"successor with other ring": {other: true, notOwner: true, query: asSuccessor, want: 1},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			m := peertest.StartMember(t, "m")
			p := peertest.StartPool(t, peer.Config{}, m)
			m.View.OwnsAll.Store(!tc.notOwner)
			if tc.other {
				m.View.ID.Add(1)
			}
			if _, err := peertest.PeerTo(t, p, "m").Fetch(context.Background(), tc.query); err != nil {
				t.Fatal(err)
			}
			if n := p.Stats().Disagreements; n != tc.want {
				t.Errorf("got counted %d, want %d", n, tc.want)
			}
			if n := m.Service.Stats().RingMismatch; (n == 1) != tc.other {
				t.Errorf("the member counted %d requests with another ring", n)
			}
			if (m.Dataset.Counters.NotOwner.Load() == 1) != tc.notOwner {
				t.Errorf("dataset counted %d", m.Dataset.Counters.NotOwner.Load())
			}
		})
	}
}
