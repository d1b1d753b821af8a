package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/ringside-cache/ringside/ring/address"
)

// maxAddresses limits an answer: one of 64 KiB, the largest, has about 4000 A records.
const maxAddresses = 5000

// maxTargets limits the lookups of SRV targets at once.
const maxTargets = 16

var errNone = errors.New("the name has no addresses")

// resolver is *net.Resolver.
type resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

// newResolver returns Go's resolver, which asks again over TCP if an answer is truncated, and uses the search domains and
// timeouts of /etc/resolv.conf.
func newResolver(server string) *net.Resolver {
	r := &net.Resolver{PreferGo: true}
	if server != "" {
		r.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server)
		}
	}
	return r
}

func isNotFound(err error) bool {
	var failure *net.DNSError
	return errors.As(err, &failure) && failure.IsNotFound
}

// Check looks the name up once. A name without addresses is no error: no member may be running yet.
func Check(ctx context.Context, name, server string) error {
	d := New(Config{Name: name, Server: server})
	if _, err := d.resolve(ctx); err != nil && !isNotFound(err) {
		return err
	}
	return nil
}

// Addresses looks the name up once, and returns the addresses that this sidecar may dial, sorted: those of clients, too.
func (d *Directory) Addresses(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	list, err := d.addresses(ctx)
	if isNotFound(err) {
		err = nil
	}
	return list, err
}

// addresses returns the addresses that this member may dial, sorted.
func (d *Directory) addresses(ctx context.Context) ([]string, error) {
	found, err := d.resolve(ctx)
	if err != nil {
		return nil, err
	}
	var list []string
	rejected := map[string]int64{}
	for _, at := range found {
		addr, err := address.MemberIP(at.Addr(), uint32(at.Port()))
		switch {
		case err != nil, !address.Reachable(addr, d.config.Self.Addr): //guard:address-in-dns-is-not-checked
			rejected[invalid]++
		default:
			list = append(list, addr)
		}
	}
	slices.Sort(list)
	list = slices.Compact(list)
	if len(list) > maxAddresses { //guard:addresses-in-dns-without-limit
		rejected[tooMany] += int64(len(list) - maxAddresses)
		list = list[:maxAddresses]
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for reason, n := range rejected {
		d.stats.Rejected[reason] += n
	}
	return list, nil
}

// resolve returns the addresses of the name.
func (d *Directory) resolve(ctx context.Context) ([]netip.AddrPort, error) {
	if strings.HasPrefix(d.config.Name, "_") {
		return d.services(ctx)
	}
	_, port, _ := address.Split(d.config.Self.Addr) // Identify has checked it
	return d.at(ctx, d.config.Name, port)
}

func (d *Directory) at(ctx context.Context, host string, port uint16) (list []netip.AddrPort, err error) {
	ips, err := d.config.resolver.LookupNetIP(ctx, "ip", host)
	for _, ip := range ips {
		list = append(list, netip.AddrPortFrom(ip.Unmap(), port))
	}
	return list, err
}

// services resolves SRV records and their targets. A target that fails does not remove the others; if all fail, the lookup
// does.
func (d *Directory) services(ctx context.Context) (list []netip.AddrPort, err error) {
	_, records, err := d.config.resolver.LookupSRV(ctx, "", "", d.config.Name)
	if len(records) == 0 {
		return nil, err
	}
	records = records[:min(len(records), maxAddresses)]
	var (
		mu      sync.Mutex // guards list and lookups' failure
		failure error
		targets errgroup.Group
	)
	targets.SetLimit(maxTargets)
	for _, r := range records {
		targets.Go(func() error {
			at, err := d.at(ctx, r.Target, r.Port)
			mu.Lock()
			defer mu.Unlock()
			list = append(list, at...)
			if err != nil {
				failure = err
			}
			return nil
		})
	}
	_ = targets.Wait() // no lookup returns an error
	if len(list) == 0 {
		return nil, failure
	}
	return list, nil
}
