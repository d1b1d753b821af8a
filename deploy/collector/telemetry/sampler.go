package telemetry

import (
	"context"

	"github.com/shirou/gopsutil/v4/process"
)

// MaxTop is the largest number of processes that a Sampler can be told to report.
const MaxTop = 250

// Sampler turns readings of this machine into rows. It is for one goroutine.
type Sampler struct {
	prefix string
	top    int
	last   *reading // nil before the first Sample
}

// NewSampler returns a Sampler that reports the top processes by CPU and as many by memory, 0 to MaxTop. All ids begin
// with prefix, which tells the machines apart that share a table.
func NewSampler(prefix string, top int) *Sampler {
	process.EnableBootTimeCache(true) // or gopsutil reads /proc/stat once more for each process
	return &Sampler{prefix: prefix, top: min(max(top, 0), MaxTop)}
}

// Sample returns what the machine does now. Rates and shares of time are those since the Sample before; the first one
// has none. An error says what the machine does not tell; the rows are what it does.
func (s *Sampler) Sample(ctx context.Context) ([]Row, error) {
	now, err := read(ctx)
	sheet := &sheet{prefix: s.prefix, at: now.at}
	rows := sheet.fill(s.last, now, s.top, func(pid int32) string { return nameOf(ctx, pid) })
	s.last = now
	return rows, err
}
