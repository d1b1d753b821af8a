package peer_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/origin"
	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
)

func TestWriteManyTransfersChangesAndOutcomes(t *testing.T) {
	t.Parallel()
	cs := []kv.Change{
		{Key: "a/b c", Value: []byte("v"), ID: "once"}, {Key: "deleted", Delete: true, Failover: true},
		{Key: "absent", If: kv.Condition{Absent: true}}, {Key: "version", Value: []byte("v"), If: kv.Condition{Version: 7}},
		{Key: "etag", Value: []byte("v"), If: kv.Condition{ETag: `"x"`}},
		{Key: "conflict"}, {Key: "column"}, {Key: "reused"}, {Key: "unknown"}, {Key: "overloaded"}, {Key: "defect"},
	}
	errs := map[string]error{
		"conflict":   &kv.Error{Kind: kv.KindConflict, Err: errors.New("another version")},
		"column":     &kv.Error{Kind: kv.KindInvalidValue, Err: fmt.Errorf("%w", &origin.ValueError{Column: "unit", Reason: "too long"})},
		"reused":     &kv.Error{Kind: kv.KindIDReused, Err: errors.New("reused")},
		"unknown":    &kv.Error{Kind: kv.KindUnknown, Err: errors.New("lost")},
		"overloaded": &kv.Error{Kind: kv.KindOverloaded, RetryAfter: time.Second, Err: errors.New("full")},
		"defect":     errors.New("panic"),
	}
	var seen []kv.Change
	m := peertest.StartMember(t, "m", peertest.Writing(func(ctx context.Context, c kv.Change) (kv.Answer, error) {
		seen = append(seen, c)
		if err := errs[c.Key]; err != nil {
			return kv.Answer{}, err
		}
		return peertest.Written(ctx, c)
	}))
	to := peertest.PeerTo(t, peertest.StartPool(t, peer.Config{}, m), "m")
	for i := range cs {
		cs[i].Dataset = "metrics"
	}
	outcomes := to.WriteMany(t.Context(), cs)
	if len(seen) != len(cs) || len(outcomes) != len(cs) {
		t.Fatalf("got %d changes and %d outcomes, want %d", len(seen), len(outcomes), len(cs))
	}
	for i, o := range outcomes {
		if got, want := fmt.Sprintf("%+v", seen[i]), fmt.Sprintf("%+v", cs[i]); got != want {
			t.Errorf("the member received %s, want %s", got, want)
		}
		switch want := errs[cs[i].Key]; {
		case want == nil:
			wantAnswer := kv.Answer{NotFound: cs[i].Delete, Version: 1, Owner: "m", Source: kv.SourceLoad}
			if o.Err != nil || o.Alone || !reflect.DeepEqual(o.Answer, wantAnswer) {
				t.Errorf("%s: got %+v", cs[i].Key, o)
			}
		case cs[i].Key == "defect": // no answer of a member
			if kv.KindOf(o.Err) != kv.KindUnknown {
				t.Errorf("got %v, want an unknown outcome", o.Err)
			}
		case o.Err == nil || kv.KindOf(o.Err) != kv.KindOf(want):
			t.Errorf("%s: got %v, want %v", cs[i].Key, o.Err, want)
		}
	}
	if wrong, ok := errors.AsType[*origin.ValueError](outcomes[6].Err); !ok || wrong.Column != "unit" {
		t.Errorf("got %v, want the column", outcomes[6].Err)
	}
}

func TestWriteManyTransfersTheLargestBatch(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m", peertest.Writing(peertest.Written))
	to := peertest.PeerTo(t, peertest.StartPool(t, peer.Config{}, m), "m")
	cs := make([]kv.Change, kv.MaxBatchWrites)
	for i := range cs {
		cs[i] = kv.Change{Dataset: "metrics", Key: fmt.Sprintf("%0512d", i), ID: strings.Repeat("i", kv.MaxIDBytes)}
		cs[i].Value = make([]byte, kv.MaxBatchWriteBytes/len(cs)-cs[i].Bytes())
	}
	for i, o := range to.WriteMany(t.Context(), cs) {
		if o.Err != nil || o.Answer.Version != 1 {
			t.Fatalf("change %d: got %+v", i, o)
		}
	}
	for name, bad := range map[string][]kv.Change{
		"too many":     append(cs[:len(cs):len(cs)], kv.Change{Dataset: "metrics", Key: "k"}),
		"a key twice":  {cs[0], cs[1], cs[0]},
		"no key":       {cs[0], {Dataset: "metrics"}},
		"a long value": {{Dataset: "metrics", Key: "k", Value: make([]byte, kv.MaxValueBytes+1)}, cs[0]},
	} {
		for _, o := range to.WriteMany(t.Context(), bad) {
			if o.Err == nil || o.Alone {
				t.Errorf("%s: got %+v", name, o)
			}
		}
	}
}

// outcomesOf is a member that answers each batch with fewer outcomes than changes, or as a release without the call.
type outcomesOf struct {
	peerv1.UnimplementedPeerServer
	outcomes []*peerv1.WriteOutcome
}

func (o outcomesOf) WriteBatch(context.Context, *peerv1.WriteBatchRequest) (*peerv1.WriteBatchResponse, error) {
	if o.outcomes == nil {
		return nil, status.Error(codes.Unimplemented, "no such call")
	}
	return &peerv1.WriteBatchResponse{Outcomes: o.outcomes}, nil
}

func TestWriteManyToOtherReleases(t *testing.T) {
	t.Parallel()
	cs := []kv.Change{{Dataset: "metrics", Key: "a"}, {Dataset: "metrics", Key: "b"}}
	older := peertest.ServeRaw(t, outcomesOf{})
	to := peertest.PeerTo(t, peertest.StartPool(t, peer.Config{}, older), older.ID)
	for _, o := range to.WriteMany(t.Context(), cs) {
		if !o.Alone {
			t.Errorf("got %+v of a release without batches, want that the change is sent alone", o)
		}
	}
	broken := peertest.ServeRaw(t, outcomesOf{outcomes: []*peerv1.WriteOutcome{{Status: []byte("\xff")}}})
	to = peertest.PeerTo(t, peertest.StartPool(t, peer.Config{}, broken), broken.ID)
	for _, o := range to.WriteMany(t.Context(), cs) {
		if kv.KindOf(o.Err) != kv.KindUnknown {
			t.Errorf("got %+v, want an unknown outcome", o)
		}
	}
}
