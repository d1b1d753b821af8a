package peer_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin"
	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
	"github.com/ringside-cache/ringside/sidecar/peer/server"
	"github.com/ringside-cache/ringside/sidecar/peer/service"
)

func TestWriteTransfersChangeAndAnswer(t *testing.T) {
	t.Parallel()
	value := []byte(strings.Repeat("v", 1<<20))
	changes := map[string]kv.Change{
		"put":          {Key: "a/b c", Value: value, ID: "once"},
		"delete":       {Key: "k", Delete: true, Failover: true},
		"if absent":    {Key: "k", Value: value, If: kv.Condition{Absent: true}},
		"if present":   {Key: "k", Value: value, If: kv.Condition{Present: true}},
		"if version":   {Key: "k", Value: value, If: kv.Condition{Version: 7}},
		"if etag":      {Key: "k", Value: value, If: kv.Condition{ETag: `"x"`}},
		"largest keys": {Key: strings.Repeat("k", kv.MaxKeyBytes), Value: value, ID: strings.Repeat("i", 256)},
	}
	var seen kv.Change
	m := peertest.StartMember(t, "m", peertest.Writing(func(ctx context.Context, c kv.Change) (kv.Answer, error) {
		seen = c
		return peertest.Written(ctx, c)
	}))
	p := peertest.StartPool(t, peer.Config{}, m)
	to := peertest.PeerTo(t, p, "m")
	for name, want := range changes {
		t.Run(name, func(t *testing.T) {
			want.Dataset = "metrics"
			a, err := to.Write(context.Background(), want)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(seen, want) {
				t.Errorf("the member received another change")
			}
			if string(a.Value) != string(want.Value) || a.NotFound != want.Delete || a.Version != 1 || a.Owner != "m" {
				t.Errorf("got answer of version %d, owner %q, %d bytes", a.Version, a.Owner, len(a.Value))
			}
		})
	}
	if s := p.Stats(); s.Unreachable != 0 || s.Disagreements != 0 {
		t.Errorf("got stats %+v", s)
	}
	if s := m.Service.Stats(); s.Writing != 0 || s.MaxWrites != 512 {
		t.Errorf("got stats %+v of the member", s)
	}
	if n := m.Dataset.Writes.Load(); n != int64(len(changes)) {
		t.Errorf("the member made %d writes, want %d", n, len(changes))
	}
}

func TestErrorsOfWritesKeepTheirKind(t *testing.T) {
	t.Parallel()
	cases := []struct {
		kind kv.Kind
		code codes.Code
		want kv.Kind
	}{
		{kv.KindInvalidKey, codes.InvalidArgument, kv.KindInvalidKey},
		{kv.KindInvalidValue, codes.InvalidArgument, kv.KindInvalidValue},
		{kv.KindIDReused, codes.InvalidArgument, kv.KindIDReused},
		{kv.KindReadOnly, codes.FailedPrecondition, kv.KindReadOnly},
		{kv.KindConflict, codes.AlreadyExists, kv.KindConflict},
		{kv.KindOverloaded, codes.ResourceExhausted, kv.KindOverloaded},
		{kv.KindUnavailable, codes.Aborted, kv.KindUnavailable},
		{kv.KindDataError, codes.Aborted, kv.KindDataError},
		{kv.KindUnknown, codes.Unknown, kv.KindUnknown},
		{kv.KindNotCached, codes.OutOfRange, kv.KindUnknown},
		{kv.KindDeadline, codes.DeadlineExceeded, kv.KindUnknown},
		{kv.KindCanceled, codes.Canceled, kv.KindUnknown},
		{kv.KindInternal, codes.Internal, kv.KindUnknown},
	}
	var next error
	m := peertest.StartMember(t, "m", peertest.Writing(func(context.Context, kv.Change) (kv.Answer, error) {
		return kv.Answer{}, next
	}))
	p := peertest.StartPool(t, peer.Config{}, m)
	for _, tc := range cases {
		t.Run(fmt.Sprint(tc.code, tc.kind), func(t *testing.T) {
			next = &kv.Error{Kind: tc.kind, RetryAfter: 1500 * time.Millisecond, Err: errors.New("the cause")}
			_, served := m.Service.Write(context.Background(), &peerv1.WriteRequest{Dataset: "metrics", Key: "k"})
			if status.Code(served) != tc.code {
				t.Errorf("got served %v, want %v", served, tc.code)
			}
			err := peertest.Write(t, p, "m")
			if kv.KindOf(err) != tc.want || errors.Is(err, kv.ErrUnreachable) {
				t.Errorf("got kind %v of %v, want %v", kv.KindOf(err), err, tc.want)
			}
			if !strings.Contains(err.Error(), "the cause") || !strings.Contains(err.Error(), "member m at ") {
				t.Errorf("error %q does not name the member and the cause", err)
			}
		})
	}
}

