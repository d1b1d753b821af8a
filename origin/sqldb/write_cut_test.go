package sqldb_test

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"sync"
	"testing"

	"github.com/ringside-cache/ringside/origin"
)

// cutter is a proxy between a pool and its database that can cut the connections after any byte.
type cutter struct {
	net.Listener

	mu     sync.Mutex // guards the fields below
	target string
	left   [2]int // bytes until the cut, per direction; less than 0: no cut
	count  [2]int // bytes that have passed, per direction
	heals  bool   // new connections work after the cut; otherwise they fail
	cut    bool
	open   map[net.Conn]bool
}

const (
	up   = iota // from the pool
	down        // from the database
)

func newCutter(t *testing.T, target string) *cutter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{Listener: l, target: target, left: [2]int{-1, -1}, open: map[net.Conn]bool{}}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { c.join(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		c.cutAll()
		running.Wait()
	})
	return c
}

func (c *cutter) join(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.leads())
	if err != nil || !c.admit(client, server) {
		return
	}
	defer server.Close()
	var both sync.WaitGroup
	both.Go(func() { c.pass(up, server, client) })
	both.Go(func() { c.pass(down, client, server) })
	both.Wait()
}

func (c *cutter) leads() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.target
}

// leadTo makes new connections reach another server. Those that are open remain, as after a change of a name.
func (c *cutter) leadTo(target string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.target = target
}

func (c *cutter) admit(conns ...net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		c.open[conn] = true
	}
	return !c.cut || c.heals
}

func (c *cutter) pass(direction int, to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		allowed := c.take(direction, n)
		if _, failed := to.Write(buf[:allowed]); err != nil || failed != nil || allowed < n {
			if allowed < n {
				c.cutAll()
			}
			return
		}
	}
}

// take returns how many of n bytes may pass; less than n at the cut.
func (c *cutter) take(direction, n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count[direction] += n
	left := &c.left[direction]
	if *left < 0 {
		return n
	}
	if n > *left {
		n = *left
		c.cut, c.left = true, [2]int{-1, -1}
		return n
	}
	*left -= n
	return n
}

func (c *cutter) cutAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		conn.Close()
		delete(c.open, conn)
	}
}

// arm cuts the connections after so many bytes.
func (c *cutter) arm(direction, after int, heals bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left[direction], c.heals, c.cut = after, heals, false
}

// during returns how many bytes pass while f runs.
func (c *cutter) during(f func()) (bytes [2]int) {
	c.mu.Lock()
	c.count = [2]int{}
	c.mu.Unlock()
	f()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

// disarm restores the network, and reports whether it was cut.
func (c *cutter) disarm() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	cut := c.cut
	c.left, c.cut = [2]int{-1, -1}, false
	return cut
}

var hostPort = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// A connection that is cut after any byte of a write, in either direction, must not cause a wrong outcome: neither committed
// instead of not, nor not written instead of written, nor two writes.
func TestOutcomeOfAWriteWhoseConnectionIsCut(t *testing.T) {
	eachDatabase(t, func(t *testing.T, d database) {
		if d.driver == "sqlite" {
			return // no network
		}
		d.fillExact(t, map[string]string{"a": "old"})
		network := newCutter(t, hostPort.FindString(d.dsn))
		behind := d
		behind.dsn = hostPort.ReplaceAllString(d.dsn, network.Addr().String())
		w := behind.rows(t, origin.Dataset{Table: "conformance", Key: []string{"k"}, Version: "ver", Value: "v"})
		for _, heals := range []bool{false, true} {
			seen := map[string]int{}
			write(t, w, "warm")
			needed := network.during(func() { write(t, w, "0 000") })
			for direction, bytes := range needed {
				for after := 0; after < bytes; after += stride(bytes - after) {
					d.cutOne(t, w, network, direction, after, heals, seen)
				}
			}
			t.Logf("network heals: %v: %v", heals, seen)
			if seen["unknown, written"] == 0 || seen["unknown, not written"] == 0 || seen["certain, written"] == 0 && heals ||
				seen["certain, not written"] == 0 && !heals {
				t.Errorf("got %v, want all outcomes", seen)
			}
		}
	})
}

// stride is small near the end, where COMMIT and its answer are.
func stride(left int) int {
	if left > 48 {
		return 16
	}
	return 1
}

// cutOne makes a write whose connection is cut, and counts its outcome.
func (d database) cutOne(t *testing.T, w rows, n *cutter, direction, after int, heals bool, seen map[string]int) {
	t.Helper()
	write(t, w, "warm") // opens the connection and reads the catalog
	before := d.lockedVersion(t)
	n.arm(direction, after, heals)
	v, err := w.Write(soon(t), origin.Change{Key: "a", Data: []byte(fmt.Sprint(direction, after))})
	cut := n.disarm()
	written := d.lockedVersion(t) - before
	switch unclear := errors.Is(err, origin.ErrUnknown); {
	case written != 0 && written != 1:
		t.Errorf("cut after %d bytes (%d): written %d times", after, direction, written)
	case err == nil && (written != 1 || v.Version != before+1):
		t.Errorf("cut after %d bytes (%d): OK, version %d after %d, but written %d times", after, direction, v.Version,
			before, written)
	case err != nil && !unclear && written != 0:
		t.Errorf("cut after %d bytes (%d): %v, but it was written", after, direction, err)
	case cut:
		seen[fmt.Sprintf("%s, %s", map[bool]string{true: "unknown", false: "certain"}[unclear],
			map[int64]string{0: "not written", 1: "written"}[written])]++
	}
}

func write(t *testing.T, w origin.Writer, value string) origin.Value {
	t.Helper()
	v, err := w.Write(soon(t), origin.Change{Key: "a", Data: []byte(value)})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// lockedVersion waits for a transaction that has not ended yet.
func (d database) lockedVersion(t *testing.T) (version int64) {
	t.Helper()
	err := d.QueryRowContext(soon(t), "SELECT ver FROM conformance WHERE k = 'a' FOR UPDATE").Scan(&version)
	if err != nil {
		t.Fatal(err)
	}
	return version
}
