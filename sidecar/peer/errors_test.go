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
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
	"github.com/ringside-cache/ringside/sidecar/peer/service"
)

// codeServed returns the status with which a service answers an error of its dataset.
func codeServed(t *testing.T, err error) *status.Status {
	t.Helper()
	failing := &peertest.Dataset{ServeFunc: func(context.Context, kv.Query) (kv.Answer, error) { return kv.Answer{}, err }}
	s := service.New(service.Config{
		Ring:     &peertest.View{},
		Datasets: func(string) (service.Dataset, bool) { return failing, true },
	})
	_, got := s.Fetch(context.Background(), &peerv1.FetchRequest{Dataset: "metrics", Key: "k"})
	return status.Convert(got)
}

func TestErrorsOfFetchesKeepTheirKind(t *testing.T) {
	t.Parallel()
	cases := []struct {
		kind        kv.Kind
		code        codes.Code
		unreachable bool // the caller calls another member
	}{
		{kv.KindInvalidKey, codes.InvalidArgument, false},
		{kv.KindNotCached, codes.OutOfRange, false},
		{kv.KindOverloaded, codes.ResourceExhausted, false},
		{kv.KindUnavailable, codes.Aborted, false},
		{kv.KindDeadline, codes.DeadlineExceeded, true},
		{kv.KindCanceled, codes.Canceled, true},
		{kv.KindInternal, codes.Internal, true},
	}
	var next error
	m := peertest.StartMember(t, "m", peertest.Serving(func(context.Context, kv.Query) (kv.Answer, error) {
		return kv.Answer{}, next
	}))
	p := peertest.StartPool(t, peer.Config{}, m)
	to := peertest.PeerTo(t, p, "m")
	for _, tc := range cases {
		t.Run(tc.code.String(), func(t *testing.T) {
			next = &kv.Error{Kind: tc.kind, RetryAfter: 1500 * time.Millisecond, Err: errors.New("the cause")}
			if s := codeServed(t, next); s.Code() != tc.code || s.Message() != "the cause" {
				t.Errorf("got served %v %q, want %v", s.Code(), s.Message(), tc.code)
			}
			_, err := to.Fetch(context.Background(), peertest.Get("k"))
			if got := errors.Is(err, kv.ErrUnreachable); got != tc.unreachable {
				t.Fatalf("fetched %v: unreachable %v, want %v", err, got, tc.unreachable)
			}
			if !strings.Contains(err.Error(), "the cause") || !strings.Contains(err.Error(), "member m at ") {
				t.Errorf("error %q does not name the member and the cause", err)
			}
			if !tc.unreachable && (kv.KindOf(err) != tc.kind || kv.RetryAfter(err) != 1500*time.Millisecond) {
				t.Errorf("fetched kind %v, retry after %v", kv.KindOf(err), kv.RetryAfter(err))
			}
		})
	}
	if s := p.Stats(); s.BreakersOpen != 0 {
		t.Errorf("want the breaker closed after answers: %+v", s)
	}
}

// answeringService answers each fetch with a status.
type answeringService struct {
	peerv1.UnimplementedPeerServer
	code codes.Code
}

func (s *answeringService) Fetch(context.Context, *peerv1.FetchRequest) (*peerv1.FetchResponse, error) {
	return nil, status.Error(s.code, "no")
}

func TestOtherCodesOfAFetchAreUnreachable(t *testing.T) {
	t.Parallel()
	for _, code := range []codes.Code{
		codes.Unavailable, codes.Unimplemented, codes.Unauthenticated, codes.PermissionDenied, codes.NotFound, codes.Unknown,
		codes.DataLoss, codes.AlreadyExists, codes.FailedPrecondition, codes.DeadlineExceeded, codes.Canceled, codes.Internal,
	} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			m := peertest.ServeRaw(t, &answeringService{code: code})
			err := peertest.Fetch(t, peertest.StartPool(t, peer.Config{}, m), "m")
			if !errors.Is(err, kv.ErrUnreachable) {
				t.Errorf("got error %v, want unreachable", err)
			}
		})
	}
}

func TestUnknownDatasetIsUnreachable(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m")
	p := peertest.StartPool(t, peer.Config{}, m)
	_, err := peertest.PeerTo(t, p, "m").Fetch(context.Background(), kv.Query{Dataset: "newer", Key: "k"})
	if !errors.Is(err, kv.ErrUnreachable) || !strings.Contains(err.Error(), "newer") {
		t.Errorf("got error %v: want unreachable: during a rollout other members may have the dataset", err)
	}
}

func TestErrorTextIsTruncated(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m", peertest.Serving(func(context.Context, kv.Query) (kv.Answer, error) {
		return kv.Answer{}, &kv.Error{Kind: kv.KindUnavailable, Err: errors.New(strings.Repeat("€", 100_000))}
	}))
	err := peertest.Fetch(t, peertest.StartPool(t, peer.Config{}, m), "m")
	if kv.KindOf(err) != kv.KindUnavailable || len(err.Error()) > 1000 {
		t.Errorf("error of %d bytes, kind %v", len(fmt.Sprint(err)), kv.KindOf(err))
	}
}

func TestLargestRequestFits(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m")
	p := peertest.StartPool(t, peer.Config{}, m)
	key := strings.Repeat("\x01", kv.MaxKeyBytes)
	if a, err := peertest.PeerTo(t, p, "m").Fetch(context.Background(), peertest.Get(key)); err != nil || string(a.Value) != key {
		t.Errorf("got answer of %d bytes, error %v", len(a.Value), err)
	}
}
