package service_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/origin"
	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
	"github.com/ringside-cache/ringside/sidecar/peer/server"
	"github.com/ringside-cache/ringside/sidecar/peer/service"
)

func TestConcurrentFetchesOfAllCallersAreLimited(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	m := peertest.StartMember(t, "m",
		func(_ *peertest.Member, s *service.Config, _ *server.Config) { s.MaxInFlight = 1 },
		peertest.Serving(func(ctx context.Context, q kv.Query) (kv.Answer, error) {
			close(begun)
			<-release
			return peertest.Held(ctx, q)
		}))
	one, other := peertest.StartPool(t, peer.Config{}, m), peertest.StartPool(t, peer.Config{}, m)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := peertest.Fetch(t, one, "m"); err != nil {
			t.Error(err)
		}
	})
	<-begun
	err := peertest.Fetch(t, other, "m")
	if kv.KindOf(err) != kv.KindOverloaded || kv.RetryAfter(err) == 0 {
		t.Errorf("got error %v, want overloaded", err)
	}
	if err := peertest.Ping(t, other, m.Member); err != nil {
		t.Errorf("ping of a member at its limit: got error %v", err)
	}
	if s := m.Service.Stats(); s.InFlight != 1 || s.Refused != 1 || s.MaxInFlight != 1 {
		t.Errorf("got stats %+v", s)
	}
	close(release)
	wg.Wait()
	peertest.Eventually(t, "the fetch has ended", func() bool { return m.Service.Stats().InFlight == 0 })
}

func TestFetchChecksSizesFirst(t *testing.T) {
	s := service.New(service.Config{
		Ring: &peertest.View{},
		Datasets: func(string) (service.Dataset, bool) {
			t.Error("the dataset was called")
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

func TestConcurrentWritesOfAllCallersAreLimited(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	m := peertest.StartMember(t, "m",
		func(_ *peertest.Member, s *service.Config, _ *server.Config) { s.MaxWrites = 1 },
		peertest.Writing(func(ctx context.Context, c kv.Change) (kv.Answer, error) {
			close(begun)
			<-release
			return peertest.Written(ctx, c)
		}))
	p := peertest.StartPool(t, peer.Config{}, m)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := peertest.Write(t, p, "m"); err != nil {
			t.Error(err)
		}
	})
	<-begun
	if err := peertest.Write(t, p, "m"); kv.KindOf(err) != kv.KindOverloaded || kv.RetryAfter(err) == 0 {
		t.Errorf("got error %v, want overloaded", err)
	}
	for _, o := range peertest.PeerTo(t, p, "m").WriteMany(t.Context(), []kv.Change{{Dataset: "metrics", Key: "a"}, {Dataset: "metrics", Key: "b"}}) {
		if kv.KindOf(o.Err) != kv.KindOverloaded {
			t.Errorf("got %v of a batch, want overloaded", o.Err)
		}
	}
	if s := m.Service.Stats(); s.Writing != 1 || s.WritesRefused != 2 {
		t.Errorf("got stats %+v", s)
	}
	close(release)
	wg.Wait()
}

func TestWriteChecksSizesFirst(t *testing.T) {
	t.Parallel()
	s := service.New(service.Config{
		Ring: &peertest.View{},
		Datasets: func(string) (service.Dataset, bool) {
			t.Error("the dataset was called")
			return nil, false
		},
	})
	for name, req := range map[string]*peerv1.WriteRequest{
		"dataset":   {Dataset: strings.Repeat("d", 129), Key: "k"},
		"key":       {Dataset: "metrics", Key: strings.Repeat("k", 1025)},
		"empty key": {Dataset: "metrics"},
		"value":     {Dataset: "metrics", Key: "k", Value: make([]byte, 1<<20+1)},
		"etag":      {Dataset: "metrics", Key: "k", IfEtag: strings.Repeat("e", 257)},
		"id":        {Dataset: "metrics", Key: "k", IdempotencyId: strings.Repeat("i", 257)},
	} {
		if _, err := s.Write(context.Background(), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: error %v, want INVALID_ARGUMENT", name, err)
		}
	}
	p := peertest.StartPool(t, peer.Config{}, peertest.StartMember(t, "m"))
	_, err := peertest.PeerTo(t, p, "m").Write(context.Background(), kv.Change{Key: "k", Value: make([]byte, 1<<20+1)})
	var wrong *origin.ValueError
	if kv.KindOf(err) != kv.KindInvalidValue || !errors.As(err, &wrong) {
		t.Errorf("got error %v, want invalid value", err)
	}
}

func TestDataErrorsOfCallersWithAnOlderRelease(t *testing.T) {
	t.Parallel()
	wrong := kv.Answer{DataError: origin.SeveralRows, Fresh: time.Second}
	m := peertest.StartMember(t, "m", peertest.Serving(func(context.Context, kv.Query) (kv.Answer, error) { return wrong, nil }))
	to := peertest.PeerTo(t, peertest.StartPool(t, peer.Config{}, m), "m")
	a, err := to.Fetch(t.Context(), peertest.Get("k"))
	many := to.FetchBatch(t.Context(), []kv.Query{peertest.Get("k"), peertest.Get("l")})
	if err != nil || a.DataError != origin.SeveralRows || a.Fresh != time.Second || many[1].Answer.DataError != origin.SeveralRows {
		t.Errorf("got %+v, %v, and %+v; want the data error", a, err, many)
	}
	older := &peerv1.FetchRequest{Dataset: "metrics", Key: "k"} // without data_errors
	if _, err := m.Service.Fetch(t.Context(), older); status.Code(err) != codes.Aborted {
		t.Errorf("an older release gets %v; want ABORTED, an error that it knows", err)
	}
	resp, err := m.Service.FetchBatch(t.Context(), &peerv1.FetchBatchRequest{Requests: []*peerv1.FetchRequest{older, older}})
	if err != nil || codes.Code(resp.GetOutcomes()[1].GetError().GetCode()) != codes.Aborted {
		t.Errorf("an older release gets %v, %v; want ABORTED for each key", resp, err)
	}
}

func TestKeysBeyondTheSizeOfABatchAreFetchedAlone(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m", peertest.Serving(func(context.Context, kv.Query) (kv.Answer, error) {
		return kv.Answer{Value: make([]byte, 1<<20), Fresh: time.Second}, nil
	}))
	answered, alone := 0, 0
	qs := make([]kv.Query, 20)
	for i := range qs {
		qs[i] = peertest.Get(fmt.Sprint("k-", i))
	}
	to := peertest.PeerTo(t, peertest.StartPool(t, peer.Config{}, m), "m")
	for _, o := range to.FetchBatch(context.Background(), qs) {
		switch {
		case o.Err != nil:
			t.Error(o.Err)
		case o.Alone:
			alone++
		case len(o.Answer.Value) == 1<<20:
			answered++
		}
	}
	if answered != 4 || alone != 16 {
		t.Errorf("got %d MiB answered and %d left, want 4 and 16", answered, alone)
	}
}

