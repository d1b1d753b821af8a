package sidecar

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/servers"
)

// Every listener of a sidecar is tested, so that a new one cannot be without a limit.
func TestEveryListenerRefusesConnectionsOverItsLimit(t *testing.T) {
	c := load(t, newFile(t, ""))
	c.Listen.Peer, c.Listen.XDS, c.Listen.Unix = "127.0.0.1:0", "127.0.0.1:0", t.TempDir()+"/s"
	r := begin(t, c, func(r *run) { r.limits = func(int) servers.Limits { return servers.Limits{Files: 64} } })
	if n := len(r.parts.listeners.All()); n != 7 {
		t.Fatalf("got %d listeners, want all 7 of the configuration", n)
	}
	for _, l := range r.parts.listeners.All() {
		t.Run(l.Name, func(t *testing.T) {
			// The server may not have seen the end of the connections of the subtests before.
			waitFor(t, func() bool { return l.Conns.Open.Load() == 0 })
			var open []net.Conn
			for range l.MaxConns {
				open = append(open, dial(t, l.Addr()))
			}
			open = append(open, dial(t, l.Addr()))
			wantOneClosed(t, open)
			if n := l.Conns.Refused.Load() + l.Conns.Evicted.Load(); l.ForOperators() && n != 1 {
				t.Errorf("%d refused or evicted connections counted, want 1", n)
			}
			for _, other := range []struct{ name, addr, path string }{
				{"http", r.at.HTTP, row}, {"metrics", r.at.Metrics, "/readyz"}, {"admin", r.at.Admin, "/api/state"},
			} {
				if other.name != l.Name {
					wantGet(t, other.addr, other.path, 200, "")
				}
			}
			for _, conn := range open {
				conn.Close()
			}
			switch l.Name {
			case "metrics": // a place becomes free when the server sees the end of a connection
				waitFor(t, func() bool { status, _ := get(r.at.Metrics, "/readyz"); return status == 200 })
			case "http":
				waitFor(t, func() bool { status, _ := get(r.at.HTTP, row); return status == 200 })
			}
		})
	}
}

func dial(t *testing.T, addr net.Addr) net.Conn {
	t.Helper()
	conn, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// wantOneClosed fails unless the server closes one of the connections and no other: the last one is refused, or takes the
// place of another.
func wantOneClosed(t *testing.T, conns []net.Conn) {
	t.Helper()
	closed := map[int]bool{}
	look := func() {
		for i, c := range conns {
			if err := c.SetReadDeadline(time.Now().Add(5 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, c); !isTimeout(err) {
				closed[i] = true
			}
		}
	}
	for deadline := time.Now().Add(3 * time.Second); len(closed) == 0 && time.Now().Before(deadline); { // later, all are closed
		look()
	}
	look()
	if len(closed) != 1 {
		t.Errorf("%d of %d connections were closed, want 1", len(closed), len(conns))
	}
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}
