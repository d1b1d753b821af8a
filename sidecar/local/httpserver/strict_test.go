package httpserver_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

// secureRouted adds a routed listener with TLS to s, and returns a function that connects to it with the given protocols.
func secureRouted(t *testing.T, s *localtest.Server) func(protocols ...string) *localtest.Conn {
	t.Helper()
	authority := httptest.NewUnstartedServer(nil) // it has a certificate for 127.0.0.1
	authority.StartTLS()
	t.Cleanup(authority.Close)
	config := &tls.Config{Certificates: authority.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}
	address := s.Listen(t, "tcp", func(ln net.Listener) error { return s.ServeRouted(ln, localtest.Handshake(config)) })
	return func(protocols ...string) *localtest.Conn {
		c := localtest.Dial(t, "tcp", address)
		secure := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true, NextProtos: protocols})
		if err := secure.Handshake(); err != nil {
			t.Fatal(err)
		}
		c.Conn = secure
		return c
	}
}

// Behind each request there is another one, which must not get a response.
func TestStrictHTTP(t *testing.T) {
	s := localtest.Start(t, local.Config{})
	routed := s.Listen(t, "tcp", func(ln net.Listener) error { return s.ServeRouted(ln, nil) })
	secure := secureRouted(t, s)
	for name, dial := range map[string]func() *localtest.Conn{
		"http":       func() *localtest.Conn { return localtest.Dial(t, "tcp", s.HTTP) },
		"unix":       func() *localtest.Conn { return localtest.Dial(t, "unix", s.Unix) },
		"routed":     func() *localtest.Conn { return localtest.Dial(t, "tcp", routed) },
		"routed TLS": func() *localtest.Conn { return secure("http/1.1") },
	} {
		for _, c := range localtest.StrictCases {
			conn := dial()
			conn.Send(c.Request + localtest.Get("/v1/blobs/x/y", "Connection: close"))
			if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			resp, body := conn.Response("GET")
			if resp.StatusCode != c.Status {
				t.Errorf("%s: %s: got %d %.200s, want %d", name, c.Name, resp.StatusCode, body, c.Status)
			}
			rest, err := io.ReadAll(conn.Reader)
			if errors.Is(err, os.ErrDeadlineExceeded) || strings.Contains(string(rest), "HTTP/1.1") {
				t.Errorf("%s: %s: got %q, %v after the response, want the end", name, c.Name, rest, err)
			}
		}
	}
}