func TestValueErrorKeepsItsColumn(t *testing.T) {
	t.Parallel()
	var next error
	m := peertest.StartMember(t, "m", peertest.Writing(func(context.Context, kv.Change) (kv.Answer, error) {
		return kv.Answer{}, &kv.Error{Kind: kv.KindInvalidValue, Err: fmt.Errorf("dataset metrics: %w", next)}
	}))
	p := peertest.StartPool(t, peer.Config{}, m)
	const why = "a number is wanted"
	long := strings.Repeat("€", 200)
	for name, tc := range map[string]struct {
		err  error
		want origin.ValueError
	}{
		"column":  {&origin.ValueError{Column: "load", Reason: why}, origin.ValueError{Column: "load", Reason: why}},
		"whole":   {&origin.ValueError{Reason: why}, origin.ValueError{Reason: why}},
		"other":   {errors.New("other"), origin.ValueError{Reason: "other"}},
		"garbage": {&origin.ValueError{Column: "a\xffb", Reason: long}, origin.ValueError{Column: "a?b", Reason: long[:510]}},
	} {
		t.Run(name, func(t *testing.T) {
			next = tc.err
			err := peertest.Write(t, p, "m")
			var wrong *origin.ValueError
			if kv.KindOf(err) != kv.KindInvalidValue || !errors.As(err, &wrong) || *wrong != tc.want {
				t.Errorf("got error %v, %+v, want %+v", err, wrong, tc.want)
			}
		})
	}
}

// Only a write that was not sent may be sent to another member.
func TestWriteThatWasNotSentIsUnreachable(t *testing.T) {
	t.Parallel()
	cases := map[string]func(t *testing.T) (kv.Peers, string){
		"refused": func(t *testing.T) (kv.Peers, string) {
			m := peertest.StartMember(t, "m")
			m.Kill(t)
			return peertest.StartPool(t, peer.Config{PingAfter: 100 * time.Millisecond}, m), "no connection"
		},
		"never ready": func(t *testing.T) (kv.Peers, string) {
			return peertest.StartPool(t, peer.Config{PingAfter: 100 * time.Millisecond, AttemptTimeout: time.Hour}, peertest.BlackHole(t, "m")),
				"no connection"
		},
		"breaker open": func(t *testing.T) (kv.Peers, string) {
			p := peertest.StartPool(t, peer.Config{PingAfter: 100 * time.Millisecond}, peertest.BlackHole(t, "m"))
			if err := peertest.Fetch(t, p, "m"); err == nil {
				t.Error("a frozen member has answered")
			}
			return p, "breaker"
		},
		"limit of connections": func(t *testing.T) (kv.Peers, string) {
			other := peertest.StartMember(t, "other")
			p := peertest.StartPool(t, peer.Config{MaxConns: 1}, other, peertest.StartMember(t, "m"))
			if err := peertest.Fetch(t, p, "other"); err != nil {
				t.Error(err)
			}
			return p, "limit of connections"
		},
		"unknown dataset": func(t *testing.T) (kv.Peers, string) {
			m := peertest.StartMember(t, "m", func(_ *peertest.Member, s *service.Config, _ *server.Config) {
				s.Datasets = func(string) (service.Dataset, bool) { return nil, false }
			})
			return peertest.StartPool(t, peer.Config{}, m), "no dataset"
		},
	}
	for name, start := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, want := start(t)
			err := peertest.Write(t, p, "m")
			if !errors.Is(err, kv.ErrUnreachable) || !strings.Contains(err.Error(), want) {
				t.Errorf("got error %v, want unreachable: %s", err, want)
			}
		})
	}
}

func TestWriteAboveMaxCallsIsRefused(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	m := peertest.StartMember(t, "m", peertest.Writing(func(ctx context.Context, c kv.Change) (kv.Answer, error) {
		close(begun)
		<-release
		return peertest.Written(ctx, c)
	}))
	p := peertest.StartPool(t, peer.Config{MaxCalls: 1}, m)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := peertest.Write(t, p, "m"); err != nil {
			t.Error(err)
		}
	})
	<-begun
	if err := peertest.Write(t, p, "m"); kv.KindOf(err) != kv.KindOverloaded {
		t.Errorf("got error %v, want overloaded: another member would not help a busy one", err)
	}
	close(release)
	wg.Wait()
}

