// Package address reads and checks addresses: host:port of a listener or of another program, and ip:port of a member. The
// configuration, the directory in etcd and the xDS lists use the same checks.
package address

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// MaxHost is the greatest length of a DNS name.
const MaxHost = 253

// maxAddr is the greatest length of host:port.
const maxAddr = MaxHost + len(":65535")

// Member checks the address of a member and returns it in its canonical form: all members must derive the same ring from
// it. It wants ip:port, because a member dials what another program wrote into the directory: a name would make it send
// DNS queries, and addresses that reach a service of the host (link-local: the metadata service of a cloud), many hosts or
// none are not those of members. Loopback is accepted; see Reachable.
func Member(addr string) (string, error) {
	if len(addr) > maxAddr {
		return "", fmt.Errorf("want ip:port; got %d bytes", len(addr))
	}
	h, port, err := Split(addr)
	if err != nil {
		return "", fmt.Errorf("want ip:port; %w", err)
	}
	ip, err := netip.ParseAddr(h)
	switch {
	case h == "":
		return "", fmt.Errorf("want ip:port; %q has no IP address", addr)
	case err != nil:
		return "", fmt.Errorf("want ip:port; %q has a name instead of an IP address", addr)
	}
	return MemberIP(ip, uint32(port))
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// MemberIP is Member for an address that is not text.
func MemberIP(ip netip.Addr, port uint32) (string, error) {
	ip = ip.Unmap()
	reject := func(why string) (string, error) {
		return "", fmt.Errorf("%s %s", net.JoinHostPort(ip.String(), strconv.FormatUint(uint64(port), 10)), why)
	}
	switch {
	case !ip.IsValid():
		return "", fmt.Errorf("want ip:port; the IP address is missing")
	case port == 0 || port > 65535:
		return reject("has no port that other members can dial; want 1 to 65535")
	case ip.Zone() != "":
		return reject("has a zone, which names an interface of one host only; remove it")
	case ip.IsUnspecified():
		return reject("is not an address that other members can dial; set the pod's own, such as [${POD_IP}]:7072")
	case ip.IsMulticast() || ip == broadcast:
		return reject("is a multicast or broadcast address; want that of one host")
	case ip.IsLinkLocalUnicast(): //guard:metadata-service-accepted-as-member
		return reject("is link-local; want an address that other hosts can dial")
	}
	return netip.AddrPortFrom(ip, uint16(port)).String(), nil
}

// Publisher checks the address of an xDS publisher. It may be a name, such as that of a Service: only the configuration has
// it, and no other program.
func Publisher(addr string) error {
	h, port, err := Split(addr)
	if _, notIP := netip.ParseAddr(h); err == nil && notIP == nil {
		_, err := Member(addr)
		return err
	}
	switch {
	case err != nil:
		return fmt.Errorf("want host:port; %w", err)
	case h == "":
		return fmt.Errorf("want host:port; %q has no host", addr)
	case port == 0:
		return errors.New("port 0 cannot be dialed; want 1 to 65535")
	}
	return nil
}

// Reachable reports whether a member that advertises self may dial addr, the valid address of a member. Loopback addresses
// are those of members only if all members are on this host: otherwise any record could make a member send requests to
// programs of its own pod.
func Reachable(addr, self string) bool {
	return !onLoopback(addr) || onLoopback(self) //guard:loopback-of-another-host-dialed
}

func onLoopback(addr string) bool {
	h, _, err := Split(addr)
	return err == nil && IsLoopback(h)
}

// Split splits host:port. The host is an IP address, a name or empty.
func Split(addr string) (h string, port uint16, err error) {
	h, p, err := net.SplitHostPort(addr)
	switch {
	case err != nil && strings.Count(addr, ":") > 1 && !strings.Contains(addr, "["):
		return "", 0, fmt.Errorf("got %.300q: an IPv6 address needs brackets, such as [2001:db8::1]:7072", addr)
	case err != nil:
		return "", 0, fmt.Errorf("got %.300q", addr)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("the port must be a number from 0 to 65535; got %.300q", addr)
	}
	if _, err := netip.ParseAddr(h); err != nil && h != "" && !IsHost(h) {
		return "", 0, fmt.Errorf("got %.300q, which has neither an IP address nor a host name", addr)
	}
	return h, uint16(n), nil
}

// label follows RFC 1123, 2.1, and also accepts the underscore of some DNS zones.
var label = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?$`)

// IsHost reports whether h may be a host name. A name whose last label is a number, such as 10.0.0.300, is a mistyped IP
// address: no top-level domain is a number (RFC 3696, 2).
func IsHost(h string) bool {
	if len(h) > MaxHost {
		return false
	}
	last := ""
	for last = range strings.SplitSeq(h, ".") {
		if len(last) > 63 || !label.MatchString(last) {
			return false
		}
	}
	return strings.Trim(last, "0123456789") != "" //guard:mistyped-ip-is-name
}

// IsUnspecified reports whether a listener at h accepts connections to every address of the host.
func IsUnspecified(h string) bool {
	ip, err := netip.ParseAddr(h)
	return h == "" || err == nil && ip.Unmap().IsUnspecified()
}

// IsLoopback reports whether only programs on this host reach h.
func IsLoopback(h string) bool {
	ip, err := netip.ParseAddr(h)
	return h == "localhost" || err == nil && ip.Unmap().IsLoopback()
}
