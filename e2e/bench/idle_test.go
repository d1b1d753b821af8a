package bench

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/bench/loadgen"
	"github.com/ringside-cache/ringside/e2e/rig"
	"github.com/ringside-cache/ringside/e2e/rig/proc"
)

// settle is the time in which a server releases the memory of its start or of its loads.
const settle = time.Second

// The cost of an idle sidecar.
func BenchmarkStart(b *testing.B) {
	dsn := newDatabase(b, 1)
	binary, err := os.Stat(rig.Binary(b))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s := rig.NewSidecar(b, "sidecar-1", fmt.Sprintf(sidecarConfig, "", dsn))
		began := time.Now()
		s.Start()
		ready := time.Since(began)
		time.Sleep(settle)
		b.ReportMetric(float64(ready.Microseconds())/1000, "ready-ms")
		b.ReportMetric(mebibytes(b, s.Pid(), "VmRSS"), "idle-MiB")
		b.ReportMetric(mebibytes(b, s.Pid(), "RssAnon"), "anonymous-MiB")
		s.Stop()
	}
	b.ReportMetric(float64(binary.Size())/(1<<20), "binary-MiB")
}

// entries are stored to measure the memory of one.
const entries = 50_000

// holders store entries. start returns the process and the function that stores them.
var holders = []struct {
	name  string
	start func(*testing.B) (pid int, store func())
}{
	{"ringside", func(b *testing.B) (int, func()) {
		s := rig.Sidecars(b, 1, fmt.Sprintf(sidecarConfig, "", newDatabase(b, entries)))[0]
		return s.Pid(), func() { readEntries(b, s.HTTP, "/v1/cnf-metrics/") }
	}},
	{"redis", func(b *testing.B) (int, func()) {
		r := rig.Redis(b)
		return r.Pid(), func() { fill(b, r.Address, redisSet, "+OK\r\n", entries) }
	}},
	{"memcached", func(b *testing.B) (int, func()) {
		r := rig.Memcached(b)
		return r.Pid(), func() { fill(b, r.Address, memcachedSet, "STORED\r\n", entries) }
	}},
	{"groupcache", func(b *testing.B) (int, func()) {
		r := startGroupcache(b, "-self", rig.FreeAddress(b))
		return r.Pid(), func() { readEntries(b, r.Address, "/k/") }
	}},
}

// Memory of an entry of 1 KiB: the growth of the resident set, divided by the entries.
func BenchmarkMemory(b *testing.B) {
	for _, holder := range holders {
		b.Run("server="+holder.name, func(b *testing.B) {
			for b.Loop() {
				pid, store := holder.start(b)
				time.Sleep(settle)
				before := mebibytes(b, pid, "VmRSS")
				store()
				time.Sleep(settle)
				b.ReportMetric((mebibytes(b, pid, "VmRSS")-before)*(1<<20)/entries, "B/entry")
			}
		})
	}
}

// readEntries reads each key once, which a cache then holds.
func readEntries(b *testing.B, address, prefix string) {
	b.Helper()
	paths := make([]string, entries)
	for i := range paths {
		paths[i] = prefix + keyOf(i)
	}
	warm(b, server{"tcp", address, nil}, loadgen.HTTP(paths, len(value)), entries)
}

// mebibytes reads a field of proc_pid_status(5) that is in kibibytes.
func mebibytes(b *testing.B, pid int, field string) float64 {
	b.Helper()
	var kib float64
	text := proc.Status(b, pid)[field]
	if _, err := fmt.Sscanf(strings.TrimSpace(text), "%f kB", &kib); err != nil {
		b.Fatalf("%s of process %d: got %q: %v", field, pid, text, err)
	}
	return kib / 1024
}
