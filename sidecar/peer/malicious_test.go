package peer_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
	"github.com/ringside-cache/ringside/sidecar/peer/server"
	"github.com/ringside-cache/ringside/sidecar/peer/service"
)

// malicious is a member that answers whatever its functions return.
type malicious struct {
	peerv1.UnimplementedPeerServer
	fetch     func() *peerv1.FetchResponse
	batch     func() *peerv1.FetchBatchResponse
	inspect   func() *peerv1.InspectResponse
	ping      func() *peerv1.PingResponse
	subscribe func(send func(*peerv1.SubscribeResponse) error) error
}

func (m malicious) Fetch(context.Context, *peerv1.FetchRequest) (*peerv1.FetchResponse, error) {
	return m.fetch(), nil
}

func (m malicious) FetchBatch(context.Context, *peerv1.FetchBatchRequest) (*peerv1.FetchBatchResponse, error) {
	return m.batch(), nil
}

func (m malicious) Inspect(context.Context, *peerv1.InspectRequest) (*peerv1.InspectResponse, error) {
	return m.inspect(), nil
}

func (m malicious) Ping(context.Context, *peerv1.PingRequest) (*peerv1.PingResponse, error) {
	if m.ping == nil {
		return &peerv1.PingResponse{Node: "m"}, nil
	}
	return m.ping(), nil
}

func (m malicious) Subscribe(_ *peerv1.SubscribeRequest, out grpc.ServerStreamingServer[peerv1.SubscribeResponse]) error {
	if m.subscribe == nil {
		<-out.Context().Done()
		return nil
	}
	return m.subscribe(out.Send)
}

func TestHugeResponsesOfAMemberAreRejected(t *testing.T) {
	t.Parallel()
	huge := bytes.Repeat([]byte("x"), 3<<20)
	m := peertest.ServeRaw(t, malicious{
		fetch:   func() *peerv1.FetchResponse { return &peerv1.FetchResponse{Value: huge} },
		batch:   func() *peerv1.FetchBatchResponse { return &peerv1.FetchBatchResponse{Outcomes: make500k()} },
		inspect: func() *peerv1.InspectResponse { return &peerv1.InspectResponse{State: huge} },
		ping:    func() *peerv1.PingResponse { return &peerv1.PingResponse{Node: string(huge)} },
	})
	p := peertest.StartPool(t, peer.Config{}, m)
	if err := peertest.Fetch(t, p, "m"); kv.KindOf(err) != kv.KindOverloaded {
		t.Errorf("fetch of 3 MiB: got error %v, want overloaded", err)
	}
	for _, o := range peertest.PeerTo(t, p, "m").FetchBatch(t.Context(), []kv.Query{peertest.Get("a")}) {
		if o.Err == nil || !strings.Contains(o.Err.Error(), "too many elements") {
			t.Errorf("batch of 500 000 outcomes: got error %v", o.Err)
		}
	}
	if found := inspect(t.Context(), p); len(found) != 1 || status.Code(found[0].Err) != codes.ResourceExhausted {
		t.Errorf("report of 3 MiB: got %.200v, want an error", found)
	}
	if err := peertest.Ping(t, p, m.Member); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("pong of 3 MiB: got error %.200v, want RESOURCE_EXHAUSTED", err)
	}
}

// make500k returns outcomes that need 2 bytes each when they are encoded.
func make500k() []*peerv1.FetchOutcome {
	list, one := make([]*peerv1.FetchOutcome, 500_000), &peerv1.FetchOutcome{}
	for i := range list {
		list[i] = one
	}
	return list
}

func TestEscapesInReportsAndPongsAreRejected(t *testing.T) {
	t.Parallel()
	m := peertest.ServeRaw(t, malicious{
		inspect: func() *peerv1.InspectResponse { return &peerv1.InspectResponse{Version: "\x1b]0;pwned\x07"} },
		ping:    func() *peerv1.PingResponse { return &peerv1.PingResponse{Node: "\x1b[2J"} },
	})
	p := peertest.StartPool(t, peer.Config{}, m)
	found := inspect(t.Context(), p)
	if len(found) != 1 || found[0].Err == nil || found[0].Report != nil {
		t.Errorf("got %+v, want an error", found)
	}
	for _, err := range []error{found[0].Err, peertest.Ping(t, p, m.Member)} {
		if err == nil || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("got error %q, want one without escapes", err)
		}
	}
}

// countedSink counts what a stream causes.
type countedSink struct {
	keys, all, missed, feeds atomic.Int64
	panics                   atomic.Int64 // of the next calls of Invalidate
	mu                       sync.Mutex
	versions                 []int64
}

