package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Nginx starts an nginx that answers every request with body, and the header fields that a cache's answer has, so that
// both send the same bytes. It returns its host:port.
func Nginx(t testing.TB, body string) (address string) {
	t.Helper()
	dir, port := t.TempDir(), freePort(t)
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
		t: t, name: "nginx", path: binary(t, "nginx", "/usr/sbin"), dir: dir, quit: syscall.SIGTERM,
		args: []string{"-p", dir, "-c", file, "-e", "stderr"}, ready: listening(address),
	})
	return address
}

// Redis starts a Redis that keeps nothing on disk, and returns its host:port.
func Redis(t testing.TB) (address string) {
	t.Helper()
	port := freePort(t)
	address = loopback(port)
	run(t, &process{
		t: t, name: "redis", path: binary(t, "redis-server"), dir: t.TempDir(), quit: syscall.SIGTERM,
		args:  []string{"--bind", "127.0.0.1", "--port", fmt.Sprint(port), "--save", "", "--appendonly", "no"},
		ready: listening(address),
	})
	return address
}

func run(t testing.TB, p *process) {
	t.Helper()
	t.Cleanup(p.Stop)
	p.Start()
}
