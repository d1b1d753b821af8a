package etcd

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// link is a TCP proxy to an etcd that simulates network failures.
type link struct {
	l      net.Listener
	target string

	mu      sync.Mutex
	conns   []net.Conn    // guarded by mu
	down    bool          // guarded by mu; new connections are closed immediately
	blocked chan struct{} // guarded by mu; closed when bytes may pass
}

func newLink(t *testing.T, endpoint string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &link{l: l, target: strings.TrimPrefix(endpoint, "http://"), blocked: make(chan struct{})}
	close(p.blocked)
	go p.accept()
	t.Cleanup(func() {
		l.Close()
		p.cut()
	})
	return p
}

func (p *link) url() string { return "http://" + p.l.Addr().String() }

// cut closes all connections and each new one, until restore.
func (p *link) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
	select {
	case <-p.blocked:
	default:
		close(p.blocked)
	}
}

func (p *link) restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}

// hang keeps connections open and accepts new ones, but forwards nothing.
func (p *link) hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.blocked = make(chan struct{})
}

func (p *link) used() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns) > 0
}

func (p *link) accept() {
	for {
		in, err := p.l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.target)
		if err != nil || !p.adopt(in, out) {
			in.Close()
			continue
		}
		go p.copy(in, out)
		go p.copy(out, in)
	}
}

func (p *link) adopt(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		return false
	}
	p.conns = append(p.conns, conns...)
	return true
}

func (p *link) copy(to io.WriteCloser, from io.Reader) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		blocked := p.blocked
		p.mu.Unlock()
		<-blocked
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
