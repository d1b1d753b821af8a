package membership

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/ring"
	"github.com/ringside-cache/ringside/ring/address"
	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/audit"
	"github.com/ringside-cache/ringside/sidecar/internal/caller"
	"github.com/ringside-cache/ringside/sidecar/peer/mtls"
)

// Identify returns this member as it describes itself to others. bound is the address of the peer listener, nil if there
// is none.
func Identify(c config.Config, bound net.Addr, version string, started time.Time) (ring.Member, error) {
	addr, err := advertisedAddress(c.Node.Advertise, bound)
	if err != nil {
		return ring.Member{}, err
	}
	if bound == nil && c.Membership.Client() {
		addr = clientAddress(c.Node.Advertise)
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
	if c.Membership.Kind() == "static" && !c.Membership.Client() {
		id = addr // a static list has only addresses, and all members must use the same ids
	}
	// Without a peer listener there is no address, and the ring, which has this member alone, hashes the id.
	return ring.Member{
		ID: id, HashKey: cmp.Or(addr, id), Addr: addr, Zone: c.Node.Zone, Version: version, Started: started,
		Ring: c.Ring.Size(),
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

// clientAddress returns where a client is. Nobody calls it there; DNS needs the port of the members, which is the default one unless
// the client names another one.
func clientAddress(advertise string) string {
	host, port, err := net.SplitHostPort(advertise)
	if err != nil || port != "0" {
		return advertise
	}
	return net.JoinHostPort(host, defaultPort)
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

// workloadAPITimeout bounds the wait for the first certificate: an agent needs some time for the entry of a new pod.
const workloadAPITimeout = 30 * time.Second

// OpenTLS opens the certificate of this member, whose id on the ring is self. It returns nil if there is none: members then use
// plain text. Rejected connections are in the log and in the audit log, which may be nil.
func OpenTLS(ctx context.Context, c config.Config, self string, audits *audit.Log, log *zap.Logger) (*mtls.Credentials, error) {
	t := c.PeerTLS
	if !t.On() {
		return nil, nil
	}
	scheme, err := c.Scheme()
	if err != nil {
		return nil, fmt.Errorf("peer_tls: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, workloadAPITimeout)
	defer cancel()
	rejections := rejectionLog{log: log, audit: audits}
	creds, err := mtls.New(ctx, mtls.Config{
		CertFile: t.CertFile, KeyFile: t.KeyFile, CAFile: t.CAFile, WorkloadAPI: t.WorkloadAPI,
		Scheme: scheme, Self: self, Name: t.Name, OnReject: rejections.add,
	})
	if err != nil {
		return nil, fmt.Errorf("peer_tls: %w", err)
	}
	return creds, nil
}

// rejectionLog logs rejected connections, in the log at most one per second: anybody can cause them.
type rejectionLog struct {
	audit *audit.Log
	log   *zap.Logger

	mu      sync.Mutex // guards the rest
	last    time.Time
	skipped int
}

func (r *rejectionLog) add(addr net.Addr, reason mtls.Reason, err error) {
	from, why := "", printable.Text(err.Error()) // it has names from the certificate
	if addr != nil {
		from = addr.String()
	}
	r.audit.Record(audit.Event{
		Action: audit.Handshake, Caller: caller.Caller{Addr: from}, Result: string(reason), Refused: true, Detail: why,
	})
	r.mu.Lock()
	now := time.Now()
	if now.Sub(r.last) < time.Second { //guard:rejections-fill-log
		r.skipped++
		r.mu.Unlock()
		return
	}
	skipped := r.skipped
	r.last, r.skipped = now, 0
	r.mu.Unlock()
	r.log.Warn("rejected a TLS connection", zap.String("address", from), zap.String("reason", string(reason)), zap.String("error", why),
		zap.Int("more_since_the_last_line", skipped))
}

// SelfID returns the id of this member on the ring as far as the configuration determines it; empty if its port does.
func SelfID(c config.Config) string {
	if c.Membership.Kind() == "static" && !c.Membership.Client() {
		if _, port, err := net.SplitHostPort(c.Node.Advertise); err != nil || port == "0" {
			return ""
		}
		return c.Node.Advertise
	}
	if c.Node.ID != "" {
		return c.Node.ID
	}
	host, _ := os.Hostname() // a host without a name fails at the start
	return host
}
