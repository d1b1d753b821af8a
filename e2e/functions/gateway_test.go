package functions

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
)

// The gateways nginx, HAProxy and Envoy read the key of an API from X-Api-Key, and use what the database has for it.

// gatewayRequests are the kinds of requests, with the answer of gateways that send the tenant to the application.
var gatewayRequests = []request{
	{"active key", []string{"key-8"}, "200 /x tenant-1"},
	{"active key of another tenant", []string{"key-9"}, "200 /x tenant-2"},
	{"suspended key", []string{"suspended"}, "403"},
	{"unknown key", []string{"nobody"}, "403"},
	{"no key", []string{""}, "403"},
	{"key with special characters", []string{"key-8?a=../key-9"}, "403"},
}

// keyText returns the name of a key, keyTenant its tenant and keyPool its pool.
func keyText(i int) string   { return "key-" + strconv.Itoa(i) }
func keyTenant(i int) string { return "tenant-" + strconv.Itoa(i%7) }
func keyPool(i int) string   { return []string{"blue", "green"}[i%2] }

func fillKeys(p *place) {
	p.sql.exec("CREATE TABLE api_keys (api_key varchar(64) PRIMARY KEY, tenant varchar(64) NOT NULL, pool varchar(64) NOT NULL, active boolean NOT NULL)")
	rows := []string{"('suspended', 'tenant-1', 'blue', false)"}
	for i := range p.f.keys {
		rows = append(rows, fmt.Sprintf("('%s', '%s', '%s', true)", keyText(i), keyTenant(i), keyPool(i)))
	}
	p.sql.insert("api_keys", "api_key, tenant, pool, active", rows)
}

