package server_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
	"github.com/ringside-cache/ringside/sidecar/peer/server"
	"github.com/ringside-cache/ringside/sidecar/peer/service"
	"github.com/ringside-cache/ringside/sidecar/peer/wire"
)

func TestConnectionAboveTheLimitIsClosed(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m", func(_ *peertest.Member, _ *service.Config, s *server.Config) { s.MaxConns = 1 })
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
	if kv.KindOf(err) != kv.KindOverloaded || !strings.Contains(err.Error(), "larger than this method allows") {
		t.Errorf("got error %v, want the limit of a fetch", err)
	}
	_, err = to.Fetch(context.Background(), peertest.Get(string(make([]byte, 2000))))
	if kv.KindOf(err) != kv.KindInvalidKey {
		t.Errorf("got error %v, want invalid key", err)
	}
}

// A message within the limit of its method can have so many elements that they need 50 times its size.
func TestServerRejectsManyElements(t *testing.T) {
	t.Parallel()
	m := peertest.StartMember(t, "m")
	conn, err := grpc.NewClient(m.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			if err == nil {
				_, err = c.Write([]byte(wire.Preface))
			}
			return c, err
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = peerv1.NewPeerClient(conn).FetchBatch(t.Context(), &peerv1.FetchBatchRequest{Requests: slices.Repeat([]*peerv1.FetchRequest{{}}, 10_000)})
	if err == nil || !strings.Contains(err.Error(), "too many elements") {
		t.Errorf("got error %v, want that it has too many elements", err)
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
	m := peertest.StartMember(t, "m", func(_ *peertest.Member, _ *service.Config, s *server.Config) { s.Direct = direct })
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