// breaking is a connected member with a fault that begins during a write, which is made nevertheless.
func breaking(t *testing.T, fault func(w *peertest.Proxy)) (*peer.Pool, *atomic.Int64) {
	t.Helper()
	made, release := new(atomic.Int64), make(chan struct{})
	var w *peertest.Proxy
	m := peertest.StartMember(t, "m", peertest.Writing(func(ctx context.Context, c kv.Change) (kv.Answer, error) {
		made.Add(1)
		fault(w)
		<-release
		return peertest.Written(ctx, c)
	}))
	w = peertest.StartProxy(t, m.Addr)
	t.Cleanup(func() { close(release) })
	return peertest.StartConnected(t, peer.Config{PingAfter: 2 * time.Second, AttemptTimeout: time.Hour}, w.Through(m)), made
}

// passing is a context whose deadline passes when passed is closed.
type passing struct {
	context.Context
	passed chan struct{}
}

func (c passing) Done() <-chan struct{} { return c.passed }

func (c passing) Err() error {
	select {
	case <-c.passed:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// A write whose outcome is unknown must neither count as an answer nor be sent to another member.
func TestWriteWithoutAnswerIsUnknown(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(w *peertest.Proxy){
		"cut":    (*peertest.Proxy).Cut,
		"frozen": (*peertest.Proxy).Freeze,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, made := breaking(t, fault)
			err := peertest.Write(t, p, "m")
			if errors.Is(err, kv.ErrUnreachable) || kv.KindOf(err) != kv.KindUnknown || kv.RetryAfter(err) == 0 {
				t.Errorf("got error %v, want an unknown outcome", err)
			}
			if n := made.Load(); n != 1 {
				t.Errorf("the write was made %d times", n)
			}
			if s := p.Stats(); s.Unreachable != 0 {
				t.Errorf("got stats %+v", s)
			}
		})
	}
	t.Run("caller's deadline", func(t *testing.T) {
		t.Parallel()
		ctx := passing{context.Background(), make(chan struct{})}
		p, _ := breaking(t, func(*peertest.Proxy) { close(ctx.passed) })
		_, err := peertest.PeerTo(t, p, "m").Write(ctx, peertest.Put("k"))
		if errors.Is(err, kv.ErrUnreachable) || kv.KindOf(err) != kv.KindUnknown {
			t.Errorf("got error %v, want an unknown outcome", err)
		}
	})
	t.Run("response above the limit", func(t *testing.T) {
		t.Parallel()
		m := peertest.StartMember(t, "m")
		p := peertest.StartPool(t, peer.Config{MaxAnswerBytes: 100}, m)
		_, err := peertest.PeerTo(t, p, "m").Write(context.Background(), kv.Change{
			Dataset: "metrics", Key: "k", Value: make([]byte, 1000),
		})
		if kv.KindOf(err) != kv.KindUnknown {
			t.Errorf("got error %v, want an unknown outcome: the write was made", err)
		}
	})
}

func (s *answeringService) Write(context.Context, *peerv1.WriteRequest) (*peerv1.WriteResponse, error) {
	return nil, status.Error(s.code, "no")
}

func TestOtherCodesOfAWriteAreUnknown(t *testing.T) {
	t.Parallel()
	for _, code := range []codes.Code{
		codes.Unavailable, codes.Unimplemented, codes.Unauthenticated, codes.PermissionDenied, codes.Unknown, codes.DataLoss,
		codes.OutOfRange, codes.DeadlineExceeded, codes.Canceled, codes.Internal, codes.ResourceExhausted,
	} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			m := peertest.ServeRaw(t, &answeringService{code: code})
			err := peertest.Write(t, peertest.StartPool(t, peer.Config{}, m), "m")
			if errors.Is(err, kv.ErrUnreachable) || kv.KindOf(err) != kv.KindUnknown {
				t.Errorf("got error %v, want an unknown outcome", err)
			}
		})
	}
}

func TestWriteWaitsForARestartedMember(t *testing.T) {
	t.Parallel()
	addr := rig.FreeAddress(t)
	gone := &peertest.Member{Member: memberAt("m", addr)}
	p := peertest.StartPool(t, peer.Config{AttemptTimeout: time.Hour}, gone)
	if err := peertest.Fetch(t, p, "m"); !errors.Is(err, kv.ErrUnreachable) {
		t.Fatalf("got error %v, want unreachable", err)
	}
	peertest.StartMember(t, "m", peertest.At(addr))
	if err := peertest.Write(t, p, "m"); err != nil {
		t.Error(err)
	}
}
