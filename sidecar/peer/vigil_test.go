package peer_test

import (
	"context"
	"flag"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
)

var (
	vigilSeed  = flag.Uint64("vigil.seed", 1, "seed of TestNothingIsMissingAfterProve")
	vigilSteps = flag.Int("vigil.steps", 60, "steps of TestNothingIsMissingAfterProve")
)

// holder is a Sink that knows which published versions its member could still miss.
type holder struct {
	mu      sync.Mutex
	missing map[int64]bool // :: version → published, neither received nor expired
	missed  int
}

func (h *holder) Invalidate(list []kv.Invalidation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, i := range list {
		delete(h.missing, i.Version)
	}
}

func (h *holder) Missed(string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.missing)
	h.missed++
}

func (h *holder) LiveFeeds(string, []string) {}

func (h *holder) publish(p *peer.Pool, version int64) {
	h.mu.Lock()
	h.missing[version] = true
	h.mu.Unlock()
	p.Publish(peertest.Drop("k", version))
}

func (h *holder) left() (missing, missed int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.missing), h.missed
}

// A member sleeps, its link freezes, breaks and recovers, and another member publishes, at random. Whenever Prove returns,
// everything that was published before it began has arrived, or Missed was called since the member has fetched.
func TestNothingIsMissingAfterProve(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(*vigilSeed, 0))
	writer, m := peertest.StartWriter(t, "m", peer.Config{})
	h, link := &holder{missing: map[int64]bool{}}, peertest.StartProxy(t, m.Addr)
	p := peertest.StartConnected(t, peer.Config{Sink: h, PingAfter: 200 * time.Millisecond}, link.Through(m))
	// Steps begin with an open stream: what is published without one is expired when the next one begins.
	open := func() {
		link.Thaw()
		peertest.Eventually(t, "a stream is open", func() bool {
			_ = peertest.Fetch(t, p, "m") // it fails while the breaker is open
			_, missed := h.left()
			return missed > 0 && p.Stats().Subscriptions == 1
		})
	}
	open()
	proofs, lost := 0, 0
	for step := range *vigilSteps {
		p.Sleep()
		if p.Awake() {
			t.Fatal("the pool is awake after Sleep")
		}
		_, before := h.left()
		if p.Stats().Subscriptions != 1 { // a busy machine may have answered the last ping late
			open()
			p.Sleep()
			_, before = h.left()
		}
		frozen := random.IntN(6) == 0
		if frozen {
			link.Freeze()
		} else if random.IntN(8) == 0 {
			link.Cut()
		}
		for n := range random.IntN(4) {
			h.publish(writer, int64(step*10+n+1))
		}
		p.Prove(t.Context())
		missing, after := h.left()
		if missing != 0 && after == before || !p.Awake() { // after Missed the member holds nothing
			t.Fatalf("seed %d, step %d: %d invalidations are missing after Prove; awake: %t", *vigilSeed, step, missing, p.Awake())
		}
		proofs++
		if frozen || after > before {
			lost++
			open()
		}
	}
	t.Logf("%d proofs, seed %d; the stream was lost in %d", proofs, *vigilSeed, lost)
}

// ahead has published more than its stream brings.
type ahead struct {
	peerv1.UnimplementedPeerServer
}

func (ahead) Fetch(context.Context, *peerv1.FetchRequest) (*peerv1.FetchResponse, error) {
	return &peerv1.FetchResponse{}, nil
}

func (ahead) Ping(context.Context, *peerv1.PingRequest) (*peerv1.PingResponse, error) {
	return &peerv1.PingResponse{Node: "m", Epoch: 1, Sequence: 8}, nil
}

func (ahead) Subscribe(_ *peerv1.SubscribeRequest, out grpc.ServerStreamingServer[peerv1.SubscribeResponse]) error {
	if err := out.Send(response(1, 7)); err != nil {
		return err
	}
	<-out.Context().Done()
	return nil
}

func TestPongAheadOfTheStreamProvesNothing(t *testing.T) {
	t.Parallel()
	m := peertest.ServeRaw(t, ahead{})
	s := newSink(t)
	p := peertest.StartPool(t, peer.Config{Sink: s, PingAfter: 100 * time.Millisecond}, m)
	if err := peertest.Fetch(t, p, m.ID); err != nil {
		t.Fatal(err)
	}
	s.expect("missed " + m.ID)
	p.Sleep()
	p.Prove(t.Context())
	if !s.wasCalled("missed " + m.ID) {
		t.Error("Prove has returned, and the stream that lacks an invalidation was not ended")
	}
}

func TestProveEndsWithItsContext(t *testing.T) {
	t.Parallel()
	_, _, w, p := subscribed(t, peer.Config{})
	w.Freeze()
	p.Sleep()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p.Prove(ctx)
	if p.Awake() {
		t.Error("the pool is awake, and no member has answered")
	}
}
