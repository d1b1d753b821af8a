package functions

import (
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// powerdns serves zones of the tables of Debian's schema. Each host has an address of both families.
var powerdns = &function{
	name: "powerdns", keys: 4000, reads: []string{"dns-lookups"}, alone: true, engines: []string{"postgres"},
	direct:   []string{"gpgsql.conf"},
	ringside: []string{"pdns.conf", "ringside.yaml", "postgres.sql"},
	fill:     fillDNS, start: startPowerDNS, ask: askDNS, traffic: dnsperf,
	requests: []request{
		{"A", []string{"host-7.zone-0.example", "A"}, "RCodeSuccess\nhost-7.zone-0.example. 60 A 10.0.0.7"},
		{"AAAA", []string{"host-7.zone-0.example", "AAAA"}, "RCodeSuccess\nhost-7.zone-0.example. 60 AAAA 2001:db8::7"},
		{"no such type", []string{"host-7.zone-0.example", "MX"}, "RCodeSuccess\nzone-0.example. 300 SOA"},
		{"MX", []string{"zone-0.example", "MX"}, "RCodeSuccess\nmx.zone-0.example. 60 A 192.0.2.2\nzone-0.example. 3600 MX 10 mx.zone-0.example."},
		{"NS", []string{"zone-0.example", "NS"}, "RCodeSuccess\nns1.zone-0.example. 60 A 192.0.2.1\nzone-0.example. 3600 NS ns1.zone-0.example."},
		{"SOA", []string{"zone-0.example", "SOA"}, "RCodeSuccess\nzone-0.example. 3600 SOA"},
		{"no such name", []string{"none.zone-0.example", "A"}, "RCodeNameError\nzone-0.example. 300 SOA"},
		{"wildcard", []string{"any.thing.wild.zone-0.example", "A"}, "RCodeSuccess\nany.thing.wild.zone-0.example. 60 A 192.0.2.3"},
		{"CNAME", []string{"alias.zone-0.example", "A"}, "RCodeSuccess\nalias.zone-0.example. 60 CNAME host-7.zone-0.example.\nhost-7.zone-0.example. 60 A 10.0.0.7"},
		{"no such zone", []string{"host.example.net", "A"}, "RCodeRefused"},
		{"capitals", []string{"HOST-7.Zone-0.example", "A"}, "RCodeSuccess\nHOST-7.Zone-0.example. 60 A 10.0.0.7"},
	},
	relayed: func(packet []byte) (string, bool) { return string(packet[:2]), true }, // RFC 1035: the ID
}

// hostsPerZone is the number of hosts of each zone.
const hostsPerZone = 40

func host(i int) string { return fmt.Sprintf("host-%d.zone-%d.example", i, i/hostsPerZone) }

func fillDNS(p *place) {
	p.sql.execFile("/usr/share/pdns-backend-pgsql/schema/schema.pgsql.sql")
	var zones, records []string
	add := func(zone int, name, kind, content string, ttl, prio int) {
		records = append(records, fmt.Sprintf("(%d, '%s', '%s', '%s', %d, %d)", zone+1, name, kind, content, ttl, prio))
	}
	for zone := range p.f.keys / hostsPerZone {
		name := fmt.Sprintf("zone-%d.example", zone)
		zones = append(zones, fmt.Sprintf("(%d, '%s', 'NATIVE')", zone+1, name))
		add(zone, name, "SOA", "ns1."+name+" hostmaster."+name+" 1 3600 600 86400 300", 3600, 0)
		add(zone, name, "NS", "ns1."+name, 3600, 0)
		add(zone, name, "MX", "mx."+name, 3600, 10)
		add(zone, "ns1."+name, "A", "192.0.2.1", 60, 0)
		add(zone, "mx."+name, "A", "192.0.2.2", 60, 0)
		add(zone, "*.wild."+name, "A", "192.0.2.3", 60, 0)
		add(zone, "alias."+name, "CNAME", host(zone*hostsPerZone+7), 60, 0)
	}
	for i := range p.f.keys {
		add(i/hostsPerZone, host(i), "A", fmt.Sprintf("10.0.%d.%d", i/256, i%256), 60, 0)
		add(i/hostsPerZone, host(i), "AAAA", fmt.Sprintf("2001:db8::%x", i), 60, 0)
	}
	p.sql.insert("domains", "id, name, type", zones)
	p.sql.insert("records", "domain_id, name, type, content, ttl, prio", records)
	p.createViews()
}

func startPowerDNS(t *testing.T, p *place) *rig.Server {
	t.Helper()
	if p.local != nil {
		p.page("pdns.conf", "127.0.0.1:7070", p.local.HTTP)
	} else {
		p.pageTo("gpgsql.conf", "pdns.conf", "port=5432", "port="+p.databasePort())
	}
	ready := func() error {
		_, err := askDNS(p, p.f.requests[0])
		return err
	}
	return rig.NewServer(t, rig.Program(t, "pdns_server", "/usr/sbin"), p.dir, ready, "--config-dir="+p.dir, "--socket-dir="+p.dir,
		"--local-address=127.0.0.1", "--local-port="+p.port(), "--daemon=no", "--guardian=no", "--security-poll-suffix=", "--loglevel=3")
}

// askDNS returns the code of the response and its records. Of the SOA it returns no content.
func askDNS(p *place, r request) (string, error) {
	name, err := dnsmessage.NewName(r.input[0] + ".")
	if err != nil {
		return "", err
	}
	types := map[string]dnsmessage.Type{"A": dnsmessage.TypeA, "AAAA": dnsmessage.TypeAAAA, "MX": dnsmessage.TypeMX,
		"NS": dnsmessage.TypeNS, "SOA": dnsmessage.TypeSOA}
	query := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 14},
		Questions: []dnsmessage.Question{{Name: name, Type: types[r.input[1]], Class: dnsmessage.ClassINET}},
	}
	packet, err := query.Pack()
	if err != nil {
		return "", err
	}
	conn, err := net.Dial("udp", p.address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second)) // fails on a closed connection only
	if _, err := conn.Write(packet); err != nil {
		return "", err
	}
	buffer := make([]byte, 4096)
	n, err := conn.Read(buffer)
	if err != nil {
		return "", err
	}
	var answer dnsmessage.Message
	if err := answer.Unpack(buffer[:n]); err != nil {
		return "", err
	}
	var records []string
	for _, record := range slices.Concat(answer.Answers, answer.Authorities, answer.Additionals) {
		records = append(records, recordText(record))
	}
	slices.Sort(records)
	return strings.Join(append([]string{answer.RCode.GoString()[len("dnsmessage."):]}, records...), "\n"), nil
}

