package h2

import (
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/ringside-cache/ringside/sidecar/internal/listen"
)

// pipes is a listener of net.Pipe.
type pipes struct {
	net.Listener
	conns chan net.Conn
}

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

// through lets the listener admit a connection or close it.
func (p pipes) through(accepted chan net.Conn) func(*client) {
	return func(c *client) {
		c.accept = func(nc net.Conn) net.Conn {
			p.conns <- nc
			select {
			case nc = <-accepted:
			case <-time.After(time.Second):
				_ = nc.Close()
			}
			return nc
		}
	}
}

// A new client gets the place of one that holds its connection without a request that runs.
func TestConnectionsThatWaitForTheirClientLoseTheirPlace(t *testing.T) {
	for name, test := range map[string]struct {
		hold   func(c *client)
		closed bool
	}{
		"nothing sent":       {func(*client) {}, true},
		"idle":               {func(c *client) { c.unary("/fast", []byte("x")) }, true},
		"idle after handler": {func(c *client) { c.unary("/s/m", []byte("x")) }, true},
		"incomplete message": {func(c *client) { c.send(c.call("/s/m"), framed(make([]byte, 9))[:8], false) }, true},
		"unread response": {func(c *client) {
			c.do(c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize}))
			c.unary("/s/m", []byte("x"))
		}, true},
		"running": {func(c *client) { c.unary("/wait", []byte("x")) }, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			ln := pipes{conns: make(chan net.Conn)}
			bounded, accepted := listen.New(ln, listen.Config{MaxConns: 1}), make(chan net.Conn)
			go func() {
				for c, err := bounded.Accept(); err == nil; c, err = bounded.Accept() {
					accepted <- c
				}
			}()
			stop := make(chan struct{})
			s := serving(Config{Fast: echoFast{}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/wait" {
					<-stop
				}
				grpcHandler(w, r)
			})})
			first := start(t, s, ln.through(accepted))
			first.write([]byte(http2.ClientPreface))
			first.do(first.framer.WriteSettings())
			close(first.begun)
			first.settle()
			test.hold(first)
			time.Sleep(1500 * time.Millisecond)
			second := start(t, s, ln.through(accepted))
			time.Sleep(2 * time.Second)
			if first.isEnded() != test.closed || second.isEnded() == test.closed {
				t.Errorf("%s: the first one ended: %v, the new one: %v; want %v and %v",
					name, first.isEnded(), second.isEnded(), test.closed, !test.closed)
			}
			close(stop)
			close(ln.conns)
		})
	}
}
