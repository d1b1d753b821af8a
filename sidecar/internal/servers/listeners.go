// Package servers binds the listeners of a sidecar and runs what serves on them. Listeners has all of them: a server gets
// its sockets from there, together with the limit of its connections.
package servers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/inherit"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/internal/task"
	"github.com/ringside-cache/ringside/sidecar/local"
)

// Listener is one listener of a sidecar.
type Listener struct {
	// Name is that of its field in the configuration: http for listen.http.
	Name string
	// MaxConns is the limit of the connections of each of its sockets.
	MaxConns int
	// Conns counts the connections of a listener for operators or proxies. Other servers count their own.
	Conns listen.Stats

	sockets []net.Listener // two where 127.0.0.1 includes ::1
}

// Addr returns the address that the listener is bound to.
func (l *Listener) Addr() net.Addr { return l.sockets[0].Addr() }

// ForOperators reports whether the listener is for operators or proxies: metrics, admin or xds.
func (l *Listener) ForOperators() bool { return !isApplication(l.Name) && l.Name != "peer" }

// Close closes the sockets. Open connections stay open.
func (l *Listener) Close() {
	for _, socket := range l.sockets {
		_ = socket.Close() // its server has closed it, unless the start failed
	}
}

// Listeners are the bound listeners of a sidecar: those that are not off.
type Listeners struct {
	list   []*Listener
	group  *task.Group
	tasks  []*task.Task
	limits limits
	shares shares
	budget *budget.Budget
}

// Limits says how many files the process may have open, how many of them connections may not use, and what memory clients
// may use.
type Limits struct {
	Files, Reserved int
	Budget          *budget.Budget
}

// ProcessLimits returns the limits of this process. It reserves files for probes and scrapes, peer fetches, etcd,
// certificates, and the given number of connections to origins.
func ProcessLimits(originConns int) Limits {
	files := maxFiles()
	return Limits{Files: files, Reserved: max(files/5, 64) + originConns}
}

// Bind binds all listeners of the configuration that the parent process has not passed, or none. The error names each one that
// failed.
func Bind(
	ctx context.Context, addrs []config.Address, passed []inherit.Socket, max Limits, log *zap.Logger, group *task.Group,
) (*Listeners, error) {
	l := &Listeners{group: group}
	errs := []error{checkPassed(addrs, passed)}
	for _, a := range addrs {
		sockets, err := of(passed, a.Name), error(nil)
		if sockets == nil {
			sockets, err = bind(ctx, a)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		l.list = append(l.list, &Listener{Name: a.Name, sockets: sockets})
	}
	if err := errors.Join(errs...); err != nil {
		l.Close()
		return nil, err
	}
	l.limit(max, log)
	return l, nil
}

// limit keeps clients from using every file that the process may open, and all memory.
func (l *Listeners) limit(max Limits, log *zap.Logger) {
	applications, operators := 0, 0
	for _, one := range l.list {
		switch {
		case isApplication(one.Name):
			applications += len(one.sockets)
		case one.ForOperators():
			operators++
		}
	}
	byFiles := newLimits(max.Files-max.Reserved, applications, operators)
	l.shares, l.budget = newShares(applications, operators), max.Budget
	l.limits = byFiles.within(l.budget, l.shares)
	for _, one := range l.list {
		one.MaxConns = l.limits.of(one.Name)
	}
	if byFiles.lowered() {
		log.Warn("the limit of open files reduces the connections of the listeners: raise it (ulimit -n, LimitNOFILE)",
			zap.Int("limit", max.Files), zap.Int("connections_each", byFiles.application),
			zap.Int("peer_connections", byFiles.peer))
	}
	if l.limits != byFiles {
		log.Info("client_memory limits the connections of the listeners", zap.Int64("client_memory", l.budget.Total()),
			zap.Int("connections_each", l.limits.application), zap.Int("peer_connections", l.limits.peer))
	}
}

// of returns the passed sockets of a name.
func of(passed []inherit.Socket, name string) (sockets []net.Listener) {
	for _, s := range passed {
		if s.Name == name {
			sockets = append(sockets, s.Listener)
		}
	}
	return sockets
}

// checkPassed returns an error if a passed socket is that of no listener: its clients would wait forever.
func checkPassed(addrs []config.Address, passed []inherit.Socket) error {
	for _, s := range passed {
		if !slices.ContainsFunc(addrs, func(a config.Address) bool { return a.Name == s.Name }) {
			return fmt.Errorf("the parent process has passed a socket for listen.%s, which is off or not a listener", s.Name)
		}
	}
	return nil
}

// Open binds one listener, for a child process.
func Open(ctx context.Context, a config.Address) (sockets []inherit.Socket, err error) {
	bound, err := bind(ctx, a)
	for _, ln := range bound {
		sockets = append(sockets, inherit.Socket{Name: a.Name, Listener: ln})
	}
	return sockets, err
}

func bind(ctx context.Context, a config.Address) ([]net.Listener, error) {
	ln, err := bindOne(ctx, "listen."+a.Name, a)
	if err != nil {
		return nil, err
	}
	if !isApplication(a.Name) {
		return []net.Listener{ln}, nil
	}
	return withIPv6(ctx, ln), nil
}

func bindOne(ctx context.Context, field string, a config.Address) (net.Listener, error) {
	if a.Name == "unix" {
		ln, err := local.ListenUnix(a.Addr)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
		return ln, nil
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", a.Addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: %s is in use by another process; stop it, or set %s to another address or off",
			field, a.Addr, field)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%s: no interface of this host has the address of %s", field, a.Addr)
	case err != nil:
		return nil, fmt.Errorf("%s: listen on %s: %w", field, a.Addr, err)
	}
	return ln, nil
}

