// Package address reads the addresses in a configuration: host:port, of a listener or of another program.
package address

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// MaxHost is the greatest length of a DNS name.
const MaxHost = 253

var host = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$`)

// Split splits host:port. The host is an IP address, a name or empty.
func Split(addr string) (h string, port uint16, err error) {
	h, p, err := net.SplitHostPort(addr)
	switch {
	case err != nil && strings.Count(addr, ":") > 1 && !strings.Contains(addr, "["):
		return "", 0, fmt.Errorf("got %q: an IPv6 address needs brackets, such as [2001:db8::1]:7072", addr)
	case err != nil:
		return "", 0, fmt.Errorf("got %q", addr)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("the port must be a number from 0 to 65535; got %q", addr)
	}
	if _, err := netip.ParseAddr(h); err != nil && h != "" && !IsHost(h) {
		return "", 0, fmt.Errorf("got %q", addr)
	}
	return h, uint16(n), nil
}

// IsHost reports whether h may be a host name.
func IsHost(h string) bool { return len(h) <= MaxHost && host.MatchString(h) }

// IsUnspecified reports whether a listener at h accepts connections to every address of the host.
func IsUnspecified(h string) bool {
	ip, err := netip.ParseAddr(h)
	return h == "" || err == nil && ip.IsUnspecified()
}

// IsLoopback reports whether only programs on this host reach h.
func IsLoopback(h string) bool {
	ip, err := netip.ParseAddr(h)
	return h == "localhost" || err == nil && ip.IsLoopback()
}
