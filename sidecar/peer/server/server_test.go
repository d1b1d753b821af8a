package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/origin"
	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
	"github.com/ringside-cache/ringside/sidecar/peer/server"
)

func TestConcurrentFetchesOfAllCallersAreLimited(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	m := peertest.StartMember(t, "m",
		func(_ *peertest.Member, s *server.ServiceConfig, _ *server.Config) { s.MaxInFlight = 1 },
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
	if err := other.Ping(context.Background(), m.Member); err != nil {
		t.Errorf("ping of a member at its limit: got error %v", err)
	}
	if s := m.Service.Stats(); s.InFlight != 1 || s.Refused != 1 || s.MaxInFlight != 1 {
		t.Errorf("got stats %+v", s)
	}
	close(release)
	wg.Wait()
	peertest.Eventually(t, "the fetch has ended", func() bool { return m.Service.Stats().InFlight == 0 })
}

func TestConnectionAboveTheLimitIsClosed(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m", func(_ *peertest.Member, _ *server.ServiceConfig, s *server.Config) { s.MaxConns = 1 })
	p := peertest.StartPool(t, peer.Config{}, m)
	if err := peertest.Fetch(t, p, "m"); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", m.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection was served")
	}
	if s := m.Server.Stats(); s.Conns != 1 || s.MaxConns != 1 || s.ConnsRefused != 1 {
		t.Errorf("got stats %+v", s)
	}
	if err := peertest.Fetch(t, p, "m"); err != nil {
		t.Errorf("the connection within the limit: got error %v", err)
	}
	p.Close()
	peertest.Eventually(t, "the place is free again", func() bool { return m.Server.Stats().Conns == 0 })
}

func TestStopWaitsForRunningCalls(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	m := peertest.StartMember(t, "m", peertest.Serving(func(ctx context.Context, q kv.Query) (kv.Answer, error) {
		close(begun)
		<-release
		return peertest.Held(ctx, q)
	}))
	p := peertest.StartPool(t, peer.Config{}, m)
	result := make(chan error, 1)
	go func() {
		err := peertest.Fetch(t, p, "m")
		result <- err
	}()
	<-begun
	stopped := make(chan struct{})
	go func() {
		m.Server.Stop(context.Background())
		close(stopped)
	}()
	peertest.Eventually(t, "the listener is closed", func() bool {
		c, err := net.Dial("tcp", m.Addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	select {
	case <-stopped:
		t.Error("Stop returned while a call was running")
	default:
	}
	close(release)
	if err := <-result; err != nil {
		t.Errorf("the running call: got error %v", err)
	}
	<-stopped
}

func TestStopEndsWithItsContext(t *testing.T) {
	t.Parallel()
	for name, hang := range map[string]func(t *testing.T, m *peertest.Member){
		"a call that never ends": func(t *testing.T, m *peertest.Member) {
			begun := make(chan struct{})
			m.Dataset.ServeFunc = func(ctx context.Context, q kv.Query) (kv.Answer, error) {
				close(begun)
				return peertest.Block(ctx, q)
			}
			p := peertest.StartPool(t, peer.Config{AttemptTimeout: time.Hour}, m)
			go func() {
				err := peertest.Fetch(t, p, "m")
				if !errors.Is(err, kv.ErrUnreachable) {
					t.Errorf("got error %v, want unreachable", err)
				}
			}()
			<-begun
		},
		"a handler that does not heed its context": func(t *testing.T, m *peertest.Member) {
			begun, release := make(chan struct{}), make(chan struct{})
			t.Cleanup(func() { close(release) })
			m.Dataset.ServeFunc = func(context.Context, kv.Query) (kv.Answer, error) {
				close(begun)
				<-release
				return kv.Answer{}, nil
			}
			p := peertest.StartPool(t, peer.Config{AttemptTimeout: time.Hour}, m)
			to := peertest.PeerTo(t, p, "m")
			go func() { _, _ = to.Fetch(context.Background(), peertest.Get("k")) }()
			<-begun
		},
		"a handshake that never ends": func(t *testing.T, m *peertest.Member) {
			c, err := net.Dial("tcp", m.Addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			peertest.Eventually(t, "it is accepted", func() bool { return m.Server.Stats().Conns == 1 })
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := peertest.StartMember(t, "m")
			hang(t, m)
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			stopped := make(chan struct{})
			go func() {
				m.Server.Stop(ctx)
				close(stopped)
			}()
			select {
			case <-stopped:
			case <-time.After(3 * time.Second): // below handshakeTimeout
				t.Error("Stop waits longer than its context")
			}
			if c, err := net.Dial("tcp", m.Addr); err == nil {
				c.Close()
				t.Error("the listener is open after stop")
			}
		})
	}
}

func TestServerRejectsHugeRequests(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m", peertest.Serving(func(context.Context, kv.Query) (kv.Answer, error) {
		t.Error("the request was served")
		return kv.Answer{}, nil
	}))
	to := peertest.PeerTo(t, peertest.StartPool(t, peer.Config{}, m), "m")
	_, err := to.Fetch(context.Background(), peertest.Get(string(make([]byte, 2<<20))))
	if kv.KindOf(err) != kv.KindOverloaded {
		t.Errorf("got error %v, want overloaded, for a message above the limit", err)
	}
	_, err = to.Fetch(context.Background(), peertest.Get(string(make([]byte, 1<<20)))) // no larger than a write
	if kv.KindOf(err) != kv.KindInvalidKey {
		t.Errorf("got error %v, want invalid key", err)
	}
}

