package peertest

import (
	"math"
	"net"
	"sync"
	"testing"
)

// Proxy forwards connections to a member. It can freeze them, like a stopped process or a network that drops packets, and
// cut them.
type Proxy struct {
	net.Listener
	to string

	mu     sync.Mutex
	born   int           // accepted connections
	frozen chan struct{} // not nil while frozen; closed by Thaw
	upTo   int           // number of the last frozen connection
	conns  []net.Conn
	wg     sync.WaitGroup
}

// StartProxy starts a proxy to an address.
func StartProxy(t *testing.T, to string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &Proxy{Listener: listener, to: to}
	w.wg.Go(w.accept)
	t.Cleanup(func() {
		listener.Close()
		w.Thaw()
		w.Cut()
		w.wg.Wait()
	})
	return w
}

func (w *Proxy) accept() {
	for {
		in, err := w.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", w.to)
		if err != nil {
			in.Close()
			continue
		}
		w.mu.Lock()
		w.born++
		born := w.born
		w.conns = append(w.conns, in, out)
		w.mu.Unlock()
		w.wg.Go(func() { w.copy(in, out, born) })
		w.wg.Go(func() { w.copy(out, in, born) })
	}
}

func (w *Proxy) copy(to, from net.Conn, born int) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		w.wait(born)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (w *Proxy) wait(born int) {
	w.mu.Lock()
	frozen, upTo := w.frozen, w.upTo
	w.mu.Unlock()
	if frozen != nil && born <= upTo {
		<-frozen
	}
}

// Freeze freezes all connections, and those accepted later.
func (w *Proxy) Freeze() {
	w.FreezeOpen()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.upTo = math.MaxInt
}

// FreezeOpen freezes the open connections; later ones work.
func (w *Proxy) FreezeOpen() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frozen, w.upTo = make(chan struct{}), w.born
}

// Thaw ends Freeze and FreezeOpen.
func (w *Proxy) Thaw() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.frozen != nil {
		close(w.frozen)
		w.frozen = nil
	}
}

// Cut closes the open connections.
func (w *Proxy) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

// Through returns m with the address of the proxy.
func (w *Proxy) Through(m *Member) *Member {
	over := *m
	over.Addr = w.Addr().String()
	return &over
}
