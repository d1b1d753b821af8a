package local

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
)

// serveRouted passes a request on a connection with TLS, accepted some time ago, and returns the context of its handler and
// the header of its response.
func serveRouted(t *testing.T, age, validFor time.Duration) (context.Context, http.Header) {
	t.Helper()
	s := New(Config{RoutedCaller: func(state *tls.ConnectionState, addr net.Addr) caller.Caller {
		return caller.Caller{Kind: caller.Client, ID: state.ServerName, Addr: addr.String()}
	}}, NewCatalog())
	t.Cleanup(func() { _ = s.Shutdown(t.Context()) })
	var got context.Context
	handler := s.identified(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		got = r.Context()
		if err := got.Err(); err != nil && validFor > 0 {
			t.Errorf("the request ends at once: %v", err)
		}
	}))
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr = "10.0.0.1:4711"
	r.TLS = &tls.ConnectionState{
		ServerName: "envoy", PeerCertificates: []*x509.Certificate{{NotAfter: time.Now().Add(validFor)}},
	}
	r = r.WithContext(context.WithValue(r.Context(), acceptedKey{}, time.Now().Add(-age)))
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return got, w.Header()
}

func TestRoutedConnectionsEndBeforeTheirCertificateExpires(t *testing.T) {
	for _, test := range []struct {
		name          string
		age, validFor time.Duration
		closes        bool
	}{
		{"new", 0, 24 * time.Hour, false},
		{"after an hour", listen.MaxLife + time.Second, 24 * time.Hour, true},
		{"long before the certificate expires", time.Minute, 10 * time.Minute, false},
		{"shortly before the certificate expires", 10 * time.Minute, 10 * time.Second, true},
	} {
		ctx, header := serveRouted(t, test.age, test.validFor)
		if got := header.Get("Connection") == "close"; got != test.closes {
			t.Errorf("%s: got Connection: %q, want close: %v", test.name, header.Get("Connection"), test.closes)
		}
		until, ok := ctx.Deadline()
		if latest := time.Now().Add(test.validFor); !ok || until.After(latest) {
			t.Errorf("%s: the request may run until %v, want an end at %v or earlier", test.name, until, latest)
		}
	}
}

func TestRoutedRequestsKnowTheirCaller(t *testing.T) {
	ctx, _ := serveRouted(t, 0, time.Hour)
	if got, want := caller.From(ctx), (caller.Caller{Kind: caller.Client, ID: "envoy", Addr: "10.0.0.1:4711"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// The caller of a connection is known before its first request, which may be answered without a handler.
func TestRoutedHTTP2ConnectionsKnowTheirCaller(t *testing.T) {
	callers := make(chan string, 9)
	s := New(Config{RoutedCaller: func(state *tls.ConnectionState, addr net.Addr) caller.Caller {
		callers <- state.ServerName + " " + state.NegotiatedProtocol
		return caller.Caller{Kind: caller.Client, ID: state.ServerName, Addr: addr.String()}
	}}, NewCatalog())
	backend := httptest.NewUnstartedServer(nil) // has a certificate
	backend.StartTLS()
	defer backend.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		config := &tls.Config{Certificates: backend.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}
		_ = s.ServeRouted(ln, func(c net.Conn) (net.Conn, error) {
			secure := tls.Server(c, config)
			return secure, secure.Handshake()
		})
	}()
	defer func() { _ = s.Shutdown(t.Context()) }()
	roots := x509.NewCertPool()
	roots.AddCert(backend.Certificate())
	c, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "example.com", NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, want := <-callers, "example.com h2"; got != want {
		t.Errorf("got the caller %q, want %q", got, want)
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
