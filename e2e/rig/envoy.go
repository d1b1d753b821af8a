package rig

import (
	"encoding/json"
	"net"
	"path/filepath"
	"syscall"
	"testing"
)

// EnvoyServer is an Envoy with one of the configurations of deploy/envoy.
type EnvoyServer struct {
	*process
	HTTP, Admin string // host:port
}

// EnvoyTLS are the PEM files of an Envoy whose configuration is envoy-mtls.yaml.
type EnvoyTLS struct{ Cert, Key, CA string }

// Envoy starts an Envoy that gets its ring from the xDS server at an address (host:port), and waits until it has one. The
// Envoy ends with the test. The configuration is the one in deploy/envoy with other ports. The binary is .bin/envoy.
func Envoy(t testing.TB, xds string) *EnvoyServer {
	t.Helper()
	return startEnvoy(t, "envoy.yaml", xds)
}

// EnvoyWithTLS is Envoy for members with TLS.
func EnvoyWithTLS(t testing.TB, xds string, identity EnvoyTLS) *EnvoyServer {
	t.Helper()
	dir, tls := t.TempDir(), filepath.Dir(identity.Cert)
	identityFile, membersFile := filepath.Join(dir, "identity.yaml"), filepath.Join(dir, "members.yaml")
	substitute(t, "identity.yaml", identityFile, "/etc/ringside/tls/tls.crt", identity.Cert,
		"/etc/ringside/tls/tls.key", identity.Key, "path: /etc/ringside/tls", "path: "+tls)
	substitute(t, "members.yaml", membersFile, "/etc/ringside/tls/ca.crt", identity.CA, "path: /etc/ringside/tls", "path: "+tls)
	replace := []string{"/etc/envoy/identity.yaml", identityFile, "/etc/envoy/members.yaml", membersFile}
	if host, _, _ := net.SplitHostPort(xds); host != "127.0.0.1" { // as the comment there says
		replace = append(replace, "address: 127.0.0.1, port_value: 7074", "address: "+host+", port_value: "+port(t, xds), "#transport_socket: *mtls", "transport_socket: *mtls")
	}
	return startEnvoy(t, "envoy-mtls.yaml", xds, replace...)
}

func startEnvoy(t testing.TB, name, xds string, replace ...string) *EnvoyServer {
	t.Helper()
	dir := t.TempDir()
	e := &EnvoyServer{HTTP: FreeAddress(t), Admin: FreeAddress(t)}
	file := filepath.Join(dir, name)
	substitute(t, name, file, append(replace,
		"port_value: 7080", "port_value: "+port(t, e.HTTP), "port_value: 9901", "port_value: "+port(t, e.Admin),
		"port_value: 7074", "port_value: "+port(t, xds))...)
	e.process = &process{
		t: t, name: "envoy", path: Program(t, "envoy", filepath.Join(repository(t), ".bin")), dir: dir, quit: syscall.SIGTERM,
		args: []string{"-c", file, "--disable-hot-restart", "--concurrency", "2", "--log-level", "warn"},
		ready: func(int) error {
			_, err := fetch("http://" + e.Admin + "/ready")
			return err
		},
	}
	t.Cleanup(e.Kill)
	e.Start()
	return e
}

// substitute copies a file of deploy/envoy and replaces texts. Each text must be in the file.
func substitute(t testing.TB, name, to string, replace ...string) {
	t.Helper()
	CopyPage(t, filepath.Join("deploy", "envoy", name), to, replace...)
}

func port(t testing.TB, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatalf("rig: %v", err)
	}
	return port
}

// Stat returns one of Envoy's counters or gauges, or 0 if there is none of that name.
func (e *EnvoyServer) Stat(name string) int64 {
	e.t.Helper()
	body, err := fetch("http://" + e.Admin + "/stats?format=json&filter=^" + name + "$")
	if err != nil {
		e.t.Fatalf("rig: stats of Envoy: %v", err)
	}
	var answer struct {
		Stats []struct {
			Name  string
			Value int64
		}
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		e.t.Fatalf("rig: stats of Envoy: %v", err)
	}
	for _, s := range answer.Stats {
		if s.Name == name {
			return s.Value
		}
	}
	return 0
}
