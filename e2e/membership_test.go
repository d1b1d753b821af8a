package e2e

import (
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin/sqldb/sqlite/sqlitetest"
	"github.com/ringside-cache/ringside/sidecar/peer/peertest"
)

// source is a way to find members: what the conformance test needs of each.
type source struct {
	membership string               // in YAML
	more       string               // configuration
	client     string               // membership of another sidecar, a client; {{publishers}} are the xDS publishers of the first two
	publish    func(addrs []string) // lists members, where they do not register themselves
	down, up   func()               // nil if it cannot fail
	static     bool                 // a member that leaves stays on the rings
}

const members = 3

// TestMembershipConformance runs the same steps with members that find each other in each way.
func TestMembershipConformance(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T, addrs []string) source{
		"etcd": inEtcd, "A records and identities": inDNS, "SRV records": inSRV, "static": inList, "xDS": byXDS,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conform(t, open)
		})
	}
}

func inEtcd(t *testing.T, _ []string) source {
	etcd := rig.Etcd(t)
	return source{
		membership: fmt.Sprintf("{etcd: {endpoints: [%q], lease_ttl: 2s}}", etcd.Endpoint()),
		client:     fmt.Sprintf("{role: client, etcd: {endpoints: [%q], lease_ttl: 2s}}", etcd.Endpoint()),
		down:       etcd.Kill, up: etcd.Start, publish: func([]string) {},
	}
}

// byXDS is about a client of xDS publishers.
func byXDS(t *testing.T, addrs []string) source {
	s := inEtcd(t, addrs)
	s.client = "{xds: [{{publishers}}]}"
	return s
}

func inList(_ *testing.T, addrs []string) source {
	return source{
		membership: fmt.Sprintf("{static: [%q, %q, %q]}", addrs[0], addrs[1], addrs[2]), publish: func([]string) {}, static: true,
		client: fmt.Sprintf("{role: client, static: [%q, %q, %q]}", addrs[0], addrs[1], addrs[2]),
	}
}

// inDNS has records of both families, and each twice; only 127.0.0.0/8 answers. Each member has a certificate of its own.
func inDNS(t *testing.T, addrs []string) source {
	dns, ca, dir := rig.DNS(t), peertest.NewAuthority(t), t.TempDir()
	for _, id := range []string{"member-0", "member-1", "member-2", "client"} {
		var f peertest.Files
		f.CertFile, f.KeyFile, f.CAFile = filepath.Join(dir, id+".crt"), filepath.Join(dir, id+".key"), filepath.Join(dir, "ca.crt")
		f.Write(t, ca.Issue(t, peertest.AsMember(id)), ca.PEM())
	}
	return source{
		membership: fmt.Sprintf("{dns: ringside.apps.example., dns_server: %q}", dns.Address),
		client:     fmt.Sprintf("{role: client, dns: ringside.apps.example., dns_server: %q}", dns.Address),
		more: fmt.Sprintf("peer_tls: {cert_file: %[1]s/{{id}}.crt, key_file: %[1]s/{{id}}.key, ca_file: %[1]s/ca.crt, trust_domain: %s}\n",
			dir, peertest.TrustDomain),
		down: dns.Kill, up: dns.Start,
		publish: func(addrs []string) {
			var records []rig.DNSRecord
			for _, addr := range addrs {
				ip, _, _ := net.SplitHostPort(addr)
				one := rig.DNSRecord{Name: "ringside.apps.example", Type: "A", Content: ip}
				records = append(records, one, one)
			}
			if len(addrs) > 0 {
				records = append(records, rig.DNSRecord{Name: "ringside.apps.example", Type: "AAAA", Content: "fe80::1"})
			}
			dns.Set(records)
		},
	}
}

// inSRV has 60 targets without addresses, so that the answer is truncated over UDP.
func inSRV(t *testing.T, addrs []string) source {
	dns := rig.DNS(t)
	return source{
		membership: fmt.Sprintf("{dns: _peer._tcp.ringside.apps.example., dns_server: %q}", dns.Address),
		client:     fmt.Sprintf("{role: client, dns: _peer._tcp.ringside.apps.example., dns_server: %q}", dns.Address),
		down:       dns.Kill, up: dns.Start,
		publish: func(addrs []string) {
			const service = "_peer._tcp.ringside.apps.example"
			var records []rig.DNSRecord
			for i, addr := range addrs {
				ip, port, _ := net.SplitHostPort(addr)
				target := fmt.Sprintf("pod-%d.apps.example", i)
				records = append(records, rig.DNSRecord{Name: service, Type: "SRV", Content: "0 0 " + port + " " + target + "."},
					rig.DNSRecord{Name: target, Type: "A", Content: ip})
			}
			for i := range 60 * min(len(addrs), 1) {
				target := fmt.Sprintf("none-%d.apps.example", i)
				records = append(records, rig.DNSRecord{Name: service, Type: "SRV", Content: "0 0 7072 " + target + "."})
			}
			dns.Set(records)
		},
	}
}

