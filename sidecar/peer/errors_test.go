package peer_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/peer"
)

// codeServed returns the code with which a service answers an error of its dataset.
func codeServed(t *testing.T, err error) *status.Status {
	t.Helper()
	failing := &dataset{serve: func(context.Context, cache.Query) (cache.Answer, error) { return cache.Answer{}, err }}
	s := peer.NewService(peer.ServiceConfig{
		Ring:     &view{},
		Datasets: func(string) (peer.Dataset, bool) { return failing, true },
	})
	_, got := s.Fetch(context.Background(), &peerv1.FetchRequest{Dataset: "metrics", Key: "k"})
	return status.Convert(got)
}

func TestErrorsKeepTheirMeaningOnTheWay(t *testing.T) {
	t.Parallel()
	cases := []struct {
		kind        cache.Kind
		code        codes.Code
		unreachable bool // the caller asks elsewhere
	}{
		{cache.KindInvalidKey, codes.InvalidArgument, false},
		{cache.KindNotCached, codes.OutOfRange, false},
		{cache.KindOverloaded, codes.ResourceExhausted, false},
		{cache.KindUnavailable, codes.Aborted, false},
		{cache.KindDeadline, codes.DeadlineExceeded, true},
		{cache.KindCanceled, codes.Canceled, true},
		{cache.KindInternal, codes.Internal, true},
	}
	var next error
	m := startMember(t, "m", serving(func(context.Context, cache.Query) (cache.Answer, error) {
		return cache.Answer{}, next
	}))
	p := startPool(t, peer.Config{}, m)
	to := peerTo(t, p, "m")
	for _, tc := range cases {
		t.Run(tc.code.String(), func(t *testing.T) {
			next = &cache.Error{Kind: tc.kind, RetryAfter: 1500 * time.Millisecond, Err: errors.New("the cause")}
			if s := codeServed(t, next); s.Code() != tc.code || s.Message() != "the cause" {
				t.Errorf("served %v %q, want %v", s.Code(), s.Message(), tc.code)
			}
			_, err := to.Fetch(context.Background(), get("k"))
			if got := errors.Is(err, cache.ErrUnreachable); got != tc.unreachable {
				t.Fatalf("fetched %v: unreachable %v, want %v", err, got, tc.unreachable)
			}
			if !strings.Contains(err.Error(), "the cause") || !strings.Contains(err.Error(), "member m at ") {
				t.Errorf("error %q does not say who and what", err)
			}
			if !tc.unreachable && (cache.KindOf(err) != tc.kind || cache.RetryAfter(err) != 1500*time.Millisecond) {
				t.Errorf("fetched kind %v, retry after %v", cache.KindOf(err), cache.RetryAfter(err))
			}
		})
	}
	if s := p.Stats(); s.BreakersOpen != 0 {
		t.Errorf("answers have opened the breaker: %+v", s)
	}
}

func TestRetryAfterIsOptional(t *testing.T) {
	if s := codeServed(t, &cache.Error{Kind: cache.KindUnavailable, Err: errors.New("x")}); len(s.Details()) != 0 {
		t.Errorf("details %v, want none", s.Details())
	}
}

// answeringService answers each fetch with a status, whoever asks.
type answeringService struct {
	peerv1.UnimplementedPeerServer
	code codes.Code
}

func (s *answeringService) Fetch(context.Context, *peerv1.FetchRequest) (*peerv1.FetchResponse, error) {
	return nil, status.Error(s.code, "no")
}

func TestWhatOthersAnswerIsUnreachable(t *testing.T) {
	t.Parallel()
	for _, code := range []codes.Code{
		codes.Unavailable, codes.Unimplemented, codes.Unauthenticated, codes.PermissionDenied, codes.NotFound, codes.Unknown,
		codes.DataLoss, codes.AlreadyExists, codes.FailedPrecondition, codes.DeadlineExceeded, codes.Canceled, codes.Internal,
	} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			m := serveRaw(t, &answeringService{code: code})
			err := fetch(t, startPool(t, peer.Config{}, m), "m")
			if !errors.Is(err, cache.ErrUnreachable) {
				t.Errorf("error %v, want unreachable", err)
			}
		})
	}
}

func TestUnknownDatasetIsAskedElsewhere(t *testing.T) {
	t.Parallel()
	m := startMember(t, "m")
	p := startPool(t, peer.Config{}, m)
	_, err := peerTo(t, p, "m").Fetch(context.Background(), cache.Query{Dataset: "younger", Key: "k"})
	if !errors.Is(err, cache.ErrUnreachable) || !strings.Contains(err.Error(), "younger") {
		t.Errorf("error %v: while a new config is rolled out, others may have the dataset", err)
	}
}

func TestErrorTextIsBounded(t *testing.T) {
	t.Parallel()
	m := startMember(t, "m", serving(func(context.Context, cache.Query) (cache.Answer, error) {
		return cache.Answer{}, &cache.Error{Kind: cache.KindUnavailable, Err: errors.New(strings.Repeat("€", 100_000))}
	}))
	err := fetch(t, startPool(t, peer.Config{}, m), "m")
	if cache.KindOf(err) != cache.KindUnavailable || len(err.Error()) > 1000 {
		t.Errorf("error of %d bytes, kind %v", len(fmt.Sprint(err)), cache.KindOf(err))
	}
}

func TestSizesAreCheckedBeforeWork(t *testing.T) {
	s := peer.NewService(peer.ServiceConfig{
		Ring: &view{},
		Datasets: func(string) (peer.Dataset, bool) {
			t.Error("work was done")
			return nil, false
		},
	})
	for name, req := range map[string]*peerv1.FetchRequest{
		"dataset":   {Dataset: strings.Repeat("d", 129), Key: "k"},
		"key":       {Dataset: "metrics", Key: strings.Repeat("k", 1025)},
		"empty key": {Dataset: "metrics"},
	} {
		if _, err := s.Fetch(context.Background(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: error %v, want INVALID_ARGUMENT", name, err)
		}
	}
}

func TestLargestRequestFits(t *testing.T) {
	t.Parallel()
	m := startMember(t, "m")
	p := startPool(t, peer.Config{}, m)
	key := strings.Repeat("\x01", cache.MaxKeyBytes)
	if a, err := peerTo(t, p, "m").Fetch(context.Background(), get(key)); err != nil || string(a.Value) != key {
		t.Errorf("answer of %d bytes, error %v", len(a.Value), err)
	}
}
