package functions

import (
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
)

// relay passes the datagrams between a traffic program and a function, and measures the time from each request to its answer,
// in the same way for all protocols: most traffic programs do not measure it, or only in milliseconds.
type relay struct {
	address string // for the traffic program
	target  *net.UDPAddr
	// id returns what a request and its answer have in common, and whether an answer is the last one.
	id     func(packet []byte) (id string, final bool)
	socket *net.UDPConn
	all    sync.WaitGroup

	mu      sync.Mutex // guards what follows
	clients map[string]*relayed
	times   []time.Duration
}

// relayed is one client of a relay.
type relayed struct {
	upstream *net.UDPConn
	sent     map[string]time.Time // :: id of a request without an answer → when it arrived; relay.mu is held
}

// newRelay starts a relay in front of a function, which ends with stop.
func newRelay(t *testing.T, target string, id func([]byte) (string, bool)) *relay {
	t.Helper()
	to, err := net.ResolveUDPAddr("udp", target)
	if err != nil {
		t.Fatal(err)
	}
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{address: socket.LocalAddr().String(), target: to, id: id, socket: socket, clients: map[string]*relayed{}}
	r.all.Go(func() { r.forward(t) })
	return r
}

// stop ends the relay and returns the median and the 99th percentile of the times.
func (r *relay) stop() (p50, p99 time.Duration) {
	r.socket.Close()
	r.mu.Lock()
	for _, c := range r.clients {
		c.upstream.Close()
	}
	r.mu.Unlock()
	r.all.Wait()
	return percentile(r.times, 50), percentile(r.times, 99)
}

func percentile(times []time.Duration, p int) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[min(len(times)-1, len(times)*p/100)]
}

func (r *relay) forward(t *testing.T) {
	buffer := make([]byte, 64<<10)
	for {
		n, from, err := r.socket.ReadFromUDP(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // the error of a datagram that was sent before
		}
		arrived := time.Now()
		c, err := r.client(from)
		if err != nil {
			t.Errorf("relay: %v", err)
			return
		}
		id, _ := r.id(buffer[:n])
		r.mu.Lock()
		if _, repeated := c.sent[id]; !repeated {
			c.sent[id] = arrived
		}
		r.mu.Unlock()
		_, _ = c.upstream.Write(buffer[:n]) // fails while nothing listens: the client then gets no answer
	}
}

func (r *relay) client(from *net.UDPAddr) (*relayed, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c, ok := r.clients[from.String()]; ok {
		return c, nil
	}
	upstream, err := net.DialUDP("udp", nil, r.target)
	if err != nil {
		return nil, err
	}
	c := &relayed{upstream: upstream, sent: map[string]time.Time{}}
	r.clients[from.String()] = c
	r.all.Go(func() { r.answer(c, from) })
	return c, nil
}

func (r *relay) answer(c *relayed, to *net.UDPAddr) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := c.upstream.Read(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // nothing listened when a datagram was sent
		}
		if id, final := r.id(buffer[:n]); final {
			r.mu.Lock()
			if sent, ok := c.sent[id]; ok {
				r.times = append(r.times, time.Since(sent))
				delete(c.sent, id)
			}
			r.mu.Unlock()
		}
		_, _ = r.socket.WriteToUDP(buffer[:n], to)
	}
}
