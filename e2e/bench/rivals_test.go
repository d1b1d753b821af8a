package bench

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ringside-cache/ringside/e2e/bench/loadgen"
	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/e2e/rig/proc"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
)

// server is a running rival. Its children count as a part of it.
type server struct {
	network, address string
	pids             []int
}

// rival is a server from whose memory values are read.
type rival struct {
	name    string // server= in the results
	start   func(*testing.B) server
	stream  func() func() loadgen.Stream
	latency bool   // measured at fixed arrival rates, too
	wrk     string // what precedes a key in the path, if measured with wrk, too
}

// rivals has the sidecar between the servers that it is compared with, so that little time passes between them.
func rivals(sidecar func() *rig.Sidecar) []rival {
	ringside := func(address func(*rig.Sidecar) server) func(*testing.B) server {
		return func(*testing.B) server {
			s := address(sidecar())
			s.pids = []int{sidecar().Pid()}
			return s
		}
	}
	const path = "/v1/cnf-metrics/"
	return []rival{
		{name: "tcp", start: echo("tcp"), stream: tcpStream},
		{name: "memcached", start: memcached, stream: memcachedStream},
		{name: "redis", start: redis, stream: redisStream(""), latency: true},
		{
			name: "ringside-redis", stream: redisStream("cnf-metrics:"),
			start: ringside(func(s *rig.Sidecar) server { return server{network: "tcp", address: s.Redis} }),
		},
		{name: "daprd", start: daprd("http"), stream: httpStream("/v1.0/state/memory/")},
		{name: "varnish", start: cached(rig.Varnish), stream: httpStream("/")},
		{name: "nginx-cache", start: cached(rig.NginxCache), stream: httpStream("/")},
		{name: "nginx", start: nginx, stream: httpStream("/"), latency: true, wrk: "/"},
		{
			name: "ringside", latency: true, wrk: path, stream: httpStream(path),
			start: ringside(func(s *rig.Sidecar) server { return server{network: "tcp", address: s.HTTP} }),
		}, {
			name: "ringside-unix", latency: true, stream: httpStream(path),
			start: ringside(func(s *rig.Sidecar) server { return server{network: "unix", address: s.Unix} }),
		}, {
			name: "ringside-grpc", latency: true, stream: grpcStream,
			start: ringside(func(s *rig.Sidecar) server { return server{network: "tcp", address: s.GRPC} }),
		},
		{name: "grpc", start: echo("grpc"), stream: grpcStream, latency: true},
		{name: "h2", start: echo("h2"), stream: grpcStream},
		{name: "daprd-grpc", start: daprd("grpc"), stream: daprStream},
	}
}

func tcp(r *rig.Rival) server { return server{"tcp", r.Address, []int{r.Pid()}} }

func nginx(b *testing.B) server { return tcp(rig.Nginx(b, value)) }

// cached starts a proxy with a cache in front of a server with the header fields of a sidecar.
func cached(start func(t testing.TB, origin string) *rig.Rival) func(*testing.B) server {
	return func(b *testing.B) server {
		origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for name, field := range map[string]string{
				"Content-Type": "application/json", "ETag": `"0123456789ab"`, "Cache-Control": "max-age=3599",
				"Cache-Status": "ringside; hit; ttl=3599", "Ringside-Source": "hit",
			} {
				w.Header().Set(name, field)
			}
			fmt.Fprint(w, value)
		}))
		b.Cleanup(origin.Close)
		return tcp(start(b, origin.Listener.Addr().String()))
	}
}

func redis(b *testing.B) server {
	r := rig.Redis(b)
	fill(b, r.Address, redisSet, "+OK\r\n", hitKeys)
	return tcp(r)
}