// startApplication starts what is behind a gateway. It answers with the path and, if it has no name, the tenant that the gateway sent.
func startApplication(t *testing.T, name string) (address string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := name
		if answer == "" {
			answer = r.Header.Get("X-Tenant")
		}
		fmt.Fprintf(w, "%s %s", r.URL.Path, answer)
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// askGateway returns the status of the answer and, if it is that of the application, the content.
func askGateway(p *place, r request) (string, error) {
	req, err := http.NewRequest("GET", "http://"+p.address+"/x", nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("X-Api-Key", r.input[0])
	response, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK {
		body = nil
	}
	return strings.TrimSpace(strconv.Itoa(response.StatusCode) + " " + string(body)), err
}

// gatewayReady waits for a gateway, whose sidecar runs.
func gatewayReady(p *place) func() error {
	return func() error {
		_, err := askGateway(p, p.f.requests[0])
		return err
	}
}

// wrk returns the traffic of a gateway whose applications answer with the path and the given text of each key.
func wrk(answer func(key int) string) func(p *place, l load) (outcome, error) {
	return func(p *place, l load) (outcome, error) {
		const connections = 16
		var lines strings.Builder
		for _, key := range l.order() {
			fmt.Fprintf(&lines, "%s %s\n", keyText(key), answer(key))
		}
		keys := filepath.Join(p.dir, "keys")
		if err := os.WriteFile(keys, []byte(lines.String()), 0o600); err != nil {
			return outcome{}, err
		}
		most, rate := 2*time.Minute, float64(l.rate)/connections
		if l.rate > 0 { // a gateway whose database is frozen answers fewer
			most = time.Duration(l.requests) * time.Second / time.Duration(l.rate)
		}
		cmd := exec.Command("wrk", "-t", "1", "-c", strconv.Itoa(min(connections, l.requests)), "--timeout", "10s",
			"-d", strconv.Itoa(int(most.Seconds()+1))+"s", "-s", "wrk.lua", "http://"+l.address, "--",
			keys, strconv.Itoa(l.requests), fmt.Sprint(rate))
		began := time.Now()
		out, err := cmd.CombinedOutput()
		o := outcome{Took: time.Since(began)}
		begin := strings.LastIndex(string(out), "\n{")
		if err == nil && begin < 0 {
			err = errors.New("wrk has printed no result")
		}
		if err == nil {
			err = json.Unmarshal(out[begin:], &o)
		}
		if err != nil {
			return outcome{}, fmt.Errorf("wrk: %w\n%s", err, out)
		}
		return o, nil
	}
}

var (
	tenantLookup = lookup{
		path: "/v1/tenants/", query: "SELECT tenant FROM api_keys WHERE api_key = $1 AND active", absent: http.StatusForbidden, header: "X-Tenant",
	}
	poolLookup = lookup{
		path: "/v1/pools/", query: "SELECT pool FROM api_keys WHERE api_key = $1 AND active", absent: http.StatusNotFound,
	}
)

// nginx asks by auth_request whether a key is valid.
var nginx = &function{
	name: "nginx", keys: 4000, reads: []string{"tenants"}, engines: []string{"postgres"},
	ringside: []string{"nginx.conf", "ringside.yaml"}, direct: []string{"nginx.conf", lookupService},
	fill: fillKeys, ask: askGateway, traffic: wrk(keyTenant), requests: gatewayRequests,
	start: func(t *testing.T, p *place) *rig.Server {
		t.Helper()
		local, secondary := p.lookups(tenantLookup)
		page := p.page("nginx.conf", "127.0.0.1:8080", p.address, "127.0.0.1:8081", startApplication(t, ""),
			"127.0.0.1:7070", local, "10.0.0.6:7072", secondary)
		return rig.NewServer(t, rig.Program(t, "nginx", "/usr/sbin"), p.dir, gatewayReady(p), "-p", p.dir, "-c", page, "-e", "stderr",
			"-g", "daemon off; pid "+filepath.Join(p.dir, "nginx.pid")+";")
	},
}

// envoy asks by ext_authz whether a key is valid.
var envoy = &function{
	name: "envoy", keys: 4000, reads: []string{"tenants"}, engines: []string{"postgres"},
	ringside: []string{"envoy.yaml", "ringside.yaml"}, direct: []string{"envoy.yaml", lookupService},
	fill: fillKeys, ask: askGateway, traffic: wrk(keyTenant), requests: gatewayRequests,
	start: func(t *testing.T, p *place) *rig.Server {
		t.Helper()
		local, secondary := p.lookups(tenantLookup)
		endpoint := func(address string) string {
			return strings.Replace(address, ":", ", port_value: ", 1)
		}
		page := p.page("envoy.yaml", endpoint("127.0.0.1:8080"), endpoint(p.address), endpoint("127.0.0.1:9901"), endpoint(rig.FreeAddress(t)),
			endpoint("127.0.0.1:7079"), endpoint(rig.FreeAddress(t)), endpoint("127.0.0.1:8081"), endpoint(startApplication(t, "")),
			endpoint("127.0.0.1:7070"), endpoint(local), endpoint("10.0.0.6:7072"), endpoint(secondary))
		programs, err := filepath.Abs(filepath.Join("..", "..", ".bin"))
		if err != nil {
			t.Fatal(err)
		}
		return rig.NewServer(t, rig.Program(t, "envoy", programs), p.dir, gatewayReady(p), "-c", page,
			"--disable-hot-restart", "--concurrency", "2", "--log-level", "warn")
	},
}

// haproxy selects the backend of a key.
var haproxy = &function{
	name: "haproxy", keys: 4000, reads: []string{"pools"}, engines: []string{"postgres"},
	ringside: []string{"haproxy.cfg", "ringside.lua", "ringside.yaml"}, direct: []string{"haproxy.cfg", "ringside.lua", lookupService},
	fill: fillKeys, ask: askGateway, traffic: wrk(keyPool), requests: inPools(gatewayRequests),
	start: func(t *testing.T, p *place) *rig.Server {
		t.Helper()
		local, secondary := p.lookups(poolLookup)
		lookups := rig.FreeAddress(t)
		lua := p.page("ringside.lua", "127.0.0.1:7079", lookups)
		page := p.page("haproxy.cfg", "127.0.0.1:8080", p.address, "127.0.0.1:8081", startApplication(t, "blue"),
			"127.0.0.1:8082", startApplication(t, "green"), "127.0.0.1:7079", lookups, "/etc/haproxy/ringside.lua", lua,
			"127.0.0.1:7070", local, "10.0.0.6:7072", secondary)
		return rig.NewServer(t, rig.Program(t, "haproxy", "/usr/sbin"), p.dir, gatewayReady(p), "-db", "-f", page)
	},
}

// inPools returns the requests with the answers of the applications behind haproxy.
func inPools(requests []request) []request {
	pooled := make([]request, len(requests))
	for i, r := range requests {
		r.want = strings.NewReplacer("tenant-1", keyPool(8), "tenant-2", keyPool(9)).Replace(r.want)
		pooled[i] = r
	}
	return pooled
}