func TestInvalidateChecksTheWholeListFirst(t *testing.T) {
	t.Parallel()
	s := service.New(service.Config{Invalidate: func([]kv.Invalidation) { t.Error("an invalidation was applied") }})
	good := &peerv1.Invalidation{Dataset: "metrics", Key: "k"}
	for name, list := range map[string][]*peerv1.Invalidation{
		"too many":  slices.Repeat([]*peerv1.Invalidation{good}, 1001),
		"dataset":   {good, {Dataset: strings.Repeat("d", 129), Key: "k"}},
		"key":       {good, {Dataset: "metrics", Key: strings.Repeat("k", 1025)}},
		"prefix":    {good, {Dataset: "metrics", Key: strings.Repeat("k", 1025), Prefix: true}},
		"empty key": {good, {Dataset: "metrics"}},
		"nil":       {good, nil},
	} {
		_, err := s.Invalidate(context.Background(), &peerv1.InvalidateRequest{Invalidations: list})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: error %v, want INVALID_ARGUMENT", name, err)
		}
	}
}

func TestInvalidationOfTheFutureIsReplacedByNow(t *testing.T) {
	t.Parallel()
	var got []kv.Invalidation
	s := service.New(service.Config{Invalidate: func(list []kv.Invalidation) { got = list }})
	_, err := s.Invalidate(context.Background(), &peerv1.InvalidateRequest{
		Invalidations: []*peerv1.Invalidation{{Dataset: "metrics", Key: "k", AgeNs: -1}},
	})
	if want := []kv.Invalidation{peertest.Drop("k", 0)}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, error %v", got, err)
	}
}

