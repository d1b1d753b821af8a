package local

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
)

// The caller of a connection is known before its first request, which may be answered without a handler.
func TestRoutedConnectionsKnowTheirCaller(t *testing.T) {
	callers := make(chan string, 9)
	s := New(Config{RoutedCaller: func(state *tls.ConnectionState, addr net.Addr) caller.Caller {
		if state == nil {
			state = &tls.ConnectionState{ServerName: "plain"}
		}
		callers <- state.ServerName + " " + state.NegotiatedProtocol
		return caller.Caller{Kind: caller.Client, ID: state.ServerName, Addr: addr.String()}
	}}, NewCatalog())
	backend := httptest.NewUnstartedServer(nil) // has a certificate
	backend.StartTLS()
	defer backend.Close()
	config := &tls.Config{Certificates: backend.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}
	serve := func(handshake func(net.Conn) (net.Conn, error)) string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = s.ServeRouted(ln, handshake) }()
		return ln.Addr().String()
	}
	defer func() { _ = s.Shutdown(t.Context()) }()
	address := serve(func(c net.Conn) (net.Conn, error) {
		secure := tls.Server(c, config)
		return secure, secure.Handshake()
	})
	roots := x509.NewCertPool()
	roots.AddCert(backend.Certificate())
	for want, protocols := range map[string][]string{
		"example.com h2": {"h2"}, "example.com http/1.1": {"http/1.1"}, "example.com ": nil,
	} {
		c, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots, ServerName: "example.com", NextProtos: protocols})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got := <-callers; got != want {
			t.Errorf("got the caller %q, want %q", got, want)
		}
	}
	plain, err := net.Dial("tcp", serve(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if _, err := plain.Write([]byte("GET / HTTP/1.1\r\n")); err != nil {
		t.Fatal(err)
	}
	if got := <-callers; got != "plain " {
		t.Errorf("got the caller %q without TLS, want none", got)
	}
}

// pipes is a listener of net.Pipe.
type pipes struct {
	conns chan net.Conn
	close func()
}

func newPipes() pipes {
	conns := make(chan net.Conn)
	return pipes{conns, sync.OnceFunc(func() { close(conns) })}
}

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error {
	p.close()
	return nil
}

func (pipes) Addr() net.Addr { return &net.TCPAddr{} }

// 6000 clients of routed connections that begin a handshake and send no more. Each takes a handshake while it lasts, and its
// place until then.
func TestRoutedHandshakesThatNeverEndAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const attackers, limit = 6000, 64
		var running, most atomic.Int64
		s := New(Config{}, NewCatalog())
		ln := newPipes()
		served := make(chan error, 1)
		go func() {
			served <- s.ServeRouted(ln, func(c net.Conn) (net.Conn, error) {
				most.Store(max(most.Load(), running.Add(1)))
				defer running.Add(-1)
				_, err := c.Read(make([]byte, 1))
				return c, err
			})
		}()
		var conns []net.Conn
		for range attackers {
			here, there := net.Pipe()
			ln.conns <- here
			conns = append(conns, there)
		}
		synctest.Wait()
		if n := running.Load(); n != limit {
			t.Errorf("%d handshakes are running, want %d", n, limit)
		}
		time.Sleep(2 * listen.HandshakeTimeout)
		for _, c := range conns {
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Fatalf("got %v, want a closed connection", err)
			}
		}
		open, timedOut := s.Stats().Routed.Conns.Open.Load(), s.handshakes.TimedOut.Load()
		if open != 0 || timedOut != attackers || most.Load() != limit {
			t.Errorf("%d connections are open, %d timed out, %d handshakes ran at once; want 0, %d and %d",
				open, timedOut, most.Load(), attackers, limit)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}
