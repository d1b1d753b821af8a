package rig

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Rival is a server that benchmarks compare with a sidecar.
type Rival struct {
	*process
	Address string // host:port
}

// startRival starts a program at address, and waits until it accepts connections. It ends with the test.
func startRival(t testing.TB, address, program, dir string, args ...string) *Rival {
	t.Helper()
	p := &process{
		t: t, name: filepath.Base(program), path: program, dir: dir, quit: syscall.SIGTERM, args: args, ready: accepts(address),
	}
	run(t, p)
	return &Rival{p, address}
}

// Nginx starts an nginx that answers every request with body and with the header fields of a sidecar's response, so that
// both send the same bytes.
func Nginx(t testing.TB, body string) *Rival {
	t.Helper()
	return nginx(t, "", fmt.Sprintf(`default_type application/json;
		add_header ETag '"0123456789ab"'; add_header Age 1; add_header Cache-Control max-age=3599;
		add_header Cache-Status 'ringside; hit; ttl=3599'; add_header Ringside-Source hit;
		return 200 '%s';`, body))
}

// NginxCache starts an nginx that caches the responses of the server at origin.
func NginxCache(t testing.TB, origin string) *Rival {
	t.Helper()
	return nginx(t, "proxy_cache_path cache keys_zone=all:16m use_temp_path=off; open_file_cache max=20000;",
		"proxy_pass http://"+origin+"; proxy_cache all; proxy_cache_valid 200 1h; add_header Age 1;")
}

func nginx(t testing.TB, global, location string) *Rival {
	t.Helper()
	dir, address := t.TempDir(), FreeAddress(t)
	config := fmt.Sprintf(`
daemon off; pid nginx.pid; error_log stderr warn; worker_processes auto;
events { worker_connections 1024; }
http {
	access_log off; client_body_temp_path body; proxy_temp_path proxy;
	fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
	keepalive_requests 1000000000; sendfile on; %s
	server { listen %s; location / { %s } }
}`, global, address, location)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatalf("rig: %v", err)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // the workers run as another user
		t.Fatalf("rig: %v", err)
	}
	return startRival(t, address, Program(t, "nginx", "/usr/sbin"), dir, "-p", dir, "-c", file, "-e", "stderr")
}

// Varnish starts a Varnish that caches the responses of the server at origin and adds no header fields of its own except Age.
func Varnish(t testing.TB, origin string) *Rival {
	t.Helper()
	dir, address := t.TempDir(), FreeAddress(t)
	host, port, _ := strings.Cut(origin, ":")
	config := fmt.Sprintf(`vcl 4.1;
backend default { .host = "%s"; .port = "%s"; }
sub vcl_backend_response { set beresp.ttl = 1h; }
sub vcl_deliver { unset resp.http.X-Varnish; unset resp.http.Via; unset resp.http.Accept-Ranges; }
`, host, port)
	file := filepath.Join(dir, "cache.vcl")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatalf("rig: %v", err)
	}
	return startRival(t, address, Program(t, "varnishd", "/usr/sbin"), dir,
		"-F", "-j", "none", "-n", dir, "-a", address, "-f", file, "-s", "malloc,256m")
}

// Redis starts a Redis without persistence.
func Redis(t testing.TB) *Rival {
	t.Helper()
	address := FreeAddress(t)
	_, port, _ := strings.Cut(address, ":")
	return startRival(t, address, Program(t, "redis-server"), t.TempDir(),
		"--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no")
}

// Memcached starts a memcached with a thread for each CPU.
func Memcached(t testing.TB) *Rival {
	t.Helper()
	address := FreeAddress(t)
	_, port, _ := strings.Cut(address, ":")
	return startRival(t, address, Program(t, "memcached"), t.TempDir(),
		"-l", "127.0.0.1", "-p", port, "-U", "0", "-m", "256", "-t", strconv.Itoa(runtime.NumCPU()), "-u", "nobody")
}

// RivalProgram starts a program in .bin, or the running program for "", that listens at address.
func RivalProgram(t testing.TB, name, address string, args ...string) *Rival {
	t.Helper()
	NeedServers(t)
	path := filepath.Join(repository(t), ".bin", name)
	if name == "" {
		own, err := os.Executable()
		if err != nil {
			t.Fatalf("rig: %v", err)
		}
		path = own
	}
	return startRival(t, address, path, t.TempDir(), args...)
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
