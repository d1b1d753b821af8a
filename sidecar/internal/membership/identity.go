package membership

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/address"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/peer/mtls"
)

// Identify returns this member as it describes itself to others. bound is the address of the peer listener, nil if there
// is none.
func Identify(c config.Config, bound net.Addr, version string, started time.Time) (ring.Member, error) {
	addr, err := advertisedAddress(c.Node.Advertise, bound)
	if err != nil {
		return ring.Member{}, err
	}
	id := c.Node.ID
	if id == "" {
		if id, err = os.Hostname(); err != nil {
			return ring.Member{}, fmt.Errorf("node.id is not set, and the host has no name: %w", err)
		}
	}
	if err := c.CheckListed(addr); err != nil {
		return ring.Member{}, err
	}
	if c.Membership.Kind() == "static" {
		id = addr // a static list has only addresses, and all members must use the same ids
	}
	// Without a peer listener there is no address, and the ring, which has this member alone, hashes the id.
	return ring.Member{
		ID: id, HashKey: cmp.Or(addr, id), Addr: addr, Zone: c.Node.Zone, Version: version, Started: started,
	}, nil
}

// advertisedAddress returns the address at which other members reach this one; empty without a peer listener.
func advertisedAddress(advertise string, bound net.Addr) (string, error) {
	if bound == nil {
		return "", nil
	}
	addr, err := dialedAddress(advertise, bound)
	if err != nil {
		return "", err
	}
	canonical, err := address.Member(addr)
	if err != nil {
		return "", fmt.Errorf("the address that this member advertises: %w: set node.advertise", err)
	}
	return canonical, nil
}

func dialedAddress(advertise string, bound net.Addr) (string, error) {
	tcp, ok := bound.(*net.TCPAddr)
	if !ok {
		return "", fmt.Errorf("the peer listener has the address %s, which is not TCP", bound)
	}
	if advertise != "" {
		host, port, err := net.SplitHostPort(advertise)
		if port == "0" {
			port = strconv.Itoa(tcp.Port)
		}
		return net.JoinHostPort(host, port), err
	}
	if !tcp.IP.IsUnspecified() {
		return tcp.String(), nil
	}
	ip, err := firstAddress()
	return net.JoinHostPort(ip, strconv.Itoa(tcp.Port)), err
}

// firstAddress returns the first address of this host that other hosts can reach, or loopback if it has no other.
func firstAddress() (string, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "", fmt.Errorf("node.advertise is not set, and the addresses of this host are unknown: %w", err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() {
			return n.IP.String(), nil
		}
	}
	return "127.0.0.1", nil
}

// OpenTLS reads the certificate of this member. It returns nil if there is none: members then use plain text.
func OpenTLS(t config.PeerTLS) (*mtls.Credentials, error) {
	if !t.On() {
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