func TestSubscribersAreLimited(t *testing.T) {
	t.Parallel()
	_, m := peertest.StartWriter(t, "m", peer.Config{},
		func(_ *peertest.Member, s *service.Config, _ *server.Config) { s.MaxSubscribers = 1 })
	first := peertest.Subscribe(t, m, &peerv1.SubscribeRequest{Node: "one"})
	if _, err := first.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := peertest.Subscribe(t, m, &peerv1.SubscribeRequest{Node: "two"}).Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got error %v, want RESOURCE_EXHAUSTED", err)
	}
	if s := m.Service.Stats(); s.Subscribers != 1 || s.MaxSubscribers != 1 || s.SubscribersRefused != 1 {
		t.Errorf("got stats %+v", s)
	}
}

func TestSubscribeRejectsAnOverwrittenPosition(t *testing.T) {
	t.Parallel()
	writer, m := peertest.StartWriter(t, "m", peer.Config{LogSize: 2})
	for version := range int64(4) {
		writer.Publish(peertest.Drop("k", version))
	}
	began, err := peertest.Subscribe(t, m, &peerv1.SubscribeRequest{}).Recv()
	if err != nil || began.GetSequence() != 4 || began.GetEpoch() == 0 || len(began.GetInvalidations()) != 0 {
		t.Fatalf("got first response %v, error %v, want the end of the log", began, err)
	}
	for name, tc := range map[string]struct {
		req  *peerv1.SubscribeRequest
		code codes.Code
	}{
		"kept":            {&peerv1.SubscribeRequest{Epoch: began.GetEpoch(), Sequence: 2}, codes.OK},
		"no longer kept":  {&peerv1.SubscribeRequest{Epoch: began.GetEpoch(), Sequence: 1}, codes.OutOfRange},
		"not yet there":   {&peerv1.SubscribeRequest{Epoch: began.GetEpoch(), Sequence: 5}, codes.OutOfRange},
		"another epoch":   {&peerv1.SubscribeRequest{Epoch: began.GetEpoch() + 1, Sequence: 1}, codes.OK},
		"node id too big": {&peerv1.SubscribeRequest{Node: strings.Repeat("n", 257)}, codes.InvalidArgument},
	} {
		if _, err := peertest.Subscribe(t, m, tc.req).Recv(); status.Code(err) != tc.code {
			t.Errorf("%s: error %v, want %v", name, err, tc.code)
		}
	}
	if n := m.Service.Stats().SubscribersCut; n != 2 {
		t.Errorf("got counted %d, want 2", n)
	}
}

func TestBatchesOfMembersTakeMemory(t *testing.T) {
	t.Parallel()
	const size = 64 << 10
	b := budget.New(4 * size)
	began, release := make(chan struct{}, 2), make(chan struct{})
	m := peertest.StartMember(t, "m",
		func(_ *peertest.Member, s *service.Config, _ *server.Config) { s.Budget = b },
		peertest.Serving(func(_ context.Context, q kv.Query) (kv.Answer, error) {
			if q.Key == "last" {
				began <- struct{}{}
				<-release
			}
			return kv.Answer{Value: make([]byte, size), Fresh: time.Second}, nil
		}))
	request := &peerv1.FetchBatchRequest{Requests: []*peerv1.FetchRequest{{Dataset: "metrics", Key: "a"}, {Dataset: "metrics", Key: "last"}}}
	var calls sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 2 {
		calls.Go(func() {
			resp, err := m.Service.FetchBatch(ctx, request)
			if err != nil || len(resp.GetOutcomes()) != 2 {
				t.Errorf("got %v, %v; want an outcome of each key", resp, err)
			}
		})
	}
	<-began
	<-began
	const requests = 2 * 2 * 512 // what each of two keys of each batch takes beside its value
	if used, most := b.Stats()[budget.Responses].Used, b.Limit(budget.Responses); used != size+requests || used+size <= most {
		t.Errorf("got %d bytes taken by two batches with a value of %d bytes each, want those of one and %d of the requests: the limit is %d",
			used, size, requests, most)
	}
	close(release)
	calls.Wait()
	cancel() // as grpc does when the responses are sent
	peertest.Eventually(t, "the memory is returned", func() bool { return b.Stats()[budget.Responses].Used == 0 })
	if s := b.Stats()[budget.Responses]; s.Refused == 0 {
		t.Errorf("got %+v after the batches, want some refused", s)
	}
}

