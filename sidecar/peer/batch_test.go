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
)

// gets returns queries for n keys k-0, k-1, ….
func gets(n int) []kv.Query {
	qs := make([]kv.Query, n)
	for i := range qs {
		qs[i] = peertest.Get(fmt.Sprint("k-", i))
	}
	return qs
}

func fetchBatch(t testing.TB, p kv.Peers, qs []kv.Query) []kv.Outcome {
	t.Helper()
	outcomes := peertest.PeerTo(t, p, "m").FetchBatch(context.Background(), qs)
	if len(outcomes) != len(qs) {
		t.Fatalf("got %d outcomes, want %d", len(outcomes), len(qs))
	}
	return outcomes
}

func TestBatchReturnsOneOutcomePerKeyInOrder(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m", peertest.Serving(func(ctx context.Context, q kv.Query) (kv.Answer, error) {
		switch q.Key {
		case "k-1":
			return kv.Answer{}, &kv.Error{Kind: kv.KindUnavailable, RetryAfter: 1500 * time.Millisecond, Err: errors.New("down")}
		case "k-2":
			return kv.Answer{NotFound: true, Source: kv.SourceLoad, Fresh: time.Second}, nil
		case "k-3":
			return kv.Answer{}, errors.New("a bug") // not an answer
		}
		return peertest.Held(ctx, q)
	}))
	got := fetchBatch(t, peertest.StartPool(t, peer.Config{}, m), gets(kv.MaxBatchKeys))
	for i, o := range got {
		switch {
		case i == 1:
			if kv.KindOf(o.Err) != kv.KindUnavailable || kv.RetryAfter(o.Err) != 1500*time.Millisecond {
				t.Errorf("got error %v", o.Err)
			}
		case i == 2:
			if o.Err != nil || !o.Answer.NotFound || o.Answer.Source != kv.SourceLoad {
				t.Errorf("got %+v, want a negative answer", o)
			}
		case i == 3:
			if !errors.Is(o.Err, kv.ErrUnreachable) {
				t.Errorf("got error %v; want unreachable", o.Err)
			}
		case o.Err != nil || o.Alone || string(o.Answer.Value) != fmt.Sprint("k-", i) || o.Answer.Owner != "m":
			t.Errorf("outcome %d: got %+v", i, o)
		}
	}
}

func TestBatchOfTooManyKeysIsRejected(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m")
	for _, o := range fetchBatch(t, peertest.StartPool(t, peer.Config{}, m), gets(kv.MaxBatchKeys+1)) {
		if kv.KindOf(o.Err) != kv.KindInvalidKey || !strings.Contains(o.Err.Error(), "513 keys") {
			t.Fatalf("got outcome %+v", o)
		}
	}
}

func TestLargestBatchFits(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m")
	qs := gets(kv.MaxBatchKeys)
	for i := range qs {
		qs[i].Key += strings.Repeat("\x01", kv.MaxKeyBytes-len(qs[i].Key))
	}
	for i, o := range fetchBatch(t, peertest.StartPool(t, peer.Config{}, m), qs) {
		if o.Err != nil || string(o.Answer.Value) != qs[i].Key {
			t.Fatalf("got outcome %d: %d bytes, %v", i, len(o.Answer.Value), o.Err)
		}
	}
}

func TestMemberWithoutBatchesGetsEachKeyAlone(t *testing.T) {
	t.Parallel()
	m := peertest.ServeRaw(t, &answeringService{code: codes.Aborted}) // this member has no FetchBatch
	for _, o := range fetchBatch(t, peertest.StartPool(t, peer.Config{}, m), gets(3)) {
		if !o.Alone {
			t.Errorf("got outcome %+v", o)
		}
	}
}

// invalid answers batches with invalid responses.
type invalid struct {
	peerv1.UnimplementedPeerServer
	outcomes []*peerv1.FetchOutcome
	err      error
}

func (s invalid) FetchBatch(context.Context, *peerv1.FetchBatchRequest) (*peerv1.FetchBatchResponse, error) {
	return &peerv1.FetchBatchResponse{Outcomes: s.outcomes}, s.err
}

func TestInvalidAnswersToABatch(t *testing.T) {
	t.Parallel()
	unreachable := func(o kv.Outcome) bool { return errors.Is(o.Err, kv.ErrUnreachable) && !o.Alone }
	for name, tc := range map[string]struct {
		service invalid
		want    func(kv.Outcome) bool
	}{
		"too few":    {invalid{}, unreachable},
		"too many":   {invalid{outcomes: make([]*peerv1.FetchOutcome, 2)}, unreachable},
		"nothing":    {invalid{outcomes: []*peerv1.FetchOutcome{{}}}, func(o kv.Outcome) bool { return o.Alone }},
		"error as a": {invalid{err: status.Error(codes.Unavailable, "gone")}, unreachable},
		"error is ok": {
			invalid{outcomes: []*peerv1.FetchOutcome{{Outcome: &peerv1.FetchOutcome_Error{Error: &peerv1.FetchError{}}}}}, unreachable,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := peertest.ServeRaw(t, tc.service)
			if o := fetchBatch(t, peertest.StartPool(t, peer.Config{}, m), gets(1))[0]; !tc.want(o) {
				t.Errorf("got outcome %+v", o)
			}
		})
	}
}

func TestBatchToDeadMemberIsUnreachable(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m")
	p := peertest.StartPool(t, peer.Config{}, m)
	m.Kill(t)
	for _, o := range fetchBatch(t, p, gets(3)) {
		if !errors.Is(o.Err, kv.ErrUnreachable) || o.Alone {
			t.Errorf("got outcome %+v", o)
		}
	}
}
