package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/ring/address"
	"github.com/ringside-cache/ringside/sidecar/config/decode"
)

func (k *checker) peerTLS() {
	t := k.config.PeerTLS
	switch {
	case t.Insecure && t != (PeerTLS{Insecure: true}):
		k.problem("peer_tls.insecure", "is true, but peer_tls also has fields of mutual TLS; remove one or the other")
	case t == PeerTLS{} && k.config.cluster(): //guard:cluster-without-authentication
		k.problem("peer_tls", "is missing: everybody who reaches the peer listener could read and change everything; set cert_file, "+
			"key_file and ca_file for mutual TLS, or insecure: true for plain text in a network where every host is trusted")
	case !t.On():
	case t.WorkloadAPI != "" && !t.files().zero():
		k.problem("peer_tls", "has workload_api and files; the certificate comes from only one of them")
	case t.WorkloadAPI != "":
		k.workloadAPI(t.WorkloadAPI)
	case t.CAFile == "" || t.CertFile == "":
		k.problem("peer_tls", "mutual TLS needs cert_file, key_file and ca_file, or workload_api; set all of them, or none")
	}
	if t.On() {
		k.identities()
	}
}

func (k *checker) workloadAPI(addr string) {
	u, err := url.Parse(addr)
	if err != nil || u.Scheme != "unix" && u.Scheme != "tcp" || u.Scheme == "unix" && (u.Host != "" || u.Path == "") {
		k.problem("peer_tls.workload_api", "want the URL of a socket, such as unix:///run/spire/agent.sock; got %q", addr)
	}
}

// identities checks which SPIFFE ids are accepted.
func (k *checker) identities() {
	if _, err := k.config.Scheme(); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			field, why, _ := strings.Cut(line, ": ")
			k.problem("peer_tls."+field, "%s", why)
		}
	}
	if name := k.config.PeerTLS.Name; name != "" && !address.IsHost(name) {
		k.problem("peer_tls.name", "want a DNS name; got %q", name)
	}
}

func (k *checker) membership() {
	m := k.config.Membership
	ways := 0
	for _, given := range []bool{len(m.Static) > 0, len(m.Etcd.Endpoints) > 0, m.DNS != "", len(m.XDS) > 0} {
		if given {
			ways++
		}
	}
	if ways > 1 {
		k.problem("membership", "set only one of etcd, dns, static and xds")
	}
	k.addresses("membership.static", m.Static, k.member)
	k.addresses("membership.xds", m.XDS, k.publisher)
	k.notEmpty("membership.etcd.endpoints", m.Etcd.Endpoints)
	k.dns(m)
	k.role(m)
	k.zones(m)
	k.listed(m)
	k.loopback(m.Static)
	if k.config.Membership.Etcd.Configured() {
		k.etcd(m.Etcd)
	}
}

func (k *checker) role(m Membership) {
	k.oneOf("membership.role", or(m.Role, RoleAuto), words["membership.role"])
	switch {
	case m.Role == "" && m.MaxMembers == 0:
	case m.Alone():
		k.problem("membership", "has a role or max_members, but no etcd, dns, static or xds; add one, or remove them")
	case m.Kind() == "xds" && m.Role != "" && m.Role != RoleClient:
		k.problem("membership.role", "with membership.xds this sidecar is a client; got %s", m.Role)
	}
	switch most := k.config.Ring.max(); {
	case m.MaxMembers > most: //guard:members-beyond-the-ring-own-nothing
		k.problem("membership.max_members", "is %d, but the ring has at most %d entries (ring.max), so some members would own "+
			"nothing; lower it, or raise ring.max on all members", m.MaxMembers, most)
	case m.MaxMembers > maxMaxMembers:
		k.problem("membership.max_members", "want at most %d; got %d", maxMaxMembers, m.MaxMembers)
	}
	if rest := len(m.Static) - k.config.maxMembers(); m.Role == RoleMember && rest > 0 {
		k.problem("membership.role", "is member, but %d of the listed members are beyond max_members (%d) and have to be clients; "+
			"set it to auto, or raise max_members on all of them", rest, k.config.maxMembers())
	}
}

// zones checks that this member and others know in which zone each is.
func (k *checker) zones(m Membership) {
	switch kind := m.Kind(); {
	case !m.Zones:
	case k.config.Node.Zone == "": //guard:zones-without-a-zone
		k.problem("membership.zones", "is true, but node.zone is not set: set it to the zone of the node, or remove zones")
	case kind == "none":
		k.problem("membership.zones", "is true, but there is no etcd or dns; add one, or remove zones")
	case kind != "etcd" && kind != "dns": //guard:zones-of-members-that-nobody-knows
		k.problem("membership.zones", "is true, but membership.%s does not say in which zone a member is; use etcd or dns, or "+
			"remove zones", kind)
	}
}