// withIPv6 adds ::1 with the same port to 127.0.0.1, because many clients resolve localhost to it. The sidecar also serves
// without it, on a host that has no IPv6 or uses that port.
func withIPv6(ctx context.Context, ln net.Listener) []net.Listener {
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

// All returns the listeners.
func (l *Listeners) All() []*Listener { return l.list }

// Find returns the listener of that name, or nil if it is off.
func (l *Listeners) Find(name string) *Listener {
	for _, one := range l.list {
		if one.Name == name {
			return one
		}
	}
	return nil
}

// Addr returns the address of a listener; nil if it is off.
func (l *Listeners) Addr(name string) net.Addr {
	if one := l.Find(name); one != nil {
		return one.Addr()
	}
	return nil
}

// ConnShare is the part of the memory for connections that the listener of that name owns, per socket.
func (l *Listeners) ConnShare(name string) float64 {
	switch {
	case isApplication(name):
		return l.shares.application
	case name == "peer":
		return l.shares.peer
	}
	return l.shares.operator
}

// MaxLocalConns is the limit of each socket for applications.
func (l *Listeners) MaxLocalConns() int { return l.limits.application }

// MaxRoutedConns is how many connections of the peer listener may be from clients that route by the ring.
func (l *Listeners) MaxRoutedConns() int { return l.limits.routed() }

// serve passes each socket of a listener, if it is on, to loop. A loop that ends with an error before Close ends the run.
// Each loop must bound its connections by Listener.MaxConns.
func (l *Listeners) serve(name string, loop func(net.Listener) error) {
	one := l.Find(name)
	if one == nil {
		return
	}
	for _, socket := range one.sockets {
		l.tasks = append(l.tasks, l.group.Go(name+" listener", func(context.Context) error { return loop(socket) }))
	}
}

// bounded wraps a socket of a listener for operators or proxies, with the given refusal.
func (l *Listeners) bounded(name string, socket net.Listener, connBytes int64, refusal []byte) *listen.Listener {
	one := l.Find(name)
	return listen.New(socket, listen.Config{
		MaxConns: one.MaxConns, Stats: &one.Conns, Refusal: refusal, Waits: true,
		Bytes: l.budget.Account(budget.Connections, l.ConnShare(name)), ConnBytes: connBytes,
	})
}

// Close closes the sockets that no server has closed, and waits for all loops.
func (l *Listeners) Close() {
	for _, one := range l.list {
		one.Close()
	}
	task.StopAll(l.tasks)
}
