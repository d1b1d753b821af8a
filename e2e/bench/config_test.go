package bench

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/ringside-cache/ringside/e2e/bench/loadgen"
	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/origin/drivers"
	"github.com/ringside-cache/ringside/sidecar/config"
)

// The benchmarks themselves need programs that make test does not install.
func TestConfigurationsAreValid(t *testing.T) {
	texts := map[string]string{
		"alone":  fmt.Sprintf(sidecarConfig, "", "postgres://localhost/bench"),
		"static": fmt.Sprintf(sidecarConfig, staticMembers(`"127.0.0.1:7072"`), "postgres://localhost/bench"),
		"loads":  fmt.Sprintf(loadConfig, "postgres", "postgres://localhost/bench"),
	}
	for name, text := range texts {
		source := config.Source{File: "ringside.yaml", Getenv: os.LookupEnv, Set: []string{"peer_tls.insecure=true"}, Drivers: drivers.All()}
		if _, err := source.Parse([]byte(text)); err != nil {
			t.Errorf("%s: got %v, want a valid configuration:\n%s", name, err, text)
		}
	}
	var component map[string]any
	if err := yaml.Unmarshal([]byte(daprComponent), &component); err != nil || component["kind"] != "Component" {
		t.Errorf("daprd: got %v, %v", component, err)
	}
}

func TestValueIsAKibibyte(t *testing.T) {
	if len(value) != 1024 {
		t.Errorf("got %d bytes, want 1024", len(value))
	}
}

// What a rival's client sends must fit what the echo servers and the rival answer.
func TestClientsReadTheEchoServers(t *testing.T) {
	for kind, open := range map[string]func() loadgen.Stream{"tcp": tcpStream(), "h2": grpcStream(), "grpc": grpcStream()} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() { _ = echoes[kind](l) }()
		c, err := loadgen.Dial("tcp", l.Addr().String(), 4, open)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if r, err := c.Run(loadgen.Load{Depth: 16, Count: 1000}); err != nil || r.Responses < 1000 {
			t.Errorf("%s: got %d responses and %v, want 1000", kind, r.Responses, err)
		}
	}
}

// Stores answer each key with a response of the same size.
func TestClientsReadTheStores(t *testing.T) {
	for name, one := range map[string]struct {
		stream   func() loadgen.Stream
		response string
	}{
		"redis":     {redisStream("")(), fmt.Sprintf("$1024\r\n%s\r\n", value)},
		"memcached": {memcachedStream(), fmt.Sprintf("VALUE %s 0 1024\r\n%s\r\nEND\r\n", keyOf(hitKeys-1), value)},
	} {
		if n, responses, _, err := one.stream().Parse([]byte(one.response), nil); n != len(one.response) || responses != 1 || err != nil {
			t.Errorf("%s: got %d bytes, %d responses, %v; want %d, 1", name, n, responses, err, len(one.response))
		}
	}
}

// The report names benchmarks. A name that no benchmark has would leave an empty cell.
func TestReportHasEveryBenchmark(t *testing.T) {
	var lines strings.Builder
	line := func(name, fields string) { fmt.Fprintf(&lines, "Benchmark%s-2\t1\t%s\n", name, fields) }
	const hitFields = "5 req/s\t2 cpu-us/req\t3 p50-us\t4 p99-us\t5 p99.9-us"
	for _, r := range rivals(nil) {
		var loads []string
		for _, l := range closedLoops {
			loads = append(loads, fmt.Sprintf("%dx%d", l.conns, l.depth))
		}
		if r.wrk != "" {
			loads = append(loads, "wrk")
		}
		for _, share := range shares {
			if r.latency {
				loads = append(loads, fmt.Sprintf("open%d", share))
			}
		}
		for _, load := range loads {
			line(fmt.Sprintf("Hit/server=%s/load=%s", r.name, load), hitFields)
		}
	}
	for _, name := range []string{
		"over=process/server=ringside/load=1x1", "over=process/server=ringside/load=64x1",
		"over=HTTP/server=ringside/load=1x1", "over=gRPC/server=ringside/load=1x1", "over=HTTP/server=ringside/load=64x1",
		"over=gRPC/server=ringside/load=4x16", "over=HTTP/server=groupcache/load=64x1", "over=process/server=groupcache/load=64x1",
	} {
		line("PeerFetch/"+name, hitFields)
	}
	for _, l := range databases {
		for _, way := range []string{"over=SQL/server=sql", "over=driver/server=ringside", "over=HTTP/server=ringside4", "over=HTTP/server=ringside16"} {
			for _, n := range []int{1, conns} {
				line(fmt.Sprintf("Load/database=%s/clients=%d/%s", l.name, n, way), "10 ns/op\t5 p50-µs\t6 req/s")
			}
		}
		line(fmt.Sprintf("Load/database=%s/clients=batch/over=HTTP/server=ringside4", l.name), "10 ns/op\t5 p50-µs\t6 req/s")
	}
	for _, h := range holders {
		line("Memory/server="+h.name, "1 B/entry")
	}
	line("Start", "1 ready-ms\t1 idle-MiB\t1 anonymous-MiB\t1 binary-MiB")

	file := t.TempDir() + "/results.txt"
	if err := os.WriteFile(file, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(rig.Program(t, "python3"), "report.py", "--tables", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for row := range strings.Lines(string(out)) {
		if strings.Contains(row, "(none)") {
			t.Errorf("got an empty cell: %s", row)
		}
	}
	if !strings.Contains(string(out), "≥ 0.95× met") {
		t.Errorf("got no verdict on nginx:\n%s", out)
	}
}
