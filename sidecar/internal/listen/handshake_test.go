package listen

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener of net.Pipe.
type pipes struct{ *handoff }

func (p pipes) dial() net.Conn {
	here, there := net.Pipe()
	go p.give(here)
	return there
}

// word is a handshake: the client sends one byte, which must be h.
func word(running *atomic.Int64, most *atomic.Int64) func(net.Conn) (net.Conn, error) {
	return func(c net.Conn) (net.Conn, error) {
		most.Store(max(most.Load(), running.Add(1)))
		defer running.Add(-1)
		b := make([]byte, 1)
		if _, err := io.ReadFull(c, b); err != nil {
			return nil, err
		}
		if b[0] != 'h' {
			return nil, errors.New("wrong word")
		}
		return c, nil
	}
}

// 6000 connections that send nothing take 64 handshakes and do not keep others from being served.
func TestHandshakesThatNeverEndAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		var stats HandshakeStats
		ln := pipes{newHandoff(&net.UnixAddr{})}
		h := Handshaken(ln, &stats, word(&running, &most))
		var conns []net.Conn
		for range 6000 {
			conns = append(conns, ln.dial())
		}
		synctest.Wait()
		if running.Load() != maxHandshakes {
			t.Errorf("%d handshakes are running, want %d", running.Load(), maxHandshakes)
		}
		time.Sleep(2 * HandshakeTimeout)
		if n := stats.TimedOut.Load(); n != 6000 || most.Load() != maxHandshakes {
			t.Errorf("%d timed out, %d ran at once; want 6000 and %d", n, most.Load(), maxHandshakes)
		}
		for _, c := range conns {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Fatal("a connection is open")
			}
		}
		good, bad := ln.dial(), ln.dial()
		go func() {
			_, _ = good.Write([]byte("h"))
			_, _ = bad.Write([]byte("x"))
			_, _ = good.Write([]byte("!"))
		}()
		c, err := h.Accept()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // the deadline of the handshake is over
		b := make([]byte, 1)
		if _, err := io.ReadFull(c, b); err != nil || b[0] != '!' || stats.Failed.Load() != 1 {
			t.Errorf("got %q, %v; %d failed, want 1", b, err, stats.Failed.Load())
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestCloseEndsHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		ln := pipes{newHandoff(&net.UnixAddr{})}
		h := Handshaken(ln, new(HandshakeStats), word(&running, &most))
		for range 2 * maxHandshakes {
			ln.dial()
		}
		synctest.Wait()
		if err := h.Close(); err != nil || running.Load() != 0 {
			t.Errorf("got error %v, %d handshakes are running", err, running.Load())
		}
		if _, err := h.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got error %v", err)
		}
	})
}
