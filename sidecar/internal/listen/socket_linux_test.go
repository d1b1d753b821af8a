package listen

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// pair returns both ends of a connection of a Listener.
func pair(t *testing.T, network, address string) (accepted, client net.Conn) {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	l := New(ln, Config{MaxConns: 1})
	t.Cleanup(func() { _ = l.Close() })
	if client, err = net.Dial(network, ln.Addr().String()); err == nil {
		accepted, err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = accepted.Close(), client.Close() })
	return accepted, client
}

func TestDetachedSocketNeverWaits(t *testing.T) {
	for network, address := range map[string]string{"tcp": "127.0.0.1:0", "unix": t.TempDir() + "/s"} {
		t.Run(network, func(t *testing.T) {
			c, client := pair(t, network, address)
			s, ok := Detach(c)
			if !ok {
				t.Fatal("not detached")
			}
			defer s.Release()
			buffer := make([]byte, 10)
			if _, err := c.Read(buffer); !errors.Is(err, ErrWouldBlock) {
				t.Errorf("read: %v", err)
			}
			all, written := make([]byte, 8<<20), 0
			n, err := c.Write(all)
			if written = n; !errors.Is(err, ErrWouldBlock) || n == 0 {
				t.Errorf("wrote %d bytes, %v", n, err)
			}
			if _, err := io.ReadFull(client, all[:written]); err != nil {
				t.Error(err)
			}
			if _, err := io.WriteString(client, "hello"); err != nil {
				t.Error(err)
			}
			if n, err := c.Read(buffer); string(buffer[:n]) != "hello" || err != nil {
				t.Errorf("read %q, %v", buffer[:n], err)
			}
			for by, late := range map[time.Time]bool{{}: false, time.Now(): true, time.Now().Add(time.Hour): false} {
				if err := c.SetReadDeadline(by); err != nil || s.Late(time.Now().Add(time.Second)) != late {
					t.Errorf("deadline %v: late is %t, want %t; %v", by, !late, late, err)
				}
			}

			if err := Attach(c, s); err != nil {
				t.Fatal(err)
			}
			if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
				t.Error(err)
			}
			var timeout net.Error
			if _, err := c.Read(buffer); !errors.As(err, &timeout) || !timeout.Timeout() { // it waits again
				t.Errorf("read: %v", err)
			}
			if _, err := io.WriteString(c, "bye"); err != nil {
				t.Error(err)
			}
			if n, err := client.Read(buffer); string(buffer[:n]) != "bye" || err != nil {
				t.Errorf("read %q, %v", buffer[:n], err)
			}
		})
	}
}

// A listener may close a connection at any time, also while its socket changes hands.
func TestClosedConnectionEndsWhereverItsSocketIs(t *testing.T) {
	for name, test := range map[string]func(t *testing.T, c net.Conn){
		"closed while it was detached": func(t *testing.T, c net.Conn) {
			c.(*conn).closed.Store(true) // by Close, which then closes the socket that it has found before
			if s, ok := Detach(c); ok {
				t.Cleanup(s.Release)
			}
		},
		"closed after it was detached": func(t *testing.T, c net.Conn) {
			if s, ok := Detach(c); ok {
				t.Cleanup(s.Release)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		},
		"closed while it was attached": func(t *testing.T, c net.Conn) {
			s, ok := Detach(c)
			if !ok {
				t.Fatal("not detached")
			}
			c.(*conn).closed.Store(true)
			if err := Attach(c, s); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, client := pair(t, "tcp", "127.0.0.1:0")
			test(t, c)
			if err := client.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("%v, want the end", err)
			}
		})
	}
}

func TestConnectionWithoutASocketIsNotDetached(t *testing.T) {
	one, other := net.Pipe()
	t.Cleanup(func() { _, _ = one.Close(), other.Close() })
	l := New(&scripted{results: []any{one}}, Config{MaxConns: 1})
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	socket, _ := pair(t, "tcp", "127.0.0.1:0")
	for _, c := range []net.Conn{c, one, &replayed{Conn: socket, head: []byte("x")}} {
		if _, ok := Detach(c); ok {
			t.Errorf("%T is detached", c)
		}
	}
}
