package httpfield

import (
	"net/netip"
	"strings"
)

// Hosts are the names under which clients may address a server.
type Hosts map[string]bool

const localhost = "localhost"

// NewHosts returns Hosts with localhost and the given names.
func NewHosts(names []string) Hosts {
	h := Hosts{localhost: true}
	for _, name := range names {
		h[strings.ToLower(name)] = true
	}
	return h
}

// Allow reports whether a Host field names localhost, a loopback address or a listed name, with any port. Without this
// check, a website whose name an attacker has pointed at loopback (DNS rebinding) can read everything.
func (h Hosts) Allow(host string) bool {
	name := hostname(host)
	if h[name] || h[strings.ToLower(name)] {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.Unmap().IsLoopback()
}

// hostname returns a Host field without its port and without the brackets of an IPv6 address, or "" if it is malformed.
func hostname(host string) string {
	name, port := host, ""
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if name, port, ok = strings.Cut(inner, "]"); !ok || !strings.Contains(name, ":") {
			return ""
		}
	} else if i := strings.IndexByte(host, ':'); i >= 0 {
		name, port = host[:i], host[i:]
	}
	if port == "" || port == ":" || port[0] == ':' && isDigits(port[1:]) && len(port) <= 6 {
		return name
	}
	return ""
}

// AllowOrigin reports whether a page of an origin (RFC 6454, 7) may change things: one that this server, addressed by
// authority, may have served itself, or one on a listed host. A page of another local port has another origin.
func (h Hosts) AllowOrigin(origin, authority string) bool {
	_, host, ok := strings.Cut(origin, "://")
	name := strings.ToLower(hostname(host))
	return ok && (name != localhost && h[name] || h.Allow(host) && strings.EqualFold(host, authority)) //guard:page-of-another-local-port-writes guard:rebound-name-writes-where-any-host-is-accepted
}
