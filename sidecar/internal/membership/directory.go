package membership

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/dns"
	"github.com/ringside-cache/ringside/ring/etcd"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/peer"
	"github.com/ringside-cache/ringside/sidecar/peer/mtls"
	"github.com/ringside-cache/ringside/xds/resolver"
)

// InEtcd returns a Directory in etcd that is open.
func InEtcd(d *etcd.Directory) *Directory { return &Directory{Directory: d, Kind: "etcd", etcd: d} }

// Directory is where the members are listed.
type Directory struct {
	ring.Directory
	// Kind is how the configuration names it: etcd, dns, static, xds or none.
	Kind string

	etcd   *etcd.Directory    // nil unless Kind is etcd
	dns    *dns.Directory     // nil unless Kind is dns
	client *resolver.Resolver // nil unless Kind is xds

	static []string // all listed addresses, clients included
	most   int      // membership.max_members

	// near are the addresses that the configuration of a client names: members on loopback are for it if one of them is.
	near []string
}

// OpenDirectory opens the directory of the configuration without connecting to it. self is this member, identity its
// certificate, nil for plain text, and pool calls other members.
func OpenDirectory(m config.Membership, self ring.Member, identity *mtls.Credentials, pool *peer.Pool, log *zap.Logger) (*Directory, error) {
	d := &Directory{Kind: m.Kind(), static: m.Static, most: m.MaxMembers, near: near(m)}
	onEvent := func(what string, err error) { logEvent(log, d.Kind, what, err) }
	var err error
	switch d.Kind {
	case "none":
		d.Directory = noDirectory{}
	case "static":
		d.Directory = ring.NewStatic(lowest(m.Static, m.MaxMembers))
	case "dns":
		asks := self
		asks.Addr = cmp.Or(asks.Addr, defaultAddress) // of a client
		d.dns = dns.New(dns.Config{Name: m.DNS, Server: m.DNSServer, Self: asks, Peers: pool, OnEvent: onEvent})
		d.Directory = d.dns
	case "xds":
		d.client, err = openXDS(m.XDS, self.ID, identity, onEvent)
		d.Directory = d.client
	default:
		d.etcd, err = openEtcd(m, onEvent)
		d.Directory = d.etcd
	}
	if err != nil {
		return nil, fmt.Errorf("membership: %w", err)
	}
	return d, nil
}

// defaultAddress has the port of the members, for a client that names none: DNS has no ports.
const defaultPort, defaultAddress = "7072", "0.0.0.0:" + defaultPort

func openXDS(publishers []string, node string, identity *mtls.Credentials, onEvent func(string, error)) (*resolver.Resolver, error) {
	c := resolver.Config{Addresses: publishers, Node: node, OnEvent: onEvent}
	if identity != nil {
		c.Credentials = identity
	}
	return resolver.New(c)
}

// logEvent logs an event of the directory: a few per outage, not one per attempt. An outage costs no reads, because the
// last ring stays in use.
func logEvent(log *zap.Logger, kind, what string, err error) {
	if err != nil {
		log.Warn(kind+": "+what, zap.Error(err))
		return
	}
	log.Info(kind + ": " + what)
}

func openEtcd(m config.Membership, onEvent func(what string, err error)) (*etcd.Directory, error) {
	e := m.Etcd
	return etcd.Open(etcd.Config{
		MaxMembers: m.MaxMembers,
		Endpoints:  e.Endpoints, Prefix: e.Prefix, LegacyPrefix: e.LegacyPrefix, LeaseTTL: *e.LeaseTTL,
		TLS:      etcd.TLSFiles{CertFile: e.TLS.CertFile, KeyFile: e.TLS.KeyFile, CAFile: e.TLS.CAFile},
		Username: e.Username, PasswordFile: e.PasswordFile,
		OnEvent: onEvent,
	})
}

// CheckDirectory lists the members in etcd, or looks them up in DNS, once. It does nothing for other directories.
func CheckDirectory(ctx context.Context, m config.Membership) error {
	switch m.Kind() {
	case "dns":
		if err := dns.Check(ctx, m.DNS, m.DNSServer); err != nil {
			return fmt.Errorf("membership.dns: %w", err)
		}
		return nil
	case "etcd":
		return checkEtcd(ctx, m)
	}
	return nil
}

func checkEtcd(ctx context.Context, m config.Membership) error {
	d, err := openEtcd(m, nil)
	if err != nil {
		return fmt.Errorf("membership: %w", err)
	}
	if err := errors.Join(d.Check(ctx), d.Close()); err != nil {
		return fmt.Errorf("membership.etcd: %w", err)
	}
	return nil
}

// Etcd returns the counters of the connection to etcd; ok is false if the directory is not in etcd.
func (d *Directory) Etcd() (s etcd.Stats, ok bool) {
	if d.etcd == nil {
		return s, false
	}
	return d.etcd.Stats(), true
}

// DNS returns the state of the lookups; ok is false if the directory is not in DNS.
func (d *Directory) DNS() (s dns.Stats, ok bool) {
	if d.dns == nil {
		return s, false
	}
	return d.dns.Stats(), true
}

// Changed says that the member that advertises addr has announced that it joined or is leaving. Only DNS needs it.
func (d *Directory) Changed(addr string) {
	if d.dns != nil {
		d.dns.Changed(addr)
	}
}

// registers reports whether a member joins and leaves the rings of others by registration. Static lists and those of publishers
// have it in any case.
func (d *Directory) registers() bool { return d.etcd != nil || d.dns != nil }

// relist lists the members again; it is nil if the directory reports each change by itself.
func (d *Directory) relist() func() {
	switch {
	case d.etcd != nil:
		return d.etcd.Relist
	case d.dns != nil:
		return d.dns.Relist
	}
	return nil
}

// Client returns the state of the xDS client; ok is false if the directory is not an xDS server.
func (d *Directory) Client() (s resolver.Status, ok bool) {
	if d.client == nil {
		return s, false
	}
	return d.client.Status(), true
}

// Close closes the connection to etcd.
func (d *Directory) Close() error {
	if d.etcd == nil {
		return nil
	}
	return d.etcd.Close()
}

// noDirectory is the directory of a sidecar that is alone.
type noDirectory struct{}

// Resolve implements ring.Directory.
func (noDirectory) Resolve(ctx context.Context, _ func([]ring.Member)) error { return untilDone(ctx) }

// Register implements ring.Directory.
func (noDirectory) Register(ctx context.Context, _ ring.Member) error { return untilDone(ctx) }

func untilDone(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
