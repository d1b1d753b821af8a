package localtest

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
)

// Attack is a number of connections of clients that want to exhaust a server.
type Attack struct {
	TB    testing.TB
	Conns []net.Conn
	send  sync.WaitGroup
}

// NewAttack opens n connections to a server. On each it sends bytes, without reading; the sending of connection i ends
// early if the server closes it.
func NewAttack(tb testing.TB, network, address string, n int, bytes func(i int) []byte) *Attack {
	tb.Helper()
	a := &Attack{TB: tb}
	tb.Cleanup(a.End)
	for i := range n {
		c, err := net.Dial(network, address)
		if err != nil {
			tb.Fatalf("connection %d of %d: %v", i, n, err)
		}
		a.Conns = append(a.Conns, c)
		b := bytes(i)
		a.send.Go(func() {
			if c.SetWriteDeadline(time.Now().Add(timeout)) == nil {
				_, _ = c.Write(b) // the server may refuse it
			}
		})
	}
	return a
}

// Sent waits until the server, or the kernel for it, has taken all bytes that it takes.
func (a *Attack) Sent() { a.send.Wait() }

// End closes all connections.
func (a *Attack) End() {
	for _, c := range a.Conns {
		_ = c.Close() // it may have been closed before
	}
	a.send.Wait()
}

// Answers reads everything that the server sends until it closes the connections, and returns it.
func (a *Attack) Answers() (answers []string) {
	a.TB.Helper()
	for _, c := range a.Conns {
		if err := c.SetReadDeadline(time.Now().Add(timeout)); err != nil {
			a.TB.Fatal(err)
		}
		b, _ := io.ReadAll(c) // a reset may follow the answer
		answers = append(answers, string(b))
	}
	return answers
}

// CheckBudget fails if a use of the budget has more bytes than it may.
func CheckBudget(tb testing.TB, b *budget.Budget) {
	tb.Helper()
	for _, u := range b.Stats() {
		if u.Used > u.Limit {
			tb.Errorf("%v: %d bytes are taken, want at most %d", u.Use, u.Used, u.Limit)
		}
	}
}

// AwaitReturn waits until all bytes of the given uses are back.
func AwaitReturn(tb testing.TB, b *budget.Budget, uses ...budget.Use) {
	tb.Helper()
	for _, u := range uses {
		Await(tb, "the bytes of "+u.String()+" are returned", func() bool { return b.Stats()[u].Used == 0 })
	}
}
