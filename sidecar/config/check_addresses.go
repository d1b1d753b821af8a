package config

import (
	"fmt"
	"net"
	"slices"

	"github.com/ringside-cache/ringside/ring/address"
)

// advertise checks the address at which other members reach this one. Port 0 is replaced by the bound one.
func (k *checker) advertise(path, addr string) {
	if h, port, err := address.Split(addr); err == nil && port == 0 {
		addr = net.JoinHostPort(h, "1")
	}
	k.member(path, addr)
}

func (k *checker) member(path, addr string) {
	if _, err := address.Member(addr); err != nil {
		k.problem(path, "%v", err)
	}
}

func (k *checker) publisher(path, addr string) {
	if err := address.Publisher(addr); err != nil {
		k.problem(path, "%v", err)
	}
}

// tcpListeners returns path and address of each listener that has a port.
func (c Config) tcpListeners() [][2]string {
	l := c.Listen
	return [][2]string{
		{"listen.http", l.http()}, {"listen.grpc", l.grpc()}, {"listen.redis", l.redis()}, {"listen.otlp", l.otlp()}, {"listen.peer", c.peerListen()},
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
	case m.Kind() == "xds" && !closed:
		k.problem("listen.peer", "is on, but as a client this sidecar is not on the ring and gets no peer requests; remove it")
	case m.Client(): // proxies of its publisher send requests to the members
	case closed && k.config.Listen.xds() != off:
		k.problem("listen.xds", "is on, but listen.peer is off, to which proxies send their requests")
	}
	if closed && !m.Alone() && !m.Client() {
		k.problem("listen.peer", "is off, but there is a membership: other members cannot reach this one")
	}
}

// addresses checks a list of addresses that this sidecar dials.
func (k *checker) addresses(path string, list []string, check func(path, addr string)) {
	k.notEmpty(path, list)
	for i, addr := range list {
		path := fmt.Sprintf("%s[%d]", path, i)
		check(path, addr)
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