// maxMaxMembers is the limit of a directory.
const maxMaxMembers = 10_000

func (k *checker) dns(m Membership) {
	if m.DNS != "" && !address.IsHost(strings.TrimSuffix(m.DNS, ".")) {
		k.problem("membership.dns", "want a DNS name without a port, such as ringside.apps.svc, or _peer._tcp.ringside.apps.svc for "+
			"SRV records; got %q", m.DNS)
	}
	if m.DNSServer == "" {
		return
	}
	if m.DNS == "" {
		k.problem("membership.dns_server", "is set without membership.dns; add the name to look up, or remove it")
	}
	if at, err := netip.ParseAddrPort(m.DNSServer); err != nil || at.Port() == 0 {
		k.problem("membership.dns_server", "want ip:port, such as 127.0.0.1:8600; got %q", m.DNSServer)
	}
}

// listed checks that a static list has this member, if its address does not depend on the host.
func (k *checker) listed(m Membership) {
	static := m.Static
	_, port, err := address.Split(k.config.Node.Advertise)
	if len(static) > 0 && !m.Client() && err == nil && port != 0 && !slices.Contains(static, k.config.Node.Advertise) { //guard:unlisted-member-starts
		k.problem("membership.static", notListed, k.config.Node.Advertise)
	}
}

// loopback checks that this member may dial the listed ones, if its address is known before it starts.
func (k *checker) loopback(static []string) {
	self := or(k.config.Node.Advertise, k.config.peerListen())
	if h, _, err := address.Split(self); err != nil || address.IsUnspecified(h) {
		return
	}
	for i, addr := range static {
		if !address.Reachable(addr, self) {
			k.problem(fmt.Sprintf("membership.static[%d]", i),
				"%s is a loopback address, which this member, at %s, does not dial; give the member's address on the network", addr, self)
		}
	}
}

func (k *checker) etcd(e Etcd) {
	const path = "membership.etcd"
	if len(e.Endpoints) == 0 {
		k.problem(path+".endpoints", "is missing; give the URLs of the etcd members, such as https://etcd-0:2379")
	}
	for i, endpoint := range e.Endpoints {
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" || u.User != nil || (u.Scheme != "http" && u.Scheme != "https") {
			k.problem(fmt.Sprintf("%s.endpoints[%d]", path, i), "want a URL such as https://etcd-0:2379, without a password")
		}
	}
	if p := k.config.etcdPrefix(); !strings.HasPrefix(p, "/") || strings.HasSuffix(p, "/") {
		k.problem(path+".prefix", "want a path with a slash at the beginning and none at the end; got %q", p)
	}
	k.legacyPrefix(path+".legacy_prefix", e)
	if ttl := e.leaseTTL(); ttl < time.Second || ttl%time.Second != 0 {
		k.problem(path+".lease_ttl", "etcd counts leases in seconds; want 1s or more, without a fraction; got %s", ttl)
	}
	if (e.Username == "") != (e.PasswordFile == "") {
		k.problem(path, "username and password_file belong together; set both or neither")
	}
	if e.PasswordFile != "" {
		k.password(path+".password_file", e.PasswordFile)
	}
	k.files(path+".tls", e.TLS)
}

func (k *checker) password(path, file string) {
	if _, err := decode.ReadSecret(file, "password"); err != nil {
		k.problem(path, "%v", err)
	}
}

// legacyPrefix checks that the keys for groupcachepb clients and those of the members do not overlap.
func (k *checker) legacyPrefix(path string, e Etcd) {
	legacy, own := e.LegacyPrefix, k.config.etcdPrefix()
	switch {
	case legacy == "":
	case strings.HasSuffix(legacy, "/") || !etcdKey.MatchString(legacy) || len(legacy) > address.MaxHost:
		k.problem(path, "want the name that old clients resolve, such as GroupCache, without a slash at its end; got %q",
			legacy)
	case strings.HasPrefix(legacy+"/", own+"/") || strings.HasPrefix(own+"/", legacy+"/"):
		k.problem(path, "%q and the prefix %q overlap; choose another", legacy, own)
	}
}

const notListed = "%s is the address that this member advertises, but it is not in the static list of members: add it to " +
	"the list of every member, or correct node.advertise"

// CheckListed returns an *Error if there is a static list of members without addr, which this member advertises.
func (c Config) CheckListed(addr string) error {
	if static := c.Membership.Static; len(static) == 0 || c.Membership.Client() || slices.Contains(static, addr) {
		return nil
	}
	return &Error{Problems: []Problem{c.Problem("membership.static", notListed, addr)}}
}
