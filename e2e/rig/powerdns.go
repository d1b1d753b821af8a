package rig

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// DNSServer is a PowerDNS with the zone example, whose records a test changes at any time.
type DNSServer struct {
	*process
	Address string // ip:port

	mu      sync.Mutex // guards records
	records []DNSRecord
}

// DNSRecord is a record; Name has no final dot.
type DNSRecord struct{ Name, Type, Content string }

// DNS starts a PowerDNS and stops it at the end of the test. It caches nothing.
func DNS(t testing.TB) *DNSServer {
	t.Helper()
	d := &DNSServer{Address: FreeAddress(t)}
	backend := httptest.NewServer(http.HandlerFunc(d.answer))
	t.Cleanup(backend.Close)
	_, port, _ := net.SplitHostPort(d.Address)
	dir := t.TempDir()
	d.process = &process{
		t: t, name: "pdns_server", path: Program(t, "pdns_server", "/usr/sbin"), dir: dir,
		ready: func(int) error { return d.ask() },
		args: []string{
			"--config-dir=" + dir, "--socket-dir=" + dir, "--daemon=no", "--guardian=no", "--security-poll-suffix=", "--loglevel=4",
			"--local-address=127.0.0.1", "--local-port=" + port, "--launch=remote",
			"--remote-connection-string=http:url=" + backend.URL,
			"--cache-ttl=0", "--query-cache-ttl=0", "--negquery-cache-ttl=0", "--zone-cache-refresh-interval=0",
		},
	}
	t.Cleanup(d.Kill)
	d.Start()
	return d
}

// Set replaces all records.
func (d *DNSServer) Set(records []DNSRecord) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records = records
}

// answer implements the HTTP interface of PowerDNS's remote backend: GET /lookup/NAME/TYPE, and others that it does not need.
func (d *DNSServer) answer(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	var result any = false
	if len(parts) == 3 && parts[0] == "lookup" {
		result = d.lookup(strings.TrimSuffix(parts[1], "."), parts[2])
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"result": result}) // PowerDNS asks again
}

func (d *DNSServer) lookup(name, kind string) any {
	list := []map[string]any{}
	add := func(r DNSRecord) {
		if r.Name == name && (kind == "ANY" || kind == r.Type) {
			list = append(list, map[string]any{"qtype": r.Type, "qname": r.Name + ".", "content": r.Content, "ttl": 0, "domain_id": 1})
		}
	}
	add(DNSRecord{"example", "SOA", "ns.example. root.example. 1 3600 600 86400 1"})
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.records {
		add(r)
	}
	if len(list) == 0 {
		return false
	}
	return list
}

// ask returns nil if the server answers.
func (d *DNSServer) ask() error {
	query := dnsmessage.Message{
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("example."), Type: dnsmessage.TypeSOA, Class: dnsmessage.ClassINET}},
	}
	packet, err := query.Pack()
	if err != nil {
		return err
	}
	conn, err := net.Dial("tcp", d.Address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write(append([]byte{byte(len(packet) >> 8), byte(len(packet))}, packet...)); err != nil {
		return err
	}
	head := make([]byte, 6)
	if _, err := conn.Read(head); err != nil {
		return err
	}
	if code := head[5] & 15; code != 0 {
		return fmt.Errorf("DNS response code %d", code)
	}
	return nil
}
