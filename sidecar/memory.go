package sidecar

import (
	"context"
	"errors"
	"math"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"go.uber.org/zap"
)

const (
	// defaultMemory is for a process that nobody limits.
	defaultMemory = 128 << 20
	// entryShare of the container's limit goes to entries. Go's collector needs about as much again as what lives, and
	// connections and requests want the rest.
	entryShare = 0.4
)

// limitMemory tells Go's collector the limit of the container, cgroup v1 or v2, unless GOMEMLIMIT does, and decides how
// much of it entries may have.
func (p *process) limitMemory(context.Context) error {
	limit, err := memlimit.Set()
	if err != nil && !errors.Is(err, memlimit.ErrNoCgroup) && !errors.Is(err, memlimit.ErrNoLimit) {
		p.log.Warn("the memory limit of the container is not known; set GOMEMLIMIT, or memory in the configuration",
			zap.Error(err))
	}
	p.memory = entryMemory(p.config.Memory, min(limit, debug.SetMemoryLimit(-1)))
	return nil
}

// entryMemory is what all entries together may take, of a limit that is math.MaxInt64 where there is none.
func entryMemory(configured Size, limit int64) int64 {
	switch {
	case configured > 0:
		return int64(configured)
	case limit <= 0 || limit == math.MaxInt64:
		return defaultMemory
	}
	return max(minMemory, int64(float64(limit)*entryShare))
}

// memoryOf splits total among the datasets: each gets its memory_share, and those without one share the rest alike.
func (c Config) memoryOf(total int64) map[string]int64 {
	rest, others := 1.0, 0
	for _, d := range c.Datasets {
		if d.MemoryShare == nil {
			others++
		} else {
			rest -= float64(*d.MemoryShare)
		}
	}
	parts := make(map[string]int64, len(c.Datasets))
	for name, d := range c.Datasets {
		share := float64(orDefault(d.MemoryShare, Share(rest/float64(max(1, others)))))
		parts[name] = int64(share * float64(total))
	}
	return parts
}
