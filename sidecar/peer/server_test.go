package peer_test

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/peer"
)

// serveRaw serves an implementation of the protocol that is not ours.
func serveRaw(t *testing.T, service peerv1.PeerServer) *member {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &member{server: peer.NewServer(peer.ServerConfig{}), served: make(chan error, 1)}
	m.Member = ring.Member{ID: "m", Addr: listener.Addr().String()}
	peerv1.RegisterPeerServer(m.server, service)
	go func() { m.served <- m.server.Serve(listener) }()
	t.Cleanup(func() { m.kill(t) })
	return m
}

func TestFetchesInFlightAreBoundedForAllCallers(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	m := startMember(t, "m",
		func(_ *member, s *peer.ServiceConfig, _ *peer.ServerConfig) { s.MaxInFlight = 1 },
		serving(func(ctx context.Context, q cache.Query) (cache.Answer, error) {
			close(begun)
			<-release
			return held(ctx, q)
		}))
	one, other := startPool(t, peer.Config{}, m), startPool(t, peer.Config{}, m)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := fetch(t, one, "m"); err != nil {
			t.Error(err)
		}
	})
	<-begun
	err := fetch(t, other, "m")
	if cache.KindOf(err) != cache.KindOverloaded || cache.RetryAfter(err) == 0 {
		t.Errorf("error %v, want overloaded", err)
	}
	if err := other.Ping(context.Background(), m.Member); err != nil {
		t.Errorf("a member at its bound must still answer pings: %v", err)
	}
	if s := m.service.Stats(); s.InFlight != 1 || s.Refused != 1 || s.MaxInFlight != 1 {
		t.Errorf("stats %+v", s)
	}
	close(release)
	wg.Wait()
	eventually(t, "the fetch has ended", func() bool { return m.service.Stats().InFlight == 0 })
}