func redisSet(key string) string {
	return fmt.Sprintf("*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(key), key, len(value), value)
}

func memcached(b *testing.B) server {
	r := rig.Memcached(b)
	fill(b, r.Address, memcachedSet, "STORED\r\n", hitKeys)
	return tcp(r)
}

func memcachedSet(key string) string {
	return fmt.Sprintf("set %s 0 0 %d\r\n%s\r\n", key, len(value), value)
}

// fill sends one request per key.
func fill(b *testing.B, address string, request func(key string) string, response string, n int) {
	b.Helper()
	open := loadgen.Fixed(requests(n, request), response, len(response))
	run(b, server{"tcp", address, nil}, open, 1, loadgen.Load{Depth: 16, Count: n})
}

// daprComponent is a state store in the memory of daprd.
const daprComponent = `
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: memory}
spec: {type: state.in-memory, version: v1}
`

// daprd starts a daprd and stores the keys by its HTTP API. api is the one that is measured: http or grpc.
func daprd(api string) func(*testing.B) server {
	return func(b *testing.B) server {
		components := b.TempDir()
		if err := os.WriteFile(filepath.Join(components, "memory.yaml"), []byte(daprComponent), 0o600); err != nil {
			b.Fatal(err)
		}
		address := map[string]string{"http": rig.FreeAddress(b), "grpc": rig.FreeAddress(b)}
		port := func(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }
		r := rig.RivalProgram(b, "daprd", address[api], "--app-id", "bench", "--resources-path", components,
			"--dapr-http-port", port(address["http"]), "--dapr-grpc-port", port(address["grpc"]),
			"--dapr-internal-grpc-port", port(rig.FreeAddress(b)), "--metrics-port", port(rig.FreeAddress(b)),
			"--dapr-listen-addresses", "127.0.0.1", "--max-body-size", "64Mi", "--log-level", "error")
		store := fmt.Sprintf("http://%s/v1.0/state/memory", address["http"])
		var rows []string
		for i := range hitKeys {
			rows = append(rows, fmt.Sprintf(`{"key":%q,"value":%s}`, keyOf(i), value))
		}
		response, err := http.Post(store, "application/json", strings.NewReader("["+strings.Join(rows, ",")+"]"))
		if err != nil || response.Body.Close() != nil || response.StatusCode != http.StatusNoContent {
			b.Fatalf("daprd: %v, %v", response, err)
		}
		return tcp(r)
	}
}

func requests(n int, request func(key string) string) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = []byte(request(keyOf(i)))
	}
	return all
}

func paths(prefix string) []string {
	all := make([]string, hitKeys)
	for i := range all {
		all[i] = prefix + keyOf(i)
	}
	return all
}

func httpStream(prefix string) func() func() loadgen.Stream {
	return func() func() loadgen.Stream { return loadgen.HTTP(paths(prefix), len(value)) }
}

func tcpStream() func() loadgen.Stream {
	return loadgen.Fixed([][]byte{bytes.Repeat([]byte("r"), tcpRequest)}, tcpResponse[:1], len(tcpResponse))
}

// redisStream reads keys with something before them.
func redisStream(dataset string) func() func() loadgen.Stream {
	get := func(key string) string {
		return fmt.Sprintf("*2\r\n$3\r\nGET\r\n$%d\r\n%s%s\r\n", len(dataset+key), dataset, key)
	}
	prefix := fmt.Sprintf("$%d\r\n", len(value))
	return func() func() loadgen.Stream {
		return loadgen.Fixed(requests(hitKeys, get), prefix, len(prefix)+len(value)+2)
	}
}

func memcachedStream() func() loadgen.Stream {
	head := fmt.Sprintf("VALUE %s 0 %d\r\n", keyOf(0), len(value))
	get := func(key string) string { return "get " + key + "\r\n" }
	return loadgen.Fixed(requests(hitKeys, get), "VALUE ", len(head)+len(value)+len("\r\nEND\r\n"))
}

func grpcStream() func() loadgen.Stream { return grpcReads("cnf-metrics", hitKeys, keyOf) }

// grpcReads reads n keys of a dataset.
func grpcReads(dataset string, n int, key func(int) string) func() loadgen.Stream {
	messages := make([][]byte, n)
	for i := range messages {
		messages[i], _ = proto.Marshal(&ringsidev1.GetRequest{Dataset: dataset, Key: key(i)}) // valid UTF-8
	}
	return loadgen.GRPC(ringsidev1.Cache_Get_FullMethodName, messages, len(value))
}

// daprStream calls GetState, whose request has the fields 1, store_name, and 2, key.
func daprStream() func() loadgen.Stream {
	messages := requests(hitKeys, func(key string) string { return fmt.Sprintf("\x0a\x06memory\x12%c%s", len(key), key) })
	return loadgen.GRPC("/dapr.proto.runtime.v1.Dapr/GetState", messages, len(value))
}

// cpuTime sums the times of processes and their children.
func cpuTime(b *testing.B, pids []int) (sum time.Duration) {
	b.Helper()
	for _, pid := range pids {
		children, _ := proc.Children(pid)
		for _, p := range append(children, pid) {
			sum += proc.CPUTime(b, p)
		}
	}
	return sum
}
