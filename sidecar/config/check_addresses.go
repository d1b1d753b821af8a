package config

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ringside-cache/ringside/sidecar/config/address"
)

// reachable checks an address that other members dial.
func (k *checker) reachable(path, addr string, minPort uint16) {
	h, port, err := address.Split(addr)
	switch {
	case err != nil:
		k.problem(path, "want host:port; %v", err)
	case h == "" || address.IsUnspecified(h):
		k.problem(path, "%s is not an address that other members can dial; set the pod's own, such as [${POD_IP}]:7072",
			addr)
	case port < minPort:
		k.problem(path, "port 0 is not a port that other members can dial")
	}
}

// tcpListeners returns path and address of each listener that has a port.
func (c Config) tcpListeners() [][2]string {
	l := c.Listen
	return [][2]string{
		{"listen.http", l.http()}, {"listen.grpc", l.grpc()}, {"listen.peer", c.peerListen()},
		{"listen.metrics", l.metrics()}, {"listen.xds", l.xds()}, {"listen.admin", l.admin()},
	}
}

func (k *checker) listen() {
	type bound struct{ path, host string }
	taken := map[uint16][]bound{}
	for _, l := range k.config.tcpListeners() {
		path, addr := l[0], l[1]
		if addr == off {
			continue
		}
		h, port, err := address.Split(addr)
		if err != nil {
			k.problem(path, "want host:port or off; %v", err)
			continue
		}
		for _, other := range taken[port] {
			if port != 0 && (h == other.host || address.IsUnspecified(h) || address.IsUnspecified(other.host)) {
				k.problem(path, "port %d is also used by %s; give each listener its own", port, other.path)
			}
		}
		taken[port] = append(taken[port], bound{path, h})
	}
	// sun_path has 108 bytes with its final NUL (unix(7)).
	if u := k.config.Listen.unix(); u != off && len(u) > 107 {
		k.problem("listen.unix", "a socket's path has at most 107 bytes; this one has %d", len(u))
	}
	k.peerListener()
}

func (k *checker) peerListener() {
	m, closed := k.config.Membership, k.config.peerListen() == off
	switch {
	case m.Client() && !closed:
		k.problem("listen.peer", "is on, but with membership.xds this sidecar is not on the ring and gets no peer requests; remove it")
	case m.Client(): // proxies of its publisher send requests to the members
	case closed && k.config.Listen.xds() != off:
		k.problem("listen.xds", "is on, but listen.peer is off, to which proxies send their requests")
	}
	if closed && !m.Alone() && !m.Client() {
		k.problem("listen.peer", "is off, but there is a membership: other members cannot reach this one")
	}
}

// addresses checks a list of addresses that this sidecar dials.
func (k *checker) addresses(path string, list []string) {
	k.notEmpty(path, list)
	for i, addr := range list {
		path := fmt.Sprintf("%s[%d]", path, i)
		k.reachable(path, addr, 1)
		if slices.Contains(list[:i], addr) {
			k.problem(path, "%s is listed twice", addr)
		}
	}
}

// notEmpty rejects an empty list: it usually comes from a template whose members are missing.
func (k *checker) notEmpty(path string, list []string) {
	if list != nil && len(list) == 0 { //guard:empty-list-makes-sidecars-alone
		k.problem(path, "is an empty list, which would leave this sidecar alone; add members, or remove it")
	}
}

func (k *checker) noName(path, addr string) {
	h, _, err := address.Split(addr)
	if _, notIP := netip.ParseAddr(h); err == nil && notIP != nil && h != "" {
		k.problem(path, "%s is a name, but the proxies of listen.xds accept only ip:port", addr)
	}
}