func (s *countedSink) Invalidate(list []kv.Invalidation) {
	if s.panics.Add(-1) >= 0 {
		panic("canary")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range list {
		if i.Prefix && i.Key == "" {
			s.all.Add(1)
			continue
		}
		s.keys.Add(1)
		s.versions = append(s.versions, i.Version)
	}
}

func (s *countedSink) Missed(string)                         { s.missed.Add(1) }
func (s *countedSink) LiveFeeds(_ string, datasets []string) { s.feeds.Add(int64(len(datasets))) }

// flood starts a member whose stream has n responses, and a pool that receives them.
func flood(t *testing.T, n int, response func(n int) *peerv1.SubscribeResponse) (*countedSink, *peer.Pool) {
	t.Helper()
	sink := &countedSink{}
	m := peertest.ServeRaw(t, malicious{
		fetch: func() *peerv1.FetchResponse { return &peerv1.FetchResponse{Value: []byte("v")} },
		subscribe: func(send func(*peerv1.SubscribeResponse) error) error {
			for i := range n {
				if err := send(response(i)); err != nil {
					return err
				}
			}
			return nil
		},
	})
	p := peertest.StartPool(t, peer.Config{Sink: sink, SubscriptionIdle: time.Hour}, m)
	if err := peertest.Fetch(t, p, "m"); err != nil {
		t.Fatal(err)
	}
	return sink, p
}

// The first 64 prefixes are applied as they are; the others expire the dataset, at most once per second.
func TestFloodOfPrefixesIsMerged(t *testing.T) {
	t.Parallel()
	sink, p := flood(t, 1000, func(n int) *peerv1.SubscribeResponse {
		r := &peerv1.SubscribeResponse{Epoch: 1, Sequence: uint64(16 * (n + 1))}
		for i := range 16 {
			r.Invalidations = append(r.Invalidations, &peerv1.Invalidation{Dataset: "metrics", Key: fmt.Sprint("p", i), Prefix: true})
		}
		return r
	})
	peertest.Eventually(t, "the invalidations are merged", func() bool { return sink.all.Load() >= 2 })
	if s := p.Stats(); s.Merged < 2 || sink.keys.Load() > 64+64 {
		t.Errorf("got %d lists merged, %d prefixes applied, want at most 128 in the first seconds", s.Merged, sink.keys.Load())
	}
}

func TestFloodOfGapsIsLimited(t *testing.T) {
	t.Parallel()
	sink, _ := flood(t, 1000, func(n int) *peerv1.SubscribeResponse { return &peerv1.SubscribeResponse{Epoch: uint64(n + 1)} })
	peertest.Eventually(t, "the first gaps are handled", func() bool { return sink.missed.Load() >= 8 })
	time.Sleep(50 * time.Millisecond) // a flood without a limit takes a few milliseconds
	if n := sink.missed.Load(); n > 12 {
		t.Errorf("got %d gaps handled, want about 8", n)
	}
}

func TestFlappingFeedsAreLimited(t *testing.T) {
	t.Parallel()
	sink, _ := flood(t, 1500, func(n int) *peerv1.SubscribeResponse {
		r := &peerv1.SubscribeResponse{Epoch: 1}
		if n%2 == 0 {
			r.LiveFeeds = []string{"metrics"}
		}
		return r
	})
	peertest.Eventually(t, "the stream has ended", func() bool { return sink.missed.Load() >= 2 })
	if n := sink.feeds.Load(); n == 0 || n > 40 {
		t.Errorf("the feed became live %d times, want at most 30 at once", n)
	}
}

func TestImpossibleInvalidationsEndTheStream(t *testing.T) {
	t.Parallel()
	for name, bad := range map[string]*peerv1.SubscribeResponse{
		"negative version": {Epoch: 1, Sequence: 1, Invalidations: []*peerv1.Invalidation{{Dataset: "d", Key: "k", Version: -1}}},
		"escape in a feed": {Epoch: 1, Sequence: 1, LiveFeeds: []string{"\x1b[2J"}},
		"1001 feeds":       {Epoch: 1, Sequence: 1, LiveFeeds: make([]string, 1001)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := true
			sink, _ := flood(t, 2, func(int) *peerv1.SubscribeResponse {
				defer func() { first = !first }()
				if first {
					return &peerv1.SubscribeResponse{Epoch: 1}
				}
				return bad
			})
			peertest.Eventually(t, "the stream ends, and its copies expire", func() bool { return sink.missed.Load() >= 2 })
			if sink.keys.Load() != 0 || sink.feeds.Load() != 0 {
				t.Errorf("got %d invalidations and %d feeds, want none", sink.keys.Load(), sink.feeds.Load())
			}
		})
	}
}

