// Package attack makes the connections and requests with which hostile clients try to exhaust a sidecar. It writes bytes to
// sockets, because no proper client library would send them.
package attack

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Dial opens a connection to the listener that is attacked.
type Dial func(ctx context.Context) (net.Conn, error)

// TCP returns a Dial to an address.
func TCP(address string) Dial {
	return func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", address) }
}

// Unix returns a Dial to a socket.
func Unix(path string) Dial {
	return func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", path) }
}

// After returns a Dial whose connections begin with preface.
func (d Dial) After(preface string) Dial {
	return func(ctx context.Context) (net.Conn, error) {
		c, err := d(ctx)
		if err != nil {
			return nil, err
		}
		_, err = c.Write([]byte(preface))
		return c, err
	}
}

// Attack attacks one listener until ctx ends, and returns how many connections or requests it has begun.
type Attack func(ctx context.Context, dial Dial) (begun int64)

// pause is how long an attacker waits after the server has closed its connection, at least: one that does not wait attacks
// the processors of the machine, which are its own as well. A crowd opens at most 2000 connections again in a second.
const pause = 50 * time.Millisecond

func pauseOf(n int) time.Duration { return max(pause, time.Duration(n)*500*time.Microsecond) }

// Crowd opens n connections at once, runs script on each, and then holds it without reading until the server closes it, and
// opens the next one. The script gets the number of the connection.
func Crowd(n int, script func(ctx context.Context, c net.Conn, i int) error) Attack {
	return func(ctx context.Context, dial Dial) int64 {
		var begun atomic.Int64
		var crowd sync.WaitGroup
		dialing := make(chan struct{}, 64) // the queue of the listener holds no more
		for i := range n {
			crowd.Go(func() {
				for ctx.Err() == nil {
					dialing <- struct{}{}
					c, err := dial(ctx)
					<-dialing
					if err == nil {
						begun.Add(1)
						hold(ctx, c, func() error { return script(ctx, c, i) })
					}
					wait(ctx, pauseOf(n))
				}
			})
		}
		crowd.Wait()
		return begun.Load()
	}
}

func hold(ctx context.Context, c net.Conn, script func() error) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	if script() == nil {
		awaitClose(ctx, c)
	}
}

// awaitClose returns when the server has closed the connection. It does not read what the server sends, except one byte
// after each second, which shows that the connection is open.
func awaitClose(ctx context.Context, c net.Conn) {
	var one [1]byte
	for {
		if _, err := io.ReadFull(c, one[:]); err != nil || !wait(ctx, time.Second) {
			return
		}
	}
}

// wait returns false if ctx has ended.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Together runs several attacks at once.
func Together(attacks ...Attack) Attack {
	return func(ctx context.Context, dial Dial) int64 {
		var begun atomic.Int64
		var all sync.WaitGroup
		for _, a := range attacks {
			all.Go(func() { begun.Add(a(ctx, dial)) })
		}
		all.Wait()
		return begun.Load()
	}
}

// Idle opens n connections and sends nothing.
func Idle(n int) Attack { return Send(n, "") }

// Send opens n connections and sends the same text on each.
func Send(n int, text string) Attack {
	return Crowd(n, func(_ context.Context, c net.Conn, _ int) error {
		_, err := c.Write([]byte(text))
		return err
	})
}

// Trickle opens n connections, sends a text on each, and then one more byte every 300 ms.
func Trickle(n int, text string, more byte) Attack {
	return Crowd(n, func(ctx context.Context, c net.Conn, _ int) error {
		_, err := c.Write([]byte(text))
		for err == nil && wait(ctx, 300*time.Millisecond) {
			_, err = c.Write([]byte{more})
		}
		return err
	})
}

// Flood opens n connections and sends a text over and over, without reading.
func Flood(n int, first, again string) Attack {
	return Crowd(n, func(ctx context.Context, c net.Conn, _ int) error {
		_, err := c.Write([]byte(first))
		for err == nil && ctx.Err() == nil {
			_, err = c.Write([]byte(again))
		}
		return err
	})
}

// Reset opens connections over and over, n at a time, sends a text on each, and resets them.
func Reset(n int, text string) Attack {
	return Crowd(n, func(_ context.Context, c net.Conn, _ int) error {
		_, err := c.Write([]byte(text))
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // RST instead of FIN
		}
		_ = c.Close()
		return err
	})
}
