package membership

import (
	"cmp"
	"context"
	"net/url"
	"slices"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/sidecar/config"
)

// claim asks the directory whether self is a member, and, if not, for the addresses of some members. It does not ask for a
// sidecar whose role is client.
func (d *Directory) claim(ctx context.Context, self ring.Member, role string) (member bool, seeds []string, err error) {
	auto := role == config.RoleAuto
	switch {
	case d.etcd != nil && auto:
		return d.etcd.Claim(ctx, self)
	case d.etcd != nil:
		seeds, err = d.etcd.Seeds(ctx)
		return false, seeds, err
	case d.dns != nil:
		addrs, err := d.dns.Addresses(ctx)
		if err != nil {
			return false, nil, err
		}
		if auto && !slices.Contains(addrs, self.Addr) { // DNS lists a new pod later
			addrs = append(addrs, self.Addr)
		}
		return d.rank(addrs, self, auto)
	case len(d.static) > 0:
		return d.rank(d.static, self, auto)
	}
	return auto, nil, nil
}

// rank decides without asking anybody: the members are those of the addresses with the lowest hashes, so that all sidecars with the
// same addresses have the same members, and an address more or less changes at most one role.
func (d *Directory) rank(addrs []string, self ring.Member, auto bool) (member bool, seeds []string, err error) {
	members := lowest(addrs, d.most)
	if auto && slices.Contains(members, self.Addr) {
		return true, nil, nil
	}
	return false, slices.DeleteFunc(members, func(addr string) bool { return addr == self.Addr }), nil
}

// lowest returns at most n of the addresses, those with the lowest hashes; all if n is 0.
func lowest(addrs []string, n int) []string {
	sorted := slices.Clone(addrs)
	if n == 0 || len(sorted) <= n {
		return sorted
	}
	slices.SortFunc(sorted, func(a, b string) int {
		return cmp.Or(cmp.Compare(ring.Hash(a), ring.Hash(b)), cmp.Compare(a, b))
	})
	return sorted[:n]
}

// near returns the addresses that a configuration names.
func near(m config.Membership) []string {
	addrs := slices.Concat(m.Static, m.XDS)
	for _, endpoint := range m.Etcd.Endpoints {
		if u, err := url.Parse(endpoint); err == nil {
			addrs = append(addrs, u.Host)
		}
	}
	if m.DNSServer != "" {
		addrs = append(addrs, m.DNSServer)
	}
	return addrs
}
