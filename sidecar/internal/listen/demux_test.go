package listen

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// A net.Pipe delivers each write separately, and synctest's clock shows whether the read deadline is still set afterwards.
func TestDemuxReadsPrefixInPiecesAndResetsDeadline(t *testing.T) {
	for _, test := range []struct {
		sent     string
		strip    bool
		matches  bool
		received string
	}{
		{HTTP2Preface, false, true, HTTP2Preface}, {HTTP2Preface, true, true, ""},
		{"PRI * HTTP/1.1\r\n", false, false, "PRI * HTTP/1.1\r\n"}, {"POST /", true, false, "POST /"}, {"X", false, false, "X"},
	} {
		synctest.Test(t, func(t *testing.T) {
			here, there := net.Pipe()
			defer here.Close()
			defer there.Close()
			go func() {
				for i := range len(test.sent) {
					_, _ = there.Write([]byte(test.sent[i : i+1]))
				}
				time.Sleep(time.Hour)
				_, _ = there.Write([]byte("!"))
			}()
			c, matches, err := Rule{Prefix: HTTP2Preface, Strip: test.strip, Timeout: time.Second}.read(here)
			if err != nil || matches != test.matches {
				t.Fatalf("%q: got matches %v, %v; want %v", test.sent, matches, err, test.matches)
			}
			received := make([]byte, len(test.received)+1)
			if _, err := io.ReadFull(c, received); err != nil || string(received) != test.received+"!" {
				t.Errorf("%q: the server reads %q, %v; want %q", test.sent, received, err, test.received+"!")
			}
		})
	}
}

// sendWord returns a server that sends a word on each connection and closes it.
func sendWord(word string) func(net.Listener) error {
	return func(ln net.Listener) error {
		for {
			c, err := ln.Accept()
			if err != nil {
				return err
			}
			_, _ = c.Write([]byte(word)) // the test checks what arrives
			_ = c.Close()
		}
	}
}

type serving struct {
	ln     net.Listener
	cancel context.CancelFunc
	served chan error
}

func start(t *testing.T, timeout time.Duration) *serving {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := &serving{ln, cancel, make(chan error, 1)}
	go func() {
		s.served <- Demux(ctx, ln, Rule{Prefix: HTTP2Preface, Timeout: timeout}, sendWord("matching"), sendWord("others"))
	}()
	t.Cleanup(func() { _ = ln.Close() })
	return s
}

func (s *serving) dial(t *testing.T, text string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDemuxPassesEachConnectionToItsServer(t *testing.T) {
	s := start(t, time.Minute)
	for text, want := range map[string]string{HTTP2Preface: "matching", "GET / HTTP/1.1\r\n": "others"} {
		received := make([]byte, len(want))
		if _, err := io.ReadFull(s.dial(t, text), received); err != nil || string(received) != want {
			t.Errorf("%q: got %q, %v; want the server %q", text, received, err, want)
		}
	}
	_ = s.ln.Close()
	s.cancel()
	if err := <-s.served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Demux returned %v, want net.ErrClosed", err)
	}
}

func TestDemuxClosesUndecidedConnectionAfterTimeout(t *testing.T) {
	s := start(t, time.Millisecond)
	if n, err := s.dial(t, "PRI").Read(make([]byte, 1)); err == nil {
		t.Errorf("got %d bytes, want a closed connection", n)
	}
}

func TestSilentConnectionsDoNotBlockDemux(t *testing.T) {
	s := start(t, time.Hour)
	c := s.dial(t, "PRI")
	if _, err := io.ReadFull(s.dial(t, HTTP2Preface), make([]byte, len("matching"))); err != nil { // c is accepted by now
		t.Fatal(err)
	}
	_ = s.ln.Close()
	s.cancel()
	<-s.served
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("got bytes on a connection that sent nothing, want it closed")
	}
}