func TestValueBeyondTheCallersMemoryIsOmitted(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m", peertest.Serving(func(_ context.Context, q kv.Query) (kv.Answer, error) {
		return kv.Answer{Value: make([]byte, len(q.Key)), Version: 7}, nil
	}))
	query := func(size int) *peerv1.FetchRequest {
		return &peerv1.FetchRequest{Dataset: "metrics", Key: strings.Repeat("k", size)}
	}
	for _, tc := range []struct {
		size           int
		max            int64
		value, omitted int
	}{{10, 0, 10, 0}, {10, 10, 10, 0}, {10, 9, 0, 10}, {10, -1, 10, 0}} {
		req := query(tc.size)
		req.MaxBytes = tc.max
		resp, err := m.Service.Fetch(t.Context(), req)
		if err != nil || len(resp.GetValue()) != tc.value || resp.GetOmittedBytes() != int64(tc.omitted) || resp.GetVersion() != 7 {
			t.Errorf("a value of %d bytes with a limit of %d: got %v, %v", tc.size, tc.max, resp, err)
		}
	}
	for max, want := range map[int64]string{0: "10 20 30 ", 60: "10 20 30 ", 59: "10 20 alone ", 15: "10 alone alone ", 5: "alone alone alone "} {
		resp, err := m.Service.FetchBatch(t.Context(), &peerv1.FetchBatchRequest{
			Requests: []*peerv1.FetchRequest{query(10), query(20), query(30)}, MaxBytes: max,
		})
		got := ""
		for _, o := range resp.GetOutcomes() {
			if o.GetAlone() {
				got += "alone "
			} else {
				got += fmt.Sprint(len(o.GetResponse().GetValue()), " ")
			}
		}
		if err != nil || got != want {
			t.Errorf("a batch with a limit of %d: got %q, %v; want %q", max, got, err, want)
		}
	}
}

// A caller that resets its request ends the context while values are still arriving.
func TestResetBatchReturnsItsMemory(t *testing.T) {
	t.Parallel()
	b := budget.New(16 << 20)
	ctx, cancel := context.WithCancel(t.Context())
	m := peertest.StartMember(t, "m",
		func(_ *peertest.Member, s *service.Config, _ *server.Config) { s.Budget = b },
		peertest.Serving(func(context.Context, kv.Query) (kv.Answer, error) {
			cancel()
			time.Sleep(time.Millisecond) // so that what waits for the end of ctx has run
			return kv.Answer{Value: make([]byte, 200<<10), Fresh: time.Second}, nil
		}))
	request := &peerv1.FetchBatchRequest{Requests: []*peerv1.FetchRequest{{Dataset: "metrics", Key: "a"}}}
	if _, err := m.Service.FetchBatch(ctx, request); err != nil {
		t.Fatal(err)
	}
	peertest.Eventually(t, "the memory is returned", func() bool { return b.Stats()[budget.Responses].Used == 0 })
}

func TestLargeResponsesToMembersTakeMemory(t *testing.T) {
	t.Parallel()
	b := budget.New(1 << 20)
	m := peertest.StartMember(t, "m",
		func(_ *peertest.Member, s *service.Config, _ *server.Config) { s.Budget = b },
		peertest.Serving(func(context.Context, kv.Query) (kv.Answer, error) {
			return kv.Answer{Value: make([]byte, 200<<10), Fresh: time.Second}, nil
		}))
	ctx, cancel := context.WithCancel(t.Context())
	request := &peerv1.FetchRequest{Dataset: "metrics", Key: "a"}
	if _, err := m.Service.Fetch(ctx, request); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Service.Fetch(ctx, request); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v while the first response is not sent, want RESOURCE_EXHAUSTED", err)
	}
	cancel()
	peertest.Eventually(t, "the memory is returned", func() bool { return b.Stats()[budget.Responses].Used == 0 })
}

func TestPongDescribesTheMember(t *testing.T) {
	var changed []string
	s := service.New(service.Config{
		Node: "a", Ring: peer.NewPool(peer.Config{}), Record: func() []byte { return []byte("record") }, Changed: func(addr string) { changed = append(changed, addr) },
	})
	for _, test := range []struct {
		req  *peerv1.PingRequest
		want string
	}{
		{&peerv1.PingRequest{}, ""},
		{&peerv1.PingRequest{Describe: true}, "record"},
		{&peerv1.PingRequest{Changed: "10.0.0.1:1"}, ""},
	} {
		pong, err := s.Ping(t.Context(), test.req)
		if err != nil || string(pong.GetRecord()) != test.want || pong.GetNode() != "a" {
			t.Errorf("%v: got %v, %v; want the record %q", test.req, pong, err, test.want)
		}
	}
	if want := []string{"10.0.0.1:1"}; !slices.Equal(changed, want) {
		t.Errorf("got changes of %q, want %q", changed, want)
	}
}
