package telemetry

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
)

// Measures the real machine, with this process.
func TestSampleThisMachine(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("what a machine tells differs between systems")
	}
	s := NewSampler("", MaxTop)
	if _, err := s.Sample(t.Context()); err != nil {
		t.Fatal(err)
	}
	ballast := make([]byte, 64<<20)
	for range 20 { // well over 10 ms, the resolution of the CPU time of a process
		for i := 0; i < len(ballast); i += 16 {
			ballast[i] += byte(i)
		}
	}
	sampled, err := s.Sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]Row)
	for _, row := range sampled {
		rows[row.ID] = row
	}
	self := fmt.Sprint("proc/", os.Getpid())
	for id, between := range map[string][2]float64{
		"CNF-001": {1e-9, 100}, "CNF-002": {0, 1e6}, "CNF-005": {1e-9, 100}, "CNF-006": {1 << 20, 1 << 50},
		"CNF-007": {0, 100}, "CNF-008": {0, 100}, "CNF-013": {1, 1e7}, "CNF-014": {1, 1e10}, "cpu/0": {0, 100},
		self + "/cpu": {1, 100 * float64(runtime.NumCPU()) * 1.5}, self + "/rss": {float64(len(ballast)), 1 << 40},
	} {
		row, ok := rows[id]
		if !ok || row.Value < between[0] || row.Value > between[1] {
			t.Errorf("%s is %v (there: %t), want a value within %v", id, row.Value, ok, between)
		}
	}
	if kind := rows[self+"/cpu"].Type; !strings.HasPrefix(kind, "process.cpu:telemetry.test") {
		t.Errorf("this process is called %q", kind)
	}
	runtime.KeepAlive(ballast)
}

func BenchmarkSample(b *testing.B) {
	b.ReportAllocs()
	s := NewSampler("", 10)
	for b.Loop() {
		if _, err := s.Sample(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(s.last.processes)), "processes")
}
