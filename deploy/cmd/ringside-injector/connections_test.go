package main

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// pipes is a listener whose connections come from the given addresses.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) { return <-p, nil }
func (p pipes) Close() error              { return nil }
func (p pipes) Addr() net.Addr            { return &net.TCPAddr{} }

type pipeFrom struct {
	net.Conn
	host string
}

func (p pipeFrom) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(p.host), Port: 1} }

// crowd has a bounded listener and its clients.
type crowd struct {
	t    *testing.T
	list *connections
	in   pipes
}

func newCrowd(t *testing.T, limit int) *crowd {
	in := make(pipes, 1)
	closed := prometheus.NewCounter(prometheus.CounterOpts{Name: "closed"})
	return &crowd{t: t, in: in, list: &connections{Listener: in, limit: limit, closed: closed}}
}

// connect returns both ends of a new connection.
func (c *crowd) connect(host string) (client net.Conn, server *conn) {
	c.t.Helper()
	client, far := net.Pipe()
	c.in <- pipeFrom{far, host}
	accepted, err := c.list.Accept()
	if err != nil {
		c.t.Fatal(err)
	}
	return client, accepted.(*conn)
}

// isClosed reports whether the server has closed a connection.
func isClosed(server *conn) bool { return errors.Is(server.SetDeadline(time.Time{}), io.ErrClosedPipe) }

func TestOneAddressCannotKeepOthersOut(t *testing.T) {
	c := newCrowd(t, 4)
	_, apiServer := c.connect("10.0.0.1")
	var flood []*conn
	for range 20 {
		_, conn := c.connect("10.9.9.9")
		flood = append(flood, conn)
	}
	_, second := c.connect("10.0.0.2")
	for _, conn := range []*conn{apiServer, second} {
		if isClosed(conn) {
			t.Errorf("the connection from %s is closed", conn.from)
		}
	}
	for i, conn := range flood {
		if want := i < 18; isClosed(conn) != want { // two of the four places are left to it
			t.Errorf("connection %d of the flood is closed: %v, want %v", i, !want, want)
		}
	}
	if got := testutil.ToFloat64(c.list.closed); got != 18 {
		t.Errorf("counted %v closed connections, want 18", got)
	}
}

// Of the connections of one address, those with completed requests stay.
func TestUsefulConnectionsStay(t *testing.T) {
	c := newCrowd(t, 2)
	_, first := c.connect("10.0.0.1")
	markUseful(withConn(t.Context(), first))
	var others []*conn
	for range 5 {
		_, conn := c.connect("10.0.0.1")
		others = append(others, conn)
	}
	if isClosed(first) {
		t.Error("the useful connection is closed")
	}
	if last := others[len(others)-1]; isClosed(last) {
		t.Error("the last connection is closed")
	}
}

func TestClosedConnectionsAreNotCounted(t *testing.T) {
	c := newCrowd(t, 2)
	_, first := c.connect("10.0.0.1")
	for range 10 {
		_, conn := c.connect("10.0.0.1")
		conn.Close()
		conn.Close()
	}
	if isClosed(first) {
		t.Error("the first connection is closed, although no other is open")
	}
}
