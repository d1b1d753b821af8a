package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/etcd"
	"github.com/ringside-cache/ringside/sidecar/peer/mtls"
	"github.com/ringside-cache/ringside/xds"
)

func (m Membership) kind() string {
	switch {
	case len(m.Static) > 0:
		return "static"
	case len(m.Etcd.Endpoints) > 0:
		return "etcd"
	case len(m.XDS) > 0:
		return "xds"
	}
	return "none"
}

// onRing is this member as it is on the ring: none, the zero Member, for an edge.
func (p *process) onRing() ring.Member {
	if p.config.Membership.edge() {
		return ring.Member{}
	}
	return p.self
}

const unlisted = " is what this member advertises, and not in the static list of members: add it to the list of each " +
	"member, or correct node.advertise"

// identify decides who this member is, once the peer listener is bound.
func (p *process) identify() error {
	addr, err := p.config.advertised(p.listeners.peer)
	if err != nil {
		return err
	}
	id := p.config.Node.ID
	if id == "" {
		if id, err = os.Hostname(); err != nil {
			return fmt.Errorf("node.id is not set, and the host has no name: %w", err)
		}
	}
	if static := p.config.Membership.Static; len(static) > 0 {
		if !slices.Contains(static, addr) {
			return &ConfigError{Problems: []Problem{{Field: "membership.static", Message: addr + unlisted}}}
		}
		id = addr // a list knows its members by nothing else, and all must agree
	}
	version, _ := Version()
	// Without a peer listener there is no address, and the ring, which has this member alone, hashes the id.
	p.self = ring.Member{
		ID: id, HashKey: or(addr, id), Addr: addr, Zone: p.config.Node.Zone, Version: version, Started: p.began,
	}
	return nil
}

// advertised is where other members reach this one. It is empty where there is no peer listener.
func (c Config) advertised(peer net.Listener) (string, error) {
	if peer == nil {
		return "", nil
	}
	bound, ok := peer.Addr().(*net.TCPAddr)
	if !ok {
		return "", fmt.Errorf("the peer listener has the address %s, which is not TCP", peer.Addr())
	}
	if c.Node.Advertise != "" {
		h, port, err := splitAddr(c.Node.Advertise)
		return net.JoinHostPort(h, strconv.Itoa(int(or(port, uint16(bound.Port))))), err
	}
	if !bound.IP.IsUnspecified() {
		return bound.String(), nil
	}
	ip, err := firstAddress()
	return net.JoinHostPort(ip, strconv.Itoa(bound.Port)), err
}

// firstAddress returns the first address of this host that other hosts may reach, or loopback where it has no other.
func firstAddress() (string, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("node.advertise is not set, and the addresses of this host are not known: %w", err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			return n.IP.String(), nil
		}
	}
	return "127.0.0.1", nil
}

// openTLS reads this member's identity. p.tls stays nil where there is none: then members speak plain text.
func (p *process) openTLS() (err error) {
	p.tls, err = p.config.PeerTLS.open()
	return err
}

func (t PeerTLS) open() (*mtls.Credentials, error) {
	if t == (PeerTLS{}) {
		return nil, nil
	}
	identity, err := mtls.New(mtls.Config{
		CertFile: t.CertFile, KeyFile: t.KeyFile, CAFile: t.CAFile, Name: t.Name,
	})
	if err != nil {
		return nil, fmt.Errorf("peer_tls: %w", err)
	}
	return identity, nil
}

// CheckIdentity says why other members would refuse this one's certificate. It is no part of Check, because time alone
// makes a good certificate a bad one, and a reload must not fail for that.
func (c Config) CheckIdentity() error {
	_, err := c.PeerTLS.open()
	return err
}

// nobody is the directory of a sidecar that is alone.
type nobody struct{}

func (nobody) Resolve(ctx context.Context, _ func([]ring.Member)) error { return done(ctx) }
func (nobody) Register(ctx context.Context, _ ring.Member) error        { return done(ctx) }

func done(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// openDirectory decides where the members are found, unless that is given. p.etcd stays nil unless that is etcd, and
// p.resolver unless it is a feed.
func (p *process) openDirectory() error {
	m := p.config.Membership
	switch {
	case p.directory != nil:
		return nil
	case m.kind() == "none":
		p.directory = nobody{}
		return nil
	case m.kind() == "static":
		p.directory = ring.NewStatic(m.Static)
		return nil
	case m.edge():
		return p.openResolver()
	}
	d, err := m.Etcd.open(p.directoryEvent)
	if err != nil {
		return err
	}
	p.etcd, p.directory = d, d
	return nil
}

func (e Etcd) open(onEvent func(what string, err error)) (*etcd.Directory, error) {
	d, err := etcd.Open(etcd.Config{
		Endpoints: e.Endpoints, Prefix: e.prefix(), LegacyPrefix: e.LegacyPrefix, LeaseTTL: e.leaseTTL(),
		TLS:      etcd.TLSFiles{CertFile: e.TLS.CertFile, KeyFile: e.TLS.KeyFile, CAFile: e.TLS.CAFile},
		Username: e.Username, PasswordFile: e.PasswordFile,
		OnEvent: onEvent,
	})
	if err != nil {
		return nil, fmt.Errorf("membership: %w", err)
	}
	return d, nil
}

// CheckMembership asks etcd whether the members could be listed. Where the membership is not in etcd it asks nobody.
func (c Config) CheckMembership(ctx context.Context) error {
	if c.Membership.kind() != "etcd" {
		return nil
	}
	d, err := c.Membership.Etcd.open(nil)
	if err != nil {
		return err
	}
	if err := errors.Join(d.Check(ctx), d.Close()); err != nil {
		return fmt.Errorf("membership.etcd: %w", err)
	}
	return nil
}

func (p *process) openResolver() error {
	f, err := xds.NewResolver(xds.ResolverConfig{
		Addresses: p.config.Membership.XDS, Node: p.self.ID, OnEvent: p.directoryEvent,
	})
	if err != nil {
		return fmt.Errorf("membership: %w", err)
	}
	p.resolver, p.directory = f, f
	return nil
}

// directoryEvent is called a few times per outage, not once per attempt. What goes wrong there costs no read: the last
// ring stays in use.
func (p *process) directoryEvent(what string, err error) {
	if err != nil {
		p.log.Warn(p.config.Membership.kind()+": "+what, zap.Error(err))
		return
	}
	p.log.Info(p.config.Membership.kind() + ": " + what)
}

// task is a goroutine that its stage stops.
type task struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// spawn runs fn until the task is stopped. An error ends the run.
func (p *process) spawn(what string, fn func(context.Context) error) *task {
	ctx, cancel := context.WithCancel(context.Background())
	t := &task{cancel, make(chan struct{})}
	go func() {
		defer close(t.done)
		if err := fn(ctx); err != nil && ctx.Err() == nil {
			p.fail(fmt.Errorf("%s: %w", what, err))
		}
	}()
	return t
}

// stop ends the task and waits for it. It is safe on a nil task, which was never begun.
func (t *task) stop() {
	if t != nil {
		t.cancel()
		<-t.done
	}
}
