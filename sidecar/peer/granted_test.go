package peer_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
)

// sized serves a value of size bytes for each key, and records the most memory that a budget has given to calls.
func sized(b *budget.Budget, size int, peak *atomic.Int64, queries func(kv.Query)) peertest.Option {
	return peertest.Serving(func(_ context.Context, q kv.Query) (kv.Answer, error) {
		queries(q)
		peak.Store(max(peak.Load(), b.Stats()[budget.Calls].Used))
		return kv.Answer{Value: make([]byte, size), Fresh: time.Minute}, nil
	})
}

func used(b *budget.Budget) int64 { return b.Stats()[budget.Calls].Used }

func TestFetchTakesMemoryBeforeTheAnswerIsSent(t *testing.T) {
	t.Parallel()
	const size = 100 << 10
	b := budget.New(4 << 20)
	var peak atomic.Int64
	var mu sync.Mutex
	var queries []kv.Query
	m := peertest.StartMember(t, "m", sized(b, size, &peak, func(q kv.Query) {
		mu.Lock()
		defer mu.Unlock()
		queries = append(queries, q)
	}))
	to := peertest.PeerTo(t, peertest.StartPool(t, peer.Config{Budget: b}, m), "m")
	for range 2 {
		q := peertest.Get("k")
		q.NoCache = true
		a, err := to.Fetch(t.Context(), q)
		if err != nil || len(a.Value) != size {
			t.Fatalf("got %d bytes, %v; want the value of %d bytes", len(a.Value), err, size)
		}
	}
	if peak.Load() < 2*size || used(b) != 0 {
		t.Errorf("at most %d bytes were taken while the member answered, %d afterwards; want at least twice the value, and none", peak.Load(), used(b))
	}
	// The first request had no memory for the value; the second one must not load again. The third one knows the size.
	if len(queries) != 3 || !queries[0].NoCache || queries[1].NoCache || queries[1].MaxAge <= 0 || !queries[2].NoCache {
		t.Errorf("got queries %+v; want a load, the same value from memory, and a load", queries)
	}
}

func TestFetchWithoutMemoryIsOverloaded(t *testing.T) {
	t.Parallel()
	b := budget.New(1 << 20)
	m := peertest.StartMember(t, "m")
	p := peertest.StartPool(t, peer.Config{Budget: b}, m)
	taken := int64(0)
	for b.Take(budget.Calls, 1<<10) {
		taken += 1 << 10
	}
	err := peertest.Fetch(t, p, "m")
	if kv.KindOf(err) != kv.KindOverloaded || kv.RetryAfter(err) == 0 || errors.Is(err, kv.ErrUnreachable) {
		t.Errorf("got %v without memory, want overloaded", err)
	}
	for _, o := range fetchBatch(t, p, gets(3)) {
		if kv.KindOf(o.Err) != kv.KindOverloaded {
			t.Errorf("got %+v without memory, want overloaded", o)
		}
	}
	if n := m.Dataset.Fetches.Load(); n != 0 {
		t.Errorf("the member got %d requests, want none", n)
	}
	time.AfterFunc(20*time.Millisecond, func() { b.Return(budget.Calls, taken) })
	if err := peertest.Fetch(t, p, "m"); err != nil {
		t.Errorf("got %v when memory was returned meanwhile, want an answer", err)
	}
}

func TestBatchTakesMemoryBeforeTheAnswersAreSent(t *testing.T) {
	t.Parallel()
	const size, n = 8 << 10, 100
	b := budget.New(16 << 20)
	var peak atomic.Int64
	m := peertest.StartMember(t, "m", sized(b, size, &peak, func(kv.Query) {}))
	p := peertest.StartPool(t, peer.Config{Budget: b}, m)
	for range 2 {
		received := 0
		for i, o := range fetchBatch(t, p, gets(n)) {
			switch {
			case o.Err != nil || !o.Alone && len(o.Answer.Value) != size:
				t.Fatalf("key %d: got %d bytes, %v", i, len(o.Answer.Value), o.Err)
			case !o.Alone:
				received++
			}
		}
		if received != n { // of 800 KiB in all
			t.Errorf("got %d of %d values; want all: there is memory", received, n)
		}
		if most := b.Limit(budget.Calls); peak.Load() > most || used(b) != 0 {
			t.Errorf("at most %d bytes were taken, %d afterwards; want at most %d, and none", peak.Load(), used(b), most)
		}
	}
	if peak.Load() < 2*size*n/2 {
		t.Errorf("at most %d bytes were taken for values of %d bytes", peak.Load(), size*n)
	}
}

func TestBatchWithLittleMemoryReturnsFewValues(t *testing.T) {
	t.Parallel()
	const size, n = 8 << 10, 100
	b := budget.New(1 << 20) // of which calls can take a third: 350 KB
	var peak atomic.Int64
	m := peertest.StartMember(t, "m", sized(b, size, &peak, func(kv.Query) {}))
	p := peertest.StartPool(t, peer.Config{Budget: b}, m)
	received := 0
	for _, o := range fetchBatch(t, p, gets(n)) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		received += len(o.Answer.Value)
	}
	if most := int(b.Limit(budget.Calls)); received == 0 || 2*received > most {
		t.Errorf("got %d bytes of values with memory of %d bytes, want some and at most half of it", received, most)
	}
}

// generous is a member that sends more than its caller has memory for.
type generous struct {
	peerv1.UnimplementedPeerServer
}

func (generous) Fetch(context.Context, *peerv1.FetchRequest) (*peerv1.FetchResponse, error) {
	return &peerv1.FetchResponse{Value: make([]byte, 1<<20)}, nil
}

func (generous) FetchBatch(_ context.Context, r *peerv1.FetchBatchRequest) (*peerv1.FetchBatchResponse, error) {
	resp := &peerv1.FetchBatchResponse{}
	for range r.GetRequests() {
		resp.Outcomes = append(resp.Outcomes, &peerv1.FetchOutcome{Outcome: &peerv1.FetchOutcome_Response{
			Response: &peerv1.FetchResponse{Value: make([]byte, 1<<20)},
		}})
	}
	return resp, nil
}

// growing is a member that claims a larger value each time.
type growing struct {
	peerv1.UnimplementedPeerServer
	calls atomic.Int64
}

func (g *growing) Fetch(_ context.Context, r *peerv1.FetchRequest) (*peerv1.FetchResponse, error) {
	g.calls.Add(1)
	return &peerv1.FetchResponse{OmittedBytes: r.GetMaxBytes() + 1}, nil
}

func TestAnswersThatExceedTheMemoryOfTheirCallerAreRejected(t *testing.T) {
	t.Parallel()
	b := budget.New(4 << 20)
	p := peertest.StartPool(t, peer.Config{Budget: b}, peertest.ServeRaw(t, generous{}))
	if err := peertest.Fetch(t, p, "m"); err == nil {
		t.Error("got an answer that is larger than the memory for it, want an error")
	}
	for _, o := range fetchBatch(t, p, gets(3)) {
		if o.Err == nil {
			t.Errorf("got %d bytes in a batch that is larger than the memory for it, want an error", len(o.Answer.Value))
		}
	}
	g := &growing{}
	if err := peertest.Fetch(t, peertest.StartPool(t, peer.Config{Budget: b}, peertest.ServeRaw(t, g)), "m"); err == nil || g.calls.Load() > 3 {
		t.Errorf("got %v after %d requests for a value that grows, want an error after at most 3", err, g.calls.Load())
	}
	if used(b) != 0 {
		t.Errorf("got %d bytes taken at the end, want 0", used(b))
	}
}