// A panic in the processing of a member's message ends its stream, after which copies from it expire; nothing else ends.
func TestPanicInASubscriptionExpiresCopies(t *testing.T) {
	t.Parallel()
	var defects atomic.Int64
	sink := &countedSink{}
	sink.panics.Store(1)
	writer, m := peertest.StartWriter(t, "m", peer.Config{})
	p := peertest.StartConnected(t, peer.Config{Sink: sink, SubscriptionIdle: time.Hour, Defect: func(err error) {
		if strings.Contains(err.Error(), "canary") && strings.Contains(err.Error(), "goroutine") {
			defects.Add(1)
		}
	}}, m)
	if err := peertest.Fetch(t, p, "m"); err != nil {
		t.Fatal(err)
	}
	peertest.Eventually(t, "subscribed", func() bool { return p.Stats().Subscriptions == 1 })
	missed := sink.missed.Load()
	writer.Publish(peertest.Drop("k", 1))
	peertest.Eventually(t, "the copies expire", func() bool { return sink.missed.Load() > missed })
	peertest.Eventually(t, "subscribed again", func() bool { return p.Stats().Subscriptions == 1 })
	writer.Publish(peertest.Drop("k", 2))
	peertest.Eventually(t, "the next invalidation arrives", func() bool { return sink.keys.Load() >= 1 })
	if n := defects.Load(); n != 1 {
		t.Errorf("%d panics were reported, want 1", n)
	}
}

func TestPanicInAHandlerEndsItsCallAlone(t *testing.T) {
	t.Parallel()
	var reported atomic.Value
	var reports atomic.Int64
	m := peertest.StartMember(t, "m",
		peertest.Serving(func(_ context.Context, q kv.Query) (kv.Answer, error) {
			if q.Key == "k" {
				panic("canary")
			}
			return peertest.Held(context.Background(), q)
		}),
		func(_ *peertest.Member, _ *service.Config, s *server.Config) {
			s.Defect = func(err error) {
				reports.Add(1)
				reported.Store(err.Error())
			}
		})
	p := peertest.StartConnected(t, peer.Config{}, m)
	err := peertest.Fetch(t, p, "m")
	if err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("got error %v, want one without the text of the panic", err)
	}
	if text, _ := reported.Load().(string); !strings.Contains(text, "canary") || !strings.Contains(text, "goroutine") {
		t.Errorf("reported %q, want the panic and its stack", text)
	}
	if _, err := peertest.PeerTo(t, p, "m").Fetch(t.Context(), peertest.Get("other")); err != nil || reports.Load() != 1 {
		t.Errorf("next call: error %v; %d panics were reported, want 1", err, reports.Load())
	}
}

// A caller with many running calls, or many prefixes, gets less exact invalidations or an error, and keeps nobody out.
func TestFloodOfInvalidateCallsIsMergedOrRefused(t *testing.T) {
	t.Parallel()
	var exact, all atomic.Int64
	m := peertest.StartMember(t, "m", peertest.Invalidating(func(list []kv.Invalidation) {
		for _, i := range list {
			if i.Key == "" {
				all.Add(1)
			} else {
				exact.Add(1)
			}
		}
	}))
	conn, err := grpc.NewClient("passthrough:///"+m.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := &peerv1.InvalidateRequest{}
	for i := range 16 {
		request.Invalidations = append(request.Invalidations, &peerv1.Invalidation{Dataset: "metrics", Key: fmt.Sprint(i), Prefix: true})
	}
	ctx, cancel := context.WithTimeout(t.Context(), peertest.Timeout)
	defer cancel()
	var calls sync.WaitGroup
	var refused atomic.Int64
	for range 200 {
		calls.Go(func() {
			_, err := peerv1.NewPeerClient(conn).Invalidate(ctx, request)
			if status.Code(err) == codes.ResourceExhausted {
				refused.Add(1)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if exact.Load() > 128 || all.Load() == 0 && refused.Load() == 0 || refused.Load() < 100 {
		t.Errorf("got %d prefixes, %d datasets, %d calls refused; want at most 64 prefixes at once and 8 running calls",
			exact.Load(), all.Load(), refused.Load())
	}
	if s := m.Service.Stats(); s.InvalidationsRefused != refused.Load() {
		t.Errorf("counted %d refused, want %d", s.InvalidationsRefused, refused.Load())
	}
}

func TestReportIsReusedForManyCallsOfInspect(t *testing.T) {
	t.Parallel()
	var made atomic.Int64
	m := peertest.StartMember(t, "m", func(_ *peertest.Member, s *service.Config, _ *server.Config) {
		s.Inspect = func() *peerv1.InspectResponse {
			made.Add(1)
			return &peerv1.InspectResponse{Version: "v"}
		}
	})
	p := peertest.StartConnected(t, peer.Config{}, m)
	began := time.Now()
	for range 50 {
		if found := inspect(t.Context(), p); len(found) != 1 || found[0].Err != nil || found[0].Report.GetNode() != "m" {
			t.Fatalf("got %+v", found)
		}
	}
	if most := 1 + time.Since(began).Milliseconds()/200 + 1; made.Load() > most {
		t.Errorf("got %d reports made for 50 calls, want at most %d", made.Load(), most)
	}
}

// inspect returns the results of Inspect.
func inspect(ctx context.Context, p *peer.Pool) (list []peer.Inspection) {
	p.Inspect(ctx, func(one peer.Inspection) { list = append(list, one) })
	return list
}
