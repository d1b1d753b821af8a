// Package loadgen sends requests to one server from one thread, over a few connections, with as little work per request as the
// protocol allows: client and server share the CPUs, so that a heavy client would hide the differences between servers.
package loadgen

import (
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// Stream is the client's side of one connection.
type Stream interface {
	// Append appends request i to b. Any i ≥ 0 is valid; the requests repeat.
	Append(b []byte, i int) []byte
	// Parse consumes the complete responses at the start of b: n bytes. It appends to out what the protocol requires in return.
	Parse(b, out []byte) (n, responses int, _ []byte, err error)
}

// Load is what a client sends.
type Load struct {
	Depth int           // requests in flight per connection
	For   time.Duration // how long requests are sent
	Count int           // if not 0: the number of requests of a closed loop, instead of For
	// Rate is the number of requests per second, sent at fixed times whether or not earlier ones have been answered (open loop).
	// While all connections are in use, requests wait in the client. 0 sends the next request on each response (closed loop).
	// A load with a Rate has a Depth of 1.
	Rate float64
}

// Result is what a client has measured.
type Result struct {
	Responses int
	Elapsed   time.Duration
	latencies []time.Duration // sorted; empty if Depth is not 1
}

// PerSecond returns the rate of responses.
func (r Result) PerSecond() float64 { return float64(r.Responses) / r.Elapsed.Seconds() }

// Quantile returns the latency that a share q of the requests did not exceed. It counts from the time when a request was to be
// sent, so that a pause of the server delays all requests of the pause, and not only the one in flight.
func (r Result) Quantile(q float64) time.Duration {
	if len(r.latencies) == 0 {
		return 0
	}
	return r.latencies[min(len(r.latencies)-1, int(q*float64(len(r.latencies))))]
}

// stride spreads consecutive requests over the keys. It is a prime, so that all keys have their turn.
const stride = 7919

// drainFor bounds the wait for the responses that are missing at the end of a load.
const drainFor = 5 * time.Second

// Client has connections to one server.
type Client struct {
	poll    poller
	conns   []*conn
	request int // the next request
}

// Dial opens n connections. network is tcp (address is IP:port) or unix.
func Dial(network, address string, n int, open func() Stream) (*Client, error) {
	poll, err := newPoller()
	if err != nil {
		return nil, err
	}
	c := &Client{poll: poll}
	for i := range n {
		fd, err := connect(network, address)
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("loadgen: connect to %s: %w", address, err)
		}
		c.conns = append(c.conns, &conn{fd: fd, stream: open(), in: make([]byte, 64<<10)})
		if err := c.poll.add(fd, i); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// Close closes the connections.
func (c *Client) Close() {
	for _, one := range c.conns {
		syscall.Close(one.fd)
	}
	c.poll.close()
}

// Run sends a load and waits for all responses.
func (c *Client) Run(l Load) (Result, error) {
	runtime.LockOSThread() // for the timer slack of the thread, and for its caches
	defer runtime.UnlockOSThread()
	r := &run{client: c, load: l, began: time.Now()}
	if l.Depth == 1 {
		r.latencies = make([]time.Duration, 0, 1<<20)
	}
	send := r.closedLoop
	if l.Rate > 0 {
		send = r.openLoop
	}
	if err := send(); err != nil {
		return Result{}, err
	}
	slices.Sort(r.latencies)
	return Result{Responses: r.responses, Elapsed: r.elapsed, latencies: r.latencies}, nil
}

// run is one load of a client. Its times count from its begin.
type run struct {
	client    *Client
	load      Load
	began     time.Time
	responses int
	elapsed   time.Duration // until the last response
	latencies []time.Duration
}

func (r *run) now() time.Duration { return time.Since(r.began) }

// closedLoop answers each response with the next request, until the time is over.
func (r *run) closedLoop() error {
	sent := 0
	for _, c := range r.client.conns {
		if err := r.send(c, r.load.Depth, r.now()); err != nil {
			return err
		}
		sent += r.load.Depth
	}
	for r.responses < sent {
		ready, err := r.client.poll.wait(drainFor)
		if err != nil {
			return err
		}
		if len(ready) == 0 {
			return fmt.Errorf("loadgen: %d responses are missing after %v", sent-r.responses, drainFor)
		}
		for _, event := range ready {
			c := r.client.conns[event.Fd]
			responses, err := r.receive(c)
			if err != nil {
				return err
			}
			now, next := r.now(), 0
			if now < r.load.For || sent < r.load.Count {
				next = responses
			}
			if err := r.send(c, next, now); err != nil {
				return err
			}
			sent += next
		}
	}
	return nil
}

// openLoop sends requests at fixed times on idle connections.
func (r *run) openLoop() error {
	interval := time.Duration(float64(time.Second) / r.load.Rate)
	idle := slices.Clone(r.client.conns)
	var due time.Duration // the time of the next request
	for due < r.load.For || len(idle) < len(r.client.conns) {
		now := r.now()
		for due < r.load.For && due <= now && len(idle) > 0 {
			c := idle[len(idle)-1]
			idle = idle[:len(idle)-1]
			if err := r.send(c, 1, due); err != nil { //guard:latency-from-sending
				return err
			}
			due += interval
			now = r.now()
		}
		wait := drainFor
		if due < r.load.For && len(idle) > 0 {
			wait = due - now
		}
		ready, err := r.client.poll.wait(wait)
		if err != nil {
			return err
		}
		if len(ready) == 0 && wait == drainFor {
			return fmt.Errorf("loadgen: %d responses are missing after %v", len(r.client.conns)-len(idle), drainFor)
		}
		for _, event := range ready {
			c := r.client.conns[event.Fd]
			responses, err := r.receive(c)
			if err == nil {
				err = r.send(c, 0, 0) // what the protocol requires
			}
			if err != nil {
				return err
			}
			if responses > 0 {
				idle = append(idle, c)
			}
		}
	}
	return nil
}

// send writes n requests, and what Parse has left to be sent, with one call of the kernel.
func (r *run) send(c *conn, n int, due time.Duration) error {
	for range n {
		c.out = c.stream.Append(c.out, r.client.request)
		r.client.request += stride
	}
	if n > 0 {
		c.due = due
	}
	return c.flush()
}

// receive reads what the server has sent, and returns the number of responses.
func (r *run) receive(c *conn) (responses int, err error) {
	responses, err = c.read()
	if responses == 0 || err != nil {
		return 0, err
	}
	r.responses += responses
	r.elapsed = r.now()
	if r.load.Depth == 1 {
		r.latencies = append(r.latencies, r.elapsed-c.due)
	}
	return responses, nil
}
