package listen

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
)

// scripted is a listener whose Accept returns the given results, one after another.
type scripted struct {
	net.Listener
	results []any // of type net.Conn or error
}

func (l *scripted) Accept() (net.Conn, error) {
	next := l.results[0]
	l.results = l.results[1:]
	if c, ok := next.(net.Conn); ok {
		return c, nil
	}
	return nil, next.(error)
}

func (l *scripted) Close() error { return nil }

func TestAcceptRetriesAfterTemporaryErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		l := New(&scripted{results: []any{
			&net.OpError{Op: "accept", Err: syscall.EMFILE}, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
			syscall.ECONNABORTED, os.ErrDeadlineExceeded, net.ErrClosed,
		}}, Config{MaxConns: 1})
		_, err := l.Accept()
		if n := l.Stats().AcceptErrors.Load(); !errors.Is(err, net.ErrClosed) || n != 6 {
			t.Errorf("got %v after %d temporary errors, want net.ErrClosed after 6", err, n)
		}
		const most = (1 + 2 + 4 + 8 + 16 + 32) * firstWait
		if waited := time.Since(began); waited < most/2 || waited > most {
			t.Errorf("waited %v between the attempts, want %v to %v", waited, most/2, most)
		}
	})
}

func TestClosedListenerDoesNotWaitBetweenAccepts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(&scripted{results: []any{syscall.EMFILE, net.ErrClosed}}, Config{MaxConns: 1})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) || time.Since(began) > 0 {
			t.Errorf("got %v after %v, want net.ErrClosed without a wait", err, time.Since(began))
		}
	})
}

func pipe(t *testing.T) (server, client net.Conn) {
	server, client = net.Pipe()
	t.Cleanup(func() { _, _ = server.Close(), client.Close() })
	return server, client
}

func TestConnectionOverTheLimitIsRefused(t *testing.T) {
	first, _ := pipe(t)
	second, refused := pipe(t)
	third, _ := pipe(t)
	l := New(&scripted{results: []any{first, second, net.ErrClosed, third}}, Config{MaxConns: 1, Refusal: []byte("busy")})
	admitted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	go func() {
		b := make([]byte, 8)
		n, _ := refused.Read(b)
		got <- string(b[:n])
	}()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("the second Accept returned %v, want net.ErrClosed after it refused the second connection", err)
	}
	if text := <-got; text != "busy" {
		t.Errorf("the refused connection got %q, want the refusal", text)
	}
	if s := l.Stats(); s.Open.Load() != 1 || s.Refused.Load() != 1 {
		t.Errorf("got %d open and %d refused, want 1 and 1", s.Open.Load(), s.Refused.Load())
	}
	_, _ = admitted.Close(), admitted.Close()
	if n := l.Stats().Open.Load(); n != 0 {
		t.Errorf("got %d open after closing the only connection twice, want 0", n)
	}
	if _, err := l.Accept(); err != nil {
		t.Errorf("got %v, want the third connection: the first is closed", err)
	}
}

func TestCloseConnsClosesOpenAndRefusesNew(t *testing.T) {
	first, client := pipe(t)
	second, _ := pipe(t)
	l := New(&scripted{results: []any{first, second, net.ErrClosed}}, Config{MaxConns: 2})
	if _, err := l.Accept(); err != nil {
		t.Fatal(err)
	}
	l.CloseConns()
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open after CloseConns")
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) || l.Stats().Refused.Load() != 1 {
		t.Errorf("got %v and %d refused, want net.ErrClosed after 1 refused connection", err, l.Stats().Refused.Load())
	}
}

func TestConnectionTakesItsBytesAndReturnsThem(t *testing.T) {
	first, _ := pipe(t)
	second, _ := pipe(t)
	third, _ := pipe(t)
	b := budget.New(100_000)
	most := b.AccountLimit(budget.Connections, 1)
	l := New(&scripted{results: []any{first, second, net.ErrClosed, third}},
		Config{MaxConns: 10, Bytes: b.Account(budget.Connections, 1), ConnBytes: most/2 + 1})
	admitted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if used := b.Stats()[budget.Connections].Used; used != most/2+1 {
		t.Errorf("got %d bytes taken by a connection, want %d", used, most/2+1)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) || l.Stats().Refused.Load() != 1 {
		t.Fatalf("got %v and %d refused, want net.ErrClosed after the second connection was refused", err, l.Stats().Refused.Load())
	}
	_, _ = admitted.Close(), admitted.Close()
	if used := b.Stats()[budget.Connections].Used; used != 0 {
		t.Errorf("got %d bytes taken after the only connection was closed, want 0", used)
	}
	if _, err := l.Accept(); err != nil {
		t.Errorf("got %v, want the third connection: the first is closed", err)
	}
}