func recordText(r dnsmessage.Resource) string {
	content := ""
	switch body := r.Body.(type) {
	case *dnsmessage.AResource:
		content = " " + net.IP(body.A[:]).String()
	case *dnsmessage.AAAAResource:
		content = " " + net.IP(body.AAAA[:]).String()
	case *dnsmessage.MXResource:
		content = fmt.Sprintf(" %d %s", body.Pref, body.MX)
	case *dnsmessage.NSResource:
		content = " " + body.NS.String()
	case *dnsmessage.CNAMEResource:
		content = " " + body.CNAME.String()
	}
	return fmt.Sprintf("%s %d %s%s", r.Header.Name, r.Header.TTL, strings.TrimPrefix(r.Header.Type.String(), "Type"), content)
}

var (
	dnsTotal = regexp.MustCompile(`Queries (sent|completed|lost): +(\d+)`)
	dnsCodes = regexp.MustCompile(`NOERROR (\d+)`)
)

func dnsperf(p *place, l load) (outcome, error) {
	var queries strings.Builder
	for _, i := range l.order() {
		fmt.Fprintln(&queries, host(i), "A")
	}
	to, port, _ := net.SplitHostPort(l.address)
	flags := []string{"-s", to, "-p", port, "-n", "1", "-t", "5", "-q", "64", "-c", "4"}
	if l.rate > 0 {
		flags = append(flags, "-Q", strconv.Itoa(l.rate))
	}
	cmd := exec.Command("dnsperf", flags...)
	cmd.Stdin = strings.NewReader(queries.String())
	began := time.Now()
	b, err := cmd.CombinedOutput()
	took := time.Since(began)
	totals := map[string]int{}
	for _, match := range dnsTotal.FindAllStringSubmatch(string(b), -1) {
		totals[match[1]], _ = strconv.Atoi(match[2]) // digits
	}
	if err != nil || totals["sent"] != l.requests {
		return outcome{}, fmt.Errorf("dnsperf has sent %d of %d queries: %w\n%s", totals["sent"], l.requests, err, b)
	}
	answered := 0
	if match := dnsCodes.FindStringSubmatch(string(b)); match != nil {
		answered, _ = strconv.Atoi(match[1]) // digits
	}
	return outcome{Requests: l.requests, Failed: l.requests - answered, Took: took, report: string(b)}, nil
}
