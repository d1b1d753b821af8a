package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/peer/server"
)

// listeners are bound; none, or nil, where one is off.
type listeners struct {
	http, grpc                 []net.Listener // on 127.0.0.1, and on ::1 where there is one
	unix, peer, metrics, admin net.Listener
	xds                        net.Listener
}

func (l listeners) all() []net.Listener {
	var bound []net.Listener
	for _, ln := range append(append(l.http, l.grpc...), l.unix, l.peer, l.metrics, l.xds, l.admin) {
		if ln != nil {
			bound = append(bound, ln)
		}
	}
	return bound
}

// bind binds all listeners, or says which of them could not be.
func (p *process) bind(ctx context.Context) error {
	l, c := &p.listeners, p.config
	var errs []error
	one := func(into *net.Listener, field, addr string) {
		if addr == off {
			return
		}
		ln, err := listenOn(ctx, field, addr)
		if err != nil {
			errs = append(errs, err)
			return
		}
		*into = ln
	}
	var http, grpc net.Listener
	one(&http, "listen.http", c.Listen.http())
	one(&grpc, "listen.grpc", c.Listen.grpc())
	one(&l.unix, "listen.unix", c.Listen.unix())
	one(&l.peer, "listen.peer", c.peerListen())
	one(&l.metrics, "listen.metrics", c.Listen.metrics())
	one(&l.xds, "listen.xds", c.Listen.xds())
	one(&l.admin, "listen.admin", c.Listen.admin())
	l.http, l.grpc = withIPv6(ctx, http), withIPv6(ctx, grpc)
	p.addrs = Addrs{
		HTTP: address(http), GRPC: address(grpc), Unix: address(l.unix), Peer: address(l.peer),
		Metrics: address(l.metrics), XDS: address(l.xds), Admin: address(l.admin),
	}
	p.boundConns()
	return errors.Join(errs...)
}

// boundConns keeps clients from taking every file that the process may open.
func (p *process) boundConns() {
	l, files := p.listeners, maxFiles()
	n := len(l.http) + len(l.grpc)
	if l.unix != nil {
		n++
	}
	operators := 0
	for _, ln := range []net.Listener{l.metrics, l.admin, l.xds} {
		if ln != nil {
			operators++
		}
	}
	p.conns = connBounds(files-p.config.reservedFiles(files), n, operators)
	if p.conns.lowered() {
		p.log.Warn("the limit of open files lowers how many connections the listeners take: raise it (ulimit -n, LimitNOFILE)",
			zap.Int("limit", files), zap.Int("connections_each", p.conns.local), zap.Int("peer_connections", p.conns.peer))
	}
}

// bounds are how many connections each listener of applications takes, the one of members, and each of those for
// operators and proxies: metrics, admin and xds.
type bounds struct{ local, peer, operator int }

func (b bounds) lowered() bool {
	return b.local < local.DefaultMaxConns || b.peer < server.DefaultMaxConns
}

// routed is how many of the connections of the peer listener may be of clients that route by the ring; 0: the default.
func (b bounds) routed() int {
	if b.peer == server.DefaultMaxConns {
		return 0
	}
	return max(b.peer*4/5, 1)
}

// maxOperatorConns bounds each of the listeners for metrics, admin and xds: their clients are a few scrapers, consoles
// and proxies.
const maxOperatorConns = 256

// connBounds shares files out among n listeners of applications, the listeners for operators, and the one of members,
// which gets what they leave. Operators get at most a sixteenth of the files each.
func connBounds(files, n, operators int) bounds {
	operator := min(max(files/16, 1), maxOperatorConns)
	files -= operators * operator
	each := min(max(files/(n+1), 1), local.DefaultMaxConns) //guard:idle-clients-take-every-file-probe
	return bounds{each, min(max(files-n*each, 1), server.DefaultMaxConns), operator}
}

// reservedFiles are not for clients, who could take all: probes and scrapes need some, the members that this one calls,
// etcd, certificates, and the databases.
func (c Config) reservedFiles(limit int) int {
	reserved := max(limit/5, 64)
	for _, o := range c.Origins {
		reserved += o.maxConns()
	}
	return reserved
}

func listenOn(ctx context.Context, field, addr string) (net.Listener, error) {
	if field == "listen.unix" {
		ln, err := local.ListenUnix(addr)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
		return ln, nil
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: %s is in use by another process; stop it, or set %s to another address or off",
			field, addr, field)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%s: no interface of this host has the address of %s", field, addr)
	case err != nil:
		return nil, fmt.Errorf("%s: listen on %s: %w", field, addr, err)
	}
	return ln, nil
}

// withIPv6 adds ::1 with the same port to 127.0.0.1, because that is what localhost means to many clients. A host
// without IPv6, or a port that is taken there, is no reason not to serve.
func withIPv6(ctx context.Context, ln net.Listener) []net.Listener {
	if ln == nil {
		return nil
	}
	addr, ok := ln.Addr().(*net.TCPAddr)
	if !ok || !addr.IP.Equal(net.IPv4(127, 0, 0, 1)) {
		return []net.Listener{ln}
	}
	second, err := new(net.ListenConfig).Listen(ctx, "tcp6", fmt.Sprintf("[::1]:%d", addr.Port))
	if err != nil {
		return []net.Listener{ln}
	}
	return []net.Listener{ln, second}
}

func address(ln net.Listener) string {
	if ln == nil {
		return ""
	}
	return ln.Addr().String()
}

// closeListeners closes those that no server has taken over; closing the others again does no harm.
func (p *process) closeListeners(context.Context) {
	for _, ln := range p.listeners.all() {
		_ = ln.Close()
	}
	p.tasks.Wait()
}
