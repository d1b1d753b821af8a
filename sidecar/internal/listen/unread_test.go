package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"path/filepath"
	"testing"
)

// dialed returns the two ends of a connection of the kernel.
func dialed(t *testing.T, network string) (server, client net.Conn) {
	t.Helper()
	address := map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "s")}[network]
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = server.Close(), client.Close() })
	return server, client
}

func TestUnread(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		server, client := dialed(t, network)
		check := func(when string, want bool) {
			t.Helper()
			if plain, secure := unread(server), unread(tls.Server(server, nil)); plain != want || secure != want {
				t.Errorf("%s, %s: unread: %v, and %v with TLS; want %v", network, when, plain, secure, want)
			}
		}
		check("nothing sent", false)
		if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		check("a byte sent", true)
		if _, err := server.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		check("the byte read", false)
		_ = client.Close()
		check("the client gone", false)
	}
	if inMemory, _ := pipe(t); unread(inMemory) {
		t.Error("a connection in memory has unread bytes")
	}
}

// unserved is a connection that waits for a request, and whose goroutine has not run since one arrived.
type unserved struct {
	net.Conn
	closed bool
}

func (u *unserved) NetConn() net.Conn { return u.Conn }

func (u *unserved) CloseWaiting() { u.closed = true }

func TestShutdownKeepsConnectionsWhoseRequestHasArrived(t *testing.T) {
	var all Conns[*unserved]
	var conns [2]*unserved
	for i := range conns {
		server, client := dialed(t, "tcp")
		conns[i] = &unserved{Conn: server}
		all.Add(conns[i])
		if i == 1 {
			if _, err := client.Write([]byte("GET")); err != nil {
				t.Fatal(err)
			}
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := all.Shutdown(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v, want that connections are left", err)
	}
	if !conns[0].closed || conns[1].closed {
		t.Errorf("closed: the idle connection %v, the one with a request %v; want true, false", conns[0].closed, conns[1].closed)
	}
}
