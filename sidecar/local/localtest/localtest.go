// Package localtest starts a local.Server for tests, over real datasets with an in-memory origin, and has the clients with
// which tests talk to it.
package localtest

import (
	"context"
	"crypto/tls"
	"net"
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/keylist"
	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local"
)

// Server is a local.Server that serves on loopback until the test ends.
type Server struct {
	*local.Server
	HTTP, GRPC, Unix, Redis string // addresses
}

// Start starts a server of datasets, or, if there are none, of "cnf-metrics", "blobs" and Failing.
func Start(tb testing.TB, config local.Config, datasets ...local.Served) *Server {
	tb.Helper()
	if datasets == nil {
		datasets = []local.Served{
			{Dataset: NewDataset(tb, "cnf-metrics", origintest.New(Rows())), JSON: true},
			{Dataset: NewDataset(tb, "blobs", origintest.New(Rows())), ReadOnly: true},
			{Dataset: Failing()},
		}
	}
	s := &Server{Server: local.New(config, local.NewCatalog(datasets...))}
	s.SetServing(true)
	s.HTTP = s.Listen(tb, "tcp", s.ServeHTTP)
	s.GRPC = s.Listen(tb, "tcp", s.ServeGRPC)
	s.Redis = s.Listen(tb, "tcp", s.ServeRedis)
	s.Unix = s.Listen(tb, "unix", s.ServeUnix)
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.Shutdown(ctx) // tests leave connections open, which Shutdown then cuts off
	})
	return s
}

// EachGRPC runs a test with each of the two transports of gRPC: that of package h2, and that of grpc-go (local.Config.GRPCGo).
func EachGRPC(t *testing.T, test func(t *testing.T, grpcGo bool)) {
	t.Run("h2", func(t *testing.T) { test(t, false) })
	t.Run("grpc-go", func(t *testing.T) { test(t, true) })
}

// StartWritable starts a server of writable datasets "rows" (JSON) and "raw", of "blobs", and of FailingWrites.
func StartWritable(tb testing.TB, config local.Config) *Server {
	return Start(tb, config,
		local.Served{Dataset: NewWritable(tb, "rows", origintest.New(Rows())), JSON: true},
		local.Served{Dataset: NewWritable(tb, "raw", origintest.New(Rows()))},
		local.Served{Dataset: NewDataset(tb, "blobs", origintest.New(Rows()))},
		local.Served{Dataset: FailingWrites()})
}

// StartWatchable starts a server of "raw", which it returns too, and of "rows" (JSON), for watches.
func StartWatchable(tb testing.TB, config local.Config) (*Server, *cache.Dataset) {
	raw := NewWritable(tb, "raw", origintest.New(map[string]string{"a": "1", "b": "1"}))
	rows := NewWritable(tb, "rows", origintest.New(map[string]string{"a": `{ "v": "<&>\n" }`}))
	return Start(tb, config, local.Served{Dataset: raw}, local.Served{Dataset: rows, JSON: true}), raw
}

// StartRouted starts a server with a routed listener, with TLS unless withTLS is nil, and returns the address of that.
func StartRouted(tb testing.TB, config local.Config, withTLS *tls.Config) (*Server, string) {
	s := Start(tb, config)
	return s, s.Listen(tb, "tcp", func(ln net.Listener) error { return s.ServeRouted(ln, Handshake(withTLS)) })
}

// Handshake returns the handshake of a server; nil if config is nil.
func Handshake(config *tls.Config) func(net.Conn) (net.Conn, error) {
	if config == nil {
		return nil
	}
	return func(accepted net.Conn) (net.Conn, error) {
		c := tls.Server(accepted, config)
		return c, c.Handshake()
	}
}

// Listen calls serve with a new listener, and returns its address.
func (s *Server) Listen(tb testing.TB, network string, serve func(net.Listener) error) string {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if network == "unix" {
		ln, err = local.ListenUnix(tb.TempDir() + "/s")
	}
	if err != nil {
		tb.Fatal(err)
	}
	go func() {
		if err := serve(ln); err != nil {
			tb.Errorf("serve %s: %v", network, err)
		}
	}()
	return ln.Addr().String()
}

// Rows are the rows of the default origin.
func Rows() map[string]string {
	return map[string]string{
		"a": `{"cnf_id":"a"}`, "b": `{"cnf_id":"b"}`, "empty": "",
		"x/y": "slash", "x//../y": "dots", "50% é?#": "odd", strings.Repeat("k", 1024): "long",
	}
}

// NewDataset returns a read-only dataset over an origin.
func NewDataset(tb testing.TB, name string, from origin.Origin) *cache.Dataset {
	tb.Helper()
	return newDataset(tb, cache.Config{Name: name, Origin: from})
}

// NewWritable returns a writable dataset over an origin.
func NewWritable(tb testing.TB, name string, fake *origintest.Fake) *cache.Dataset {
	tb.Helper()
	return newDataset(tb, cache.Config{Name: name, Origin: keylist.New(fake, fake, nil), Writer: fake})
}

func newDataset(tb testing.TB, c cache.Config) *cache.Dataset {
	tb.Helper()
	c.MaxBytes, c.Policy = 16<<20, kv.DefaultPolicy()
	c.Policy.TTL, c.Policy.TTLJitter = time.Hour, 0
	d, err := cache.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(d.Close)
	return d
}

// BenchValue is a row of about 200 bytes.
func BenchValue() string {
	return `{"cnf_id":"CNF-001","timestamp":"2025-01-01T00:00:00Z","metric_type":"cpu","value":0.25,` +
		`"unit":"cores","status":"ok","note":"` + strings.Repeat("x", 76) + `"}`
}

// LiveBytes returns the size of the live heap and of the stacks. Garbage that other goroutines make meanwhile is not live.
func LiveBytes() int64 {
	runtime.GC()
	samples := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(samples)
	return int64(samples[0].Value.Uint64() + samples[1].Value.Uint64())
}
