package bench

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/bench/loadgen"
	"github.com/ringside-cache/ringside/e2e/rig"
)

// profileFor is how long the CPU of a sidecar is profiled while a load is sent for a little longer.
const profileFor = 5 * time.Second

// profileConfig takes the membership and the DSN. fresh-metrics is for loads.
const profileConfig = sidecarConfig + `
  fresh-metrics: {origin: db, table: metrics, key: id, value: body, ttl: 1h, local_ttl: 1h, limits: {no_cache: off}}
pprof: true
`

// Where the time of a sidecar goes under the loads of the other benchmarks, in percent of its CPU time. PROFILES.md explains the results.
func BenchmarkProfile(b *testing.B) {
	dsn := newDatabase(b, hitKeys)
	sidecars := rig.StaticSidecars(b, 2, func(members string) string { return fmt.Sprintf(profileConfig, staticMembers(members), dsn) })
	s := sidecars[0]
	var keys [2][]string // by their owner
	for i := range hitKeys {
		key := keyOf(i)
		of := owner(b, sidecars, key)
		keys[of] = append(keys[of], key)
	}
	loads := loadgen.HTTP(prefixed("/v1/fresh-metrics/", keys[0]), len(value), noCache)
	overHTTP := server{"tcp", s.HTTP, nil}
	for _, load := range []struct {
		name         string
		to           server
		stream       func() loadgen.Stream
		conns, depth int
	}{
		{"HTTP", overHTTP, httpStream("/v1/cnf-metrics/")(), conns, 1},
		{"gRPC", server{"tcp", s.GRPC, nil}, grpcStream(), conns, 1},
		{"gRPC", server{"tcp", s.GRPC, nil}, grpcStream(), 4, 16},
		{"Redis", server{"tcp", s.Redis, nil}, redisStream("cnf-metrics:")(), conns, 1},
		{"Redis", server{"tcp", s.Redis, nil}, redisStream("cnf-metrics:")(), 4, 16},
		{"peer", overHTTP, loadgen.HTTP(prefixed("/v1/peer-metrics/", keys[1]), len(value)), 64, 1},
		{"load", overHTTP, loads, 1, 1},
		{"load", overHTTP, loads, conns, 1},
	} {
		b.Run(fmt.Sprintf("over=%s/load=%dx%d", load.name, load.conns, load.depth), func(b *testing.B) {
			warm(b, load.to, load.stream, hitKeys)
			for b.Loop() {
				file := filepath.Join(b.TempDir(), "cpu.pprof")
				profiled := make(chan error, 1)
				go func() { profiled <- saveProfile(s.Admin, file) }()
				run(b, load.to, load.stream, load.conns, loadgen.Load{Depth: load.depth, For: profileFor + time.Second})
				if err := <-profiled; err != nil {
					b.Fatal(err)
				}
				reportProfile(b, file)
			}
		})
	}
}

// saveProfile writes the CPU profile of the sidecar with an admin listener.
func saveProfile(admin, file string) error {
	response, err := http.Get(fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", admin, profileFor/time.Second))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", response.Status, content)
	}
	if err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o600)
}

// reportProfile reports the shares of the groups of functions, and logs the functions that take most time by themselves.
func reportProfile(b *testing.B, file string) {
	b.Helper()
	out, err := exec.Command("go", "tool", "pprof", "-top", "-nodecount=10000", "-nodefraction=0", file).CombinedOutput()
	if err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	_, table, _ := strings.Cut(string(out), "cum%\n")
	shares := map[string]float64{}
	var most []string
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 6 {
			continue
		}
		share, err := strconv.ParseFloat(strings.TrimSuffix(fields[1], "%"), 64)
		if err != nil {
			b.Fatalf("%q: %v", line, err)
		}
		shares[groupOf(fields[5])] += share
		if len(most) < 12 {
			most = append(most, fields[1]+" "+fields[5])
		}
	}
	for _, group := range slices.Sorted(maps.Keys(shares)) {
		b.ReportMetric(shares[group], group+"-%")
	}
	b.Log(strings.Join(most, "\n"))
}

// groupOf returns what a function that runs belongs to. The time of a system call includes that of the kernel.
func groupOf(function string) string {
	is := func(prefixes ...string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(function, p) })
	}
	const ours = "github.com/ringside-cache/ringside/"
	switch {
	case is("internal/runtime/syscall", "syscall.RawSyscall", "syscall.Syscall", "runtime/internal/syscall", "runtime.futex", "runtime.usleep"):
		return "kernel"
	case is("runtime.memmove", "runtime.memclr", "runtime.memequal", "internal/bytealg", "runtime.vdso", "time.", "runtime.nanotime", "runtime.walltime"):
		return "copies-clocks"
	case is("runtime", "internal/runtime", "sync", "internal/sync", "internal/poll", "internal/chacha8rand", "context"):
		return "runtime"
	case is(ours+"sidecar/cache", ours+"sidecar/kv", ours+"sidecar/internal/entries", ours+"sidecar/internal/lru", ours+"sidecar/internal/stripe",
		ours+"sidecar/internal/stability", ours+"sidecar/internal/hotkeys", ours+"sidecar/internal/flight",
		"github.com/hashicorp/golang-lru"):
		return "cache"
	case is(ours+"sidecar/peer", ours+"sidecar/internal/h2/client"):
		return "peer"
	case is(ours+"origin", "github.com/jackc", "database/sql"):
		return "database"
	}
	return "protocol"
}
