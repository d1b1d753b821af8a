package sidecar

import (
	"errors"
	"math"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/sidecar/config"
)

const (
	// defaultMemory is for a process without a memory limit, for entries and for clients each.
	defaultMemory = 128 << 20
	// entryShare is the share of the memory limit for entries, and clientShare that for clients. Go's collector needs about
	// as much again as lives, and the process itself needs the rest.
	entryShare, clientShare = 0.4, 0.25
)

// memory is what the process may use, in bytes.
type memory struct {
	entries int64 // all entries
	clients int64 // everything else that clients and members make it use: the budget
}

// limitMemory sets Go's memory limit to that of the container, cgroup v1 or v2, unless GOMEMLIMIT is set, and divides it.
func limitMemory(entries, clients config.Size, log *zap.Logger) memory {
	limit, err := memlimit.Set()
	if err != nil && !errors.Is(err, memlimit.ErrNoCgroup) && !errors.Is(err, memlimit.ErrNoLimit) {
		log.Warn("the memory limit of the container is unknown; set GOMEMLIMIT, or memory in the configuration",
			zap.Error(err))
	}
	limit = min(limit, debug.SetMemoryLimit(-1))
	return memory{shareOf(entries, limit, entryShare), shareOf(clients, limit, clientShare)}
}

// shareOf returns the configured bytes, or the share of a limit, which is math.MaxInt64 if there is none.
func shareOf(configured config.Size, limit int64, share float64) int64 {
	switch {
	case configured > 0:
		return int64(configured)
	case limit <= 0 || limit == math.MaxInt64:
		return defaultMemory
	}
	return max(config.MinMemory, int64(float64(limit)*share))
}
