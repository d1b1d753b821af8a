package sqldb_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy is between a client and PostgreSQL.
type proxy struct {
	dsn    string
	silent atomic.Bool // forwards nothing to the client
	deaf   atomic.Bool // forwards no notifications and no log
	// stray is how many times a result that nobody has asked for precedes the next message, and ready how many times only the
	// message that the server is ready does.
	stray, ready atomic.Int32
	// cut is how many times only the first result of the next statements arrives.
	cut atomic.Int32
	// shift is how many times a result that nobody has asked for comes first, and the last results are missing instead.
	shift atomic.Int32
	// commitUnanswered drops the answers to COMMIT, but not that the server is ready.
	commitUnanswered atomic.Bool
}

func newProxy(t *testing.T, dsn string) *proxy {
	t.Helper()
	from, to := strings.Index(dsn, "@")+1, strings.Index(dsn, "/postgres?")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{dsn: dsn[:from] + listener.Addr().String() + dsn[to:]}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		_ = listener.Close() // ends the loop below
		cancel()             // ends connections that remain after a panic
		wg.Wait()
	})
	wg.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", dsn[from:to])
			if err != nil {
				_ = client.Close() // the test reports what it missed
				continue
			}
			context.AfterFunc(ctx, func() { _, _ = server.Close(), client.Close() })
			wg.Go(func() { pass(server, client, func() { _, _ = io.Copy(server, client) }) })
			wg.Go(func() { pass(server, client, func() { p.answers(client, server) }) })
		}
	})
	return p
}

// pass closes both connections after copying.
func pass(server, client net.Conn, copying func()) {
	copying()
	_ = server.Close() // the other direction may have closed it
	_ = client.Close()
}

// answers forwards messages: a byte for the type, and the length of the rest with its own four bytes (PostgreSQL, 55.7).
func (p *proxy) answers(client io.Writer, server io.Reader) {
	const notification, copyData = 'A', 'd'
	in := bufio.NewReader(server)
	results, cut, shifted := 0, false, false // since the last message that the server is ready
	for {
		head := make([]byte, 5)
		if _, err := io.ReadFull(in, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		if p.silent.Load() || p.deaf.Load() && (head[0] == notification || head[0] == copyData) {
			continue
		}
		switch head[0] {
		case 'R', 'S', 'K': // the start of a connection
		case 'C':
			if p.commitUnanswered.Load() && strings.HasPrefix(string(body), "COMMIT") {
				continue
			}
			results++
			cut = cut || results == 1 && (shifted || take(&p.cut))
			if cut && results > 1 {
				continue
			}
		case 'Z':
			results, cut, shifted = 0, false, false
		default:
			if cut && results > 0 {
				continue
			}
			if results == 0 && take(&p.stray) {
				head = append([]byte("C\x00\x00\x00\x10DISCARD ALL\x00Z\x00\x00\x00\x05I"), head...)
			}
			if results == 0 && !shifted && take(&p.shift) {
				shifted = true
				head = append([]byte("C\x00\x00\x00\x10DISCARD ALL\x00"), head...)
			}
			if results == 0 && take(&p.ready) {
				head = append([]byte("Z\x00\x00\x00\x05I"), head...)
			}
		}
		if _, err := client.Write(append(head, body...)); err != nil {
			return
		}
	}
}

// take reports whether n was positive, and subtracts one.
func take(n *atomic.Int32) bool {
	for {
		was := n.Load()
		if was <= 0 {
			return false
		}
		if n.CompareAndSwap(was, was-1) {
			return true
		}
	}
}

// interpose returns the address of a proxy that calls forward for each connection, with the client's and the server's side of it.
func interpose(t *testing.T, server string, forward func(client, server net.Conn)) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				behind, err := net.Dial("tcp", server)
				if err != nil {
					return
				}
				defer behind.Close()
				forward(client, behind)
			}()
		}
	}()
	return listener.Addr().String()
}