func TestConnectionBeyondTheBoundIsClosedAtOnce(t *testing.T) {
	t.Parallel()
	m := startMember(t, "m", func(_ *member, _ *peer.ServiceConfig, s *peer.ServerConfig) { s.MaxConns = 1 })
	p := startPool(t, peer.Config{}, m)
	if err := fetch(t, p, "m"); err != nil {
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
	if s := m.server.Stats(); s.Conns != 1 || s.MaxConns != 1 || s.ConnsRefused != 1 {
		t.Errorf("stats %+v", s)
	}
	if err := fetch(t, p, "m"); err != nil {
		t.Errorf("the connection within the bound: %v", err)
	}
	p.Close()
	eventually(t, "the place is free again", func() bool { return m.server.Stats().Conns == 0 })
}

func TestServerOutlivesAWantOfFileDescriptors(t *testing.T) {
	t.Parallel()
	m := startMember(t, "m")
	m.listener.failures.Store(3)
	for range 3 { // the first is accepted by the Accept under way
		if err := fetch(t, startPool(t, peer.Config{}, m), "m"); err != nil {
			t.Error(err)
		}
	}
	if left := m.listener.failures.Load(); left >= 0 {
		t.Errorf("%d failures to accept did not come", left)
	}
}

func TestStopWaitsForCallsUnderWay(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	m := startMember(t, "m", serving(func(ctx context.Context, q cache.Query) (cache.Answer, error) {
		close(begun)
		<-release
		return held(ctx, q)
	}))
	p := startPool(t, peer.Config{}, m)
	result := make(chan error, 1)
	go func() {
		err := fetch(t, p, "m")
		result <- err
	}()
	<-begun
	stopped := make(chan struct{})
	go func() {
		m.server.Stop(context.Background())
		close(stopped)
	}()
	eventually(t, "the listener is closed", func() bool {
		c, err := net.Dial("tcp", m.Addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	select {
	case <-stopped:
		t.Error("stopped while a call was under way")
	default:
	}
	close(release)
	if err := <-result; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	<-stopped
}

func TestStopHasAHardEnd(t *testing.T) {
	t.Parallel()
	for name, hang := range map[string]func(t *testing.T, m *member){
		"a call that never ends": func(t *testing.T, m *member) {
			begun := make(chan struct{})
			m.dataset.serve = func(ctx context.Context, q cache.Query) (cache.Answer, error) {
				close(begun)
				return block(ctx, q)
			}
			p := startPool(t, peer.Config{AttemptTimeout: time.Hour}, m)
			go func() {
				err := fetch(t, p, "m")
				if !errors.Is(err, cache.ErrUnreachable) {
					t.Errorf("error %v, want unreachable", err)
				}
			}()
			<-begun
		},
		"a handler that does not heed its context": func(t *testing.T, m *member) {
			begun, release := make(chan struct{}), make(chan struct{})
			t.Cleanup(func() { close(release) })
			m.dataset.serve = func(context.Context, cache.Query) (cache.Answer, error) {
				close(begun)
				<-release
				return cache.Answer{}, nil
			}
			p := startPool(t, peer.Config{AttemptTimeout: time.Hour}, m)
			to := peerTo(t, p, "m")
			go func() { _, _ = to.Fetch(context.Background(), get("k")) }()
			<-begun
		},
		"a handshake that never ends": func(t *testing.T, m *member) {
			c, err := net.Dial("tcp", m.Addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			eventually(t, "it is accepted", func() bool { return m.server.Stats().Conns == 1 })
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := startMember(t, "m")
			hang(t, m)
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			stopped := make(chan struct{})
			go func() {
				m.server.Stop(ctx)
				close(stopped)
			}()
			select {
			case <-stopped:
			case <-time.After(3 * time.Second): // below handshakeTimeout
				t.Error("stop waits for what never ends")
			}
			if c, err := net.Dial("tcp", m.Addr); err == nil {
				c.Close()
				t.Error("the listener is open after stop")
			}
		})
	}
}

func TestServerRefusesHugeRequests(t *testing.T) {
	t.Parallel()
	m := startMember(t, "m", serving(func(context.Context, cache.Query) (cache.Answer, error) {
		t.Error("served")
		return cache.Answer{}, nil
	}))
	to := peerTo(t, startPool(t, peer.Config{}, m), "m")
	_, err := to.Fetch(context.Background(), get(string(make([]byte, 2<<20))))
	if cache.KindOf(err) != cache.KindOverloaded {
		t.Errorf("error %v, want that of a message beyond the bound", err)
	}
	if n := m.service.Stats().Fetches; n != 0 {
		t.Error("the request was read as a whole")
	}
	_, err = to.Fetch(context.Background(), get(string(make([]byte, 1<<20)))) // no larger than a write
	if cache.KindOf(err) != cache.KindInvalidKey {
		t.Errorf("error %v, want that of the key", err)
	}
}

func TestGarbageOnThePort(t *testing.T) {
	t.Parallel()
	m := startMember(t, "m")
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
	if err := fetch(t, startPool(t, peer.Config{}, m), "m"); err != nil {
		t.Errorf("after the garbage: %v", err)
	}
}

// TestMemberThatLeftLeavesNoGoroutine is not parallel: it counts.
func TestMemberThatLeftLeavesNoGoroutine(t *testing.T) {
	silent := blackHole(t, "silent")
	p := startPool(t, peer.Config{AttemptTimeout: 300 * time.Millisecond, SilenceAfter: 20 * time.Millisecond}, silent)
	before := runtime.NumGoroutine()
	if err := fetch(t, p, "silent"); !errors.Is(err, cache.ErrUnreachable) {
		t.Errorf("error %v, want unreachable", err)
	}
	if s := p.Stats(); s.BreakersOpen != 1 {
		t.Fatalf("stats %+v, want an open breaker that is being mended", s)
	}
	p.SetRing(nil, nil)
	eventually(t, "nobody pings the member any more", func() bool { return runtime.NumGoroutine() <= before })
}

// TestCloseLeavesNoGoroutine is not parallel: it counts.
func TestCloseLeavesNoGoroutine(t *testing.T) {
	m := startMember(t, "m", serving(block))
	silent := blackHole(t, "silent")
	first := startPool(t, peer.Config{}, m)
	if err := first.Ping(context.Background(), m.Member); err != nil { // its goroutines are all there when it answers
		t.Fatal(err)
	}
	first.Close()
	eventually(t, "the first caller is gone", func() bool { return m.server.Stats().Conns == 0 })
	before := runtime.NumGoroutine()
	p := startPool(t, peer.Config{AttemptTimeout: time.Hour}, m, silent)
	slow, hole := peerTo(t, p, "m"), peerTo(t, p, "silent")
	var wg sync.WaitGroup
	for _, to := range []cache.Peer{slow, slow, hole, hole} {
		wg.Go(func() {
			if _, err := to.Fetch(context.Background(), get("k")); !errors.Is(err, cache.ErrUnreachable) {
				t.Errorf("error %v, want unreachable", err)
			}
		})
	}
	eventually(t, "the silent member is found, and being tried again", func() bool { return p.Stats().BreakersOpen == 1 })
	p.Close()
	wg.Wait()
	if _, err := slow.Fetch(context.Background(), get("k")); !errors.Is(err, cache.ErrUnreachable) {
		t.Errorf("fetch after close: %v, want unreachable", err)
	}
	p.SetRing(newRing(t, ring.Member{ID: "late", Addr: "127.0.0.1:1"}), nil)
	p.Close()
	eventually(t, "all goroutines have ended", func() bool {
		runtime.GC()
		return m.server.Stats().Conns == 0 && runtime.NumGoroutine() <= before
	})
}

// A member's connection and that of a client that routes by the ring come to the same port.
func TestConnectionsOfOthersAreServedDirectly(t *testing.T) {
	t.Parallel()
	heard := make(chan string, 1)
	direct := func(ln net.Listener) error {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		said := make([]byte, 3)
		_, err = io.ReadFull(c, said)
		heard <- string(said)
		return errors.Join(err, c.Close(), ln.Close())
	}
	m := startMember(t, "m", func(_ *member, _ *peer.ServiceConfig, s *peer.ServerConfig) { s.Direct = direct })
	p := startPool(t, peer.Config{}, m)
	if err := fetch(t, p, "m"); err != nil {
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
	if said := <-heard; said != "GET" {
		t.Errorf("the direct server heard %q", said)
	}
	if err := fetch(t, p, "m"); err != nil {
		t.Errorf("after the direct server has ended: %v", err)
	}
}
