package split

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A pipe hands over each write by itself, and synctest's clock shows whether the deadline of the reading stays behind.
func TestPiecesAreReadAndNothingIsLeftBehind(t *testing.T) {
	for _, test := range []struct {
		said    string
		strip   bool
		matches bool
		heard   string
	}{
		{Preface, false, true, Preface}, {Preface, true, true, ""},
		{"PRI * HTTP/1.1\r\n", false, false, "PRI * HTTP/1.1\r\n"}, {"POST /", true, false, "POST /"}, {"X", false, false, "X"},
	} {
		synctest.Test(t, func(t *testing.T) {
			here, there := net.Pipe()
			defer here.Close()
			defer there.Close()
			go func() {
				for i := range len(test.said) {
					_, _ = there.Write([]byte(test.said[i : i+1]))
				}
				time.Sleep(time.Hour)
				_, _ = there.Write([]byte("!"))
			}()
			c, matches, err := Rule{Prefix: Preface, Strip: test.strip, Timeout: time.Second}.read(here)
			if err != nil || matches != test.matches {
				t.Fatalf("%q: matches %v, %v", test.said, matches, err)
			}
			heard := make([]byte, len(test.heard)+1)
			if _, err := io.ReadFull(c, heard); err != nil || string(heard) != test.heard+"!" {
				t.Errorf("%q: then %q, %v", test.said, heard, err)
			}
		})
	}
}

// say serves each connection by saying a word to it.
func say(word string) func(net.Listener) error {
	return func(ln net.Listener) error {
		for {
			c, err := ln.Accept()
			if err != nil {
				return err
			}
			_, _ = c.Write([]byte(word)) // the test sees what did not arrive
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
		s.served <- Serve(ctx, ln, Rule{Prefix: Preface, Timeout: timeout}, say("matching"), say("others"))
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

func TestEachConnectionGoesToItsServer(t *testing.T) {
	s := start(t, time.Minute)
	for text, want := range map[string]string{Preface: "matching", "GET / HTTP/1.1\r\n": "others"} {
		heard := make([]byte, len(want))
		if _, err := io.ReadFull(s.dial(t, text), heard); err != nil || string(heard) != want {
			t.Errorf("%q was served by %q, %v", text, heard, err)
		}
	}
	_ = s.ln.Close()
	s.cancel()
	if err := <-s.served; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
}

func TestAConnectionThatSaysTooLittleIsClosed(t *testing.T) {
	s := start(t, time.Millisecond)
	if n, err := s.dial(t, "PRI").Read(make([]byte, 1)); err == nil {
		t.Errorf("it was told %d bytes", n)
	}
}

func TestSilentConnectionsDoNotKeepServeFromEnding(t *testing.T) {
	s := start(t, time.Hour)
	c := s.dial(t, "PRI")
	if _, err := io.ReadFull(s.dial(t, Preface), make([]byte, len("matching"))); err != nil { // c is accepted by now
		t.Fatal(err)
	}
	_ = s.ln.Close()
	s.cancel()
	<-s.served
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection was served")
	}
}

// failing is a listener on which a process without free file descriptors accepts, at last with an error that stays.
type failing struct {
	net.Listener
	errs []error
}

func (l *failing) Accept() (net.Conn, error) {
	err := l.errs[0]
	l.errs = l.errs[1:]
	return nil, err
}

func TestAcceptOutlivesWhatPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, failures := time.Now(), 0
		l := &failing{errs: []error{
			&net.OpError{Op: "accept", Err: syscall.EMFILE}, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
			syscall.ECONNABORTED, os.ErrDeadlineExceeded, net.ErrClosed,
		}}
		_, err := Accept(l, nil, func() { failures++ })
		if !errors.Is(err, net.ErrClosed) || failures != 6 {
			t.Errorf("got %v after %d failures", err, failures)
		}
		if waited := time.Since(began); waited != (1+2+4+8+16+32)*5*time.Millisecond {
			t.Errorf("waited %v", waited)
		}
		done := make(chan struct{})
		close(done)
		l.errs, began = []error{syscall.EMFILE, net.ErrClosed}, time.Now()
		if _, err := Accept(l, done, func() {}); !errors.Is(err, net.ErrClosed) || time.Since(began) > 0 {
			t.Errorf("got %v after %v; want no wait once it is done", err, time.Since(began))
		}
	})
}
