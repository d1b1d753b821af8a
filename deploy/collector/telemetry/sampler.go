package telemetry

import (
	"context"

	"github.com/shirou/gopsutil/v4/process"
)

// MaxTop is the limit of the number of processes that a Sampler reports.
const MaxTop = 250

// Sampler measures this machine and returns rows. It is not safe for concurrent use.
type Sampler struct {
	prefix string
	top    int
	last   *reading // nil before the first Sample
}

// NewSampler returns a Sampler that reports the top processes by CPU and the same number by memory, 0 to MaxTop. All ids
// begin with prefix, which distinguishes machines that share a table.
func NewSampler(prefix string, top int) *Sampler {
	process.EnableBootTimeCache(true) // otherwise gopsutil reads /proc/stat again for each process
	return &Sampler{prefix: prefix, top: min(max(top, 0), MaxTop)}
}

// Sample measures the machine. Rates and CPU percentages refer to the time since the previous Sample; the first one has
// none. The error lists the values that cannot be read; the rows have the others.
func (s *Sampler) Sample(ctx context.Context) ([]Row, error) {
	now, err := read(ctx)
	sheet := &sheet{prefix: s.prefix, at: now.at}
	rows := sheet.fill(s.last, now, s.top, func(pid int32) string { return nameOf(ctx, pid) })
	s.last = now
	return rows, err
}