func TestServerSurvivesGarbage(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m")
	for _, garbage := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
	} {
		c, err := net.Dial("tcp", m.Addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte(garbage))
		if err := c.(*net.TCPConn).CloseWrite(); err == nil {
			_, _ = io.Copy(io.Discard, c)
		}
		c.Close()
	}
	if err := peertest.Fetch(t, peertest.StartPool(t, peer.Config{}, m), "m"); err != nil {
		t.Errorf("after the garbage: %v", err)
	}
}

// A member's connection and that of a client that routes by the ring come to the same port.
func TestConnectionsWithoutPrefaceAreServedDirectly(t *testing.T) {
	t.Parallel()
	received := make(chan string, 1)
	direct := func(ln net.Listener) error {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		said := make([]byte, 3)
		_, err = io.ReadFull(c, said)
		received <- string(said)
		return errors.Join(err, c.Close(), ln.Close())
	}
	m := peertest.StartMember(t, "m", func(_ *peertest.Member, _ *server.ServiceConfig, s *server.Config) { s.Direct = direct })
	p := peertest.StartPool(t, peer.Config{}, m)
	if err := peertest.Fetch(t, p, "m"); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", m.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("GET / HTTP/1.1\r\n")); err != nil {
		t.Fatal(err)
	}
	if said := <-received; said != "GET" {
		t.Errorf("the direct server got %q, want GET", said)
	}
	if err := peertest.Fetch(t, p, "m"); err != nil {
		t.Errorf("after the direct server has ended: %v", err)
	}
}

func TestFetchChecksSizesFirst(t *testing.T) {
	s := server.NewService(server.ServiceConfig{
		Ring: &peertest.View{},
		Datasets: func(string) (server.Dataset, bool) {
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
		func(_ *peertest.Member, s *server.ServiceConfig, _ *server.Config) { s.MaxWrites = 1 },
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
	if s := m.Service.Stats(); s.Writing != 1 || s.WritesRefused != 1 {
		t.Errorf("got stats %+v", s)
	}
	close(release)
	wg.Wait()
}

func TestWriteChecksSizesFirst(t *testing.T) {
	t.Parallel()
	s := server.NewService(server.ServiceConfig{
		Ring: &peertest.View{},
		Datasets: func(string) (server.Dataset, bool) {
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
	if answered != 5 || alone != 15 {
		t.Errorf("got %d MiB answered and %d left, want 5 and 15", answered, alone)
	}
}

func TestInvalidateChecksTheWholeListFirst(t *testing.T) {
	t.Parallel()
	s := server.NewService(server.ServiceConfig{Invalidate: func([]kv.Invalidation) { t.Error("an invalidation was applied") }})
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
	s := server.NewService(server.ServiceConfig{Invalidate: func(list []kv.Invalidation) { got = list }})
	_, err := s.Invalidate(context.Background(), &peerv1.InvalidateRequest{
		Invalidations: []*peerv1.Invalidation{{Dataset: "metrics", Key: "k", Version: -1, AgeNs: -1}},
	})
	if want := []kv.Invalidation{peertest.Drop("k", 0)}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, error %v", got, err)
	}
}

func TestSubscribersAreLimited(t *testing.T) {
	t.Parallel()
	_, m := peertest.StartWriter(t, "m", peer.Config{},
		func(_ *peertest.Member, s *server.ServiceConfig, _ *server.Config) { s.MaxSubscribers = 1 })
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