// conformance is the members of one test.
type conformance struct {
	*testing.T
	source
	sidecars []*rig.Sidecar // the members, and the client
	addrs    []string
	http     http.Client
}

func conform(t *testing.T, open func(*testing.T, []string) source) {
	c := &conformance{T: t, http: http.Client{Timeout: 10 * time.Second}}
	t.Cleanup(c.http.CloseIdleConnections)
	_, port, _ := net.SplitHostPort(rig.FreeAddress(t))
	for i := range members { // A records have no port
		c.addrs = append(c.addrs, fmt.Sprintf("127.0.0.%d:%s", i+2, port))
	}
	c.source = open(t, c.addrs)
	path := sqlitetest.New(t, `CREATE TABLE rows (id TEXT PRIMARY KEY, v INTEGER); INSERT INTO rows VALUES ('a', 1)`)
	sidecar := func(id, membership string) *rig.Sidecar {
		return rig.NewSidecar(t, id, fmt.Sprintf(`%smembership: %s
origins: {db: {driver: sqlite, dsn: %q}}
datasets: {rows: {origin: db, table: rows, key: id, ttl: 1m}}
`, c.more, membership, path))
	}
	for i := range members {
		s := sidecar(fmt.Sprintf("member-%d", i), c.membership)
		s.ListenForPeers(c.addrs[i])
		s.PublishXDS()
		c.sidecars = append(c.sidecars, s)
	}
	publishers := fmt.Sprintf("%q, %q", c.sidecars[0].XDS, c.sidecars[1].XDS)
	client := sidecar("client", strings.Replace(c.source.client, "{{publishers}}", publishers, 1))
	client.ListenForPeers("127.0.0.9:" + port)
	client.RoleClient()
	c.sidecars = append(c.sidecars, client)
	c.run()
}

func (c *conformance) run() {
	a, b, last := c.sidecars[0], c.sidecars[1], c.sidecars[2]
	c.publish(c.addrs[:1])
	a.Start()
	c.publish(c.addrs[:2])
	b.Start()
	c.sidecars[members].Start()
	c.want("join", a, b)
	c.publish(c.addrs)
	last.Start()
	c.want("join of a third", a, b, last)
	last.Stop()
	c.want("leave, still listed", c.left(a, b)...)
	c.publish(c.addrs[:2])
	last.Start()
	c.publish(c.addrs)
	c.want("return", a, b, last)
	last.Kill()
	c.publish(c.addrs[:2])
	c.want("crash", c.left(a, b)...)
	c.outage()
	c.publish(c.addrs)
	last.Start()
	c.want("join after the outage", a, b, last)
	c.publish(c.addrs[1:])
	time.Sleep(6 * time.Second)
	c.want("the first is listed no longer, and still answers", a, b, last)
	if c.sidecars[members].Metric("ringside_member_role", `role="client"`) != 1 {
		c.Error("the client is a member")
	}
	for _, s := range c.sidecars {
		if got := s.Metric("ringside_internal_errors_total"); got != 0 {
			c.Errorf("%s: got %v internal errors", s.ID, got)
		}
	}
}

// outage: while the source is down or lists nobody, the ring stays.
func (c *conformance) outage() {
	if c.down == nil {
		return
	}
	a, b := c.sidecars[0], c.sidecars[1]
	c.down()
	time.Sleep(6 * time.Second) // more than a refresh of DNS, and more than the lease and the pings with etcd
	c.want("source down", a, b)
	c.up()
	c.want("source back", a, b)
	c.publish(nil)
	time.Sleep(6 * time.Second)
	c.want("the source lists nobody", a, b)
}

// left returns the members of the rings after the others have left.
func (c *conformance) left(rest ...*rig.Sidecar) []*rig.Sidecar {
	if c.static {
		return c.sidecars[:members]
	}
	return rest
}

// want waits until all running members have the same ring of the given members, and reads through each.
func (c *conformance) want(when string, want ...*rig.Sidecar) {
	c.Helper()
	var running []*rig.Sidecar
	for _, s := range c.sidecars {
		if s.Running() {
			running = append(running, s)
		}
	}
	rig.Eventually(c, 2*time.Minute, func() error {
		var ids []string
		for _, s := range running {
			id, n, err := s.RingID()
			if err == nil && n != len(want) && !c.static {
				err = fmt.Errorf("%s: the ring of %s has %d members; want %d:\n%s", when, s.ID, n, len(want), tail(s.Log()))
			}
			if err != nil {
				return err
			}
			ids = append(ids, id)
		}
		if len(slices.Compact(ids)) != 1 {
			return fmt.Errorf("%s: the members have the rings %q", when, ids)
		}
		return nil
	})
	for _, s := range running {
		response, err := c.http.Get(s.URL("rows", "a"))
		if err != nil || response.StatusCode != http.StatusOK {
			c.Errorf("%s: read through %s: %v, %v", when, s.ID, response, err)
			continue
		}
		response.Body.Close()
	}
}

func tail(log string) string {
	lines := strings.Split(log, "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}
