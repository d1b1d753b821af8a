package rig

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Nginx starts an nginx that answers every request with body and with the header fields of a sidecar's response, so that
// both send the same bytes. It returns its host:port.
func Nginx(t testing.TB, body string) (address string) {
	t.Helper()
	dir, port := t.TempDir(), FreePort(t)
	config := fmt.Sprintf(`
daemon off; pid %[1]s/nginx.pid; error_log stderr warn; worker_processes auto;
events { worker_connections 1024; }
http {
	access_log off; client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	keepalive_requests 1000000000;
	add_header ETag '"0123456789ab"'; add_header Age 1; add_header Cache-Control max-age=3599;
	add_header Cache-Status 'ringside; hit; ttl=3599'; add_header Ringside-Source hit;
	server { listen 127.0.0.1:%[2]d; location / { default_type application/json; return 200 '%[3]s'; } }
}`, dir, port, body)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatalf("rig: %v", err)
	}
	address = loopback(port)
	run(t, &process{
		t: t, name: "nginx", path: Program(t, "nginx", "/usr/sbin"), dir: dir, quit: syscall.SIGTERM,
		args: []string{"-p", dir, "-c", file, "-e", "stderr"}, ready: accepts(address),
	})
	return address
}

// Redis starts a Redis without persistence, and returns its host:port.
func Redis(t testing.TB) (address string) {
	t.Helper()
	port := FreePort(t)
	address = loopback(port)
	run(t, &process{
		t: t, name: "redis", path: Program(t, "redis-server"), dir: t.TempDir(), quit: syscall.SIGTERM,
		args:  []string{"--bind", "127.0.0.1", "--port", fmt.Sprint(port), "--save", "", "--appendonly", "no"},
		ready: accepts(address),
	})
	return address
}

// run starts a server and stops it at the end of the test.
func run(t testing.TB, p *process) {
	t.Helper()
	t.Cleanup(p.Stop)
	p.Start()
}

// accepts returns a check that a server accepts connections at address.
func accepts(address string) func(pid int) error {
	return func(int) error {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}
