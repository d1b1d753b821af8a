package bench

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/bench/loadgen"
	"github.com/ringside-cache/ringside/e2e/rig"
)

// closedLoops are the connections and the requests in flight on each.
var closedLoops = []struct{ conns, depth int }{{1, 1}, {conns, 1}, {4, 16}}

// shares are the arrival rates of the open loop, in percent of the rate that the server reached with 16 connections.
var shares = []int{10, 30, 50, 70, 90}

// hitFor is how long each load is sent.
const hitFor = 800 * time.Millisecond

// A read from the memory of each rival. The closed loops are named by connections and requests in flight: load=4x16.
func BenchmarkHit(b *testing.B) {
	sidecar := sync.OnceValue(func() *rig.Sidecar { return newSidecars(b, 1)[0] })
	for _, r := range rivals(sidecar) {
		b.Run("server="+r.name, func(b *testing.B) {
			s := r.start(b)
			warm(b, s, r.stream(), hitKeys)
			capacity := 0.0
			for _, l := range closedLoops {
				b.Run(fmt.Sprintf("load=%dx%d", l.conns, l.depth), func(b *testing.B) {
					rate := measureLoad(b, s, r.stream(), l.conns, loadgen.Load{Depth: l.depth, For: hitFor})
					if l.conns == conns {
						capacity = rate
					}
				})
			}
			if r.wrk != "" {
				b.Run("load=wrk", func(b *testing.B) { wrk(b, s.address, r.wrk) })
			}
			for _, share := range shares {
				if !r.latency || capacity == 0 {
					break // capacity is 0 if -test.bench excludes its load
				}
				b.Run(fmt.Sprintf("load=open%d", share), func(b *testing.B) {
					rate := capacity * float64(share) / 100
					measureLoad(b, s, r.stream(), conns, loadgen.Load{Depth: 1, For: hitFor, Rate: rate})
				})
			}
		})
	}
}

// warm reads n keys once. A cache loads them.
func warm(b *testing.B, s server, open func() loadgen.Stream, n int) {
	b.Helper()
	run(b, s, open, conns, loadgen.Load{Depth: 1, Count: n})
}

// measureLoad sends a load and reports the rate, which it returns, the time of the server's CPUs and the latencies.
func measureLoad(b *testing.B, s server, open func() loadgen.Stream, n int, l loadgen.Load) (rate float64) {
	b.Helper()
	for b.Loop() {
		before := cpuTime(b, s.pids)
		r := run(b, s, open, n, l)
		cpu := cpuTime(b, s.pids) - before
		rate = r.PerSecond()
		b.ReportMetric(rate, "req/s")
		b.ReportMetric(microseconds(cpu)/float64(r.Responses), "cpu-us/req")
		if l.Depth == 1 {
			b.ReportMetric(microseconds(r.Quantile(0.5)), "p50-us")
			b.ReportMetric(microseconds(r.Quantile(0.99)), "p99-us")
			b.ReportMetric(microseconds(r.Quantile(0.999)), "p99.9-us")
		}
	}
	return rate
}

func run(b *testing.B, s server, open func() loadgen.Stream, n int, l loadgen.Load) loadgen.Result {
	b.Helper()
	c, err := loadgen.Dial(s.network, s.address, n, open)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	r, err := c.Run(l)
	if err != nil {
		b.Fatal(err)
	}
	return r
}

func microseconds(d time.Duration) float64 { return float64(d) / 1000 }
