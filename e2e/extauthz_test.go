package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin/sqldb/sqlite/sqlitetest"
)

// extAuthz takes the addresses of Envoy, of the sidecar's gRPC listener and of the application, each as "address, port_value: port".
const extAuthz = `
static_resources:
  listeners:
    - name: api
      address: {socket_address: {address: %s}}
      filter_chains:
        - filters:
            - name: http
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: api
                http_filters:
                  - name: ext_authz
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
                      status_on_error: {code: ServiceUnavailable}
                      grpc_service: {envoy_grpc: {cluster_name: ringside}, timeout: 2s}
                  - name: router
                    typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
                route_config: {virtual_hosts: [{name: api, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: application}}]}]}
  clusters:
    - name: ringside
      type: STATIC
      connect_timeout: 0.2s
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config: {http2_protocol_options: {}}
      load_assignment: {cluster_name: ringside, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s}}}}]}]}
    - name: application
      type: STATIC
      load_assignment: {cluster_name: application, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s}}}}]}]}
`

// Envoy asks the sidecar by gRPC whether a request is allowed, without a listener in between: its application gets the columns of
// the row, and never what the client has sent in their place.
func TestEnvoyAsksByGRPC(t *testing.T) {
	t.Parallel()
	rig.NeedServers(t)
	path := sqlitetest.New(t, `CREATE TABLE clients (api_key TEXT PRIMARY KEY, tenant TEXT);
		INSERT INTO clients VALUES ('key-1', 'tenant-1'), ('no-tenant', NULL), ('key/2 ä', 'Zürich')`)
	s := rig.NewSidecar(t, "sidecar-1", fmt.Sprintf(`
origins: {db: {driver: sqlite, dsn: %q}}
datasets: {clients: {origin: db, table: clients, key: api_key, headers: {X-Tenant: tenant}, ttl: 1s, stale_if_error: 1h, absent: {status: 403}}}
ext_authz: {dataset: clients, header: x-api-key}
`, path))
	s.Start()
	application := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%q", r.Header["X-Tenant"])
	}))
	t.Cleanup(application.Close)

	dir, address := t.TempDir(), rig.FreeAddress(t)
	endpoint := func(address string) string { return strings.Replace(address, ":", ", port_value: ", 1) }
	config := filepath.Join(dir, "envoy.yaml")
	text := fmt.Sprintf(extAuthz, endpoint(address), endpoint(s.GRPC), endpoint(application.Listener.Addr().String()))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ask := func(key string) string {
		r, err := http.NewRequest("POST", "http://"+address+"/any", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Tenant", "forged")
		if key != "" {
			r.Header.Set("X-Api-Key", key)
		}
		response, err := (&http.Client{Timeout: 10 * time.Second}).Do(r)
		if err != nil {
			return err.Error()
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			return fmt.Sprint(response.StatusCode)
		}
		return "200 " + string(body)
	}
	ready := func() error {
		if got := ask("key-1"); !strings.HasPrefix(got, "200") {
			return fmt.Errorf("a valid key: %s", got)
		}
		return nil
	}
	programs, err := filepath.Abs("../.bin")
	if err != nil {
		t.Fatal(err)
	}
	rig.NewServer(t, rig.Program(t, "envoy", programs), dir, ready, "-c", config, "--disable-hot-restart", "--concurrency", "1", "--log-level", "warn")

	check := func(wants map[string]string) {
		t.Helper()
		for key, want := range wants {
			if got := ask(key); got != want {
				t.Errorf("key %q: got %s, want %s", key, got, want)
			}
		}
	}
	check(map[string]string{
		"key-1": `200 ["tenant-1"]`, "no-tenant": "200 []", "key/2 ä": `200 ["Zürich"]`, "nobody": "403", "": "403", strings.Repeat("k", 4000): "403",
	})
	defer sqlitetest.Lock(t, path)()
	time.Sleep(1100 * time.Millisecond) // entries expire
	check(map[string]string{"key-1": `200 ["tenant-1"]`, "never read": "503"})
	s.Stop()
	check(map[string]string{"key-1": "503"})
}
