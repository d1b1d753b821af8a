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
	// defaultMemory is for a process without a memory limit.
	defaultMemory = 128 << 20
	// entryShare is the share of the memory limit for entries. Go's collector needs about as much again as lives, and
	// connections and requests need the rest.
	entryShare = 0.4
)

// limitMemory sets Go's memory limit to that of the container, cgroup v1 or v2, unless GOMEMLIMIT is set. It returns the
// number of bytes for entries.
func limitMemory(configured config.Size, log *zap.Logger) int64 {
	limit, err := memlimit.Set()
	if err != nil && !errors.Is(err, memlimit.ErrNoCgroup) && !errors.Is(err, memlimit.ErrNoLimit) {
		log.Warn("the memory limit of the container is unknown; set GOMEMLIMIT, or memory in the configuration",
			zap.Error(err))
	}
	return entryMemory(configured, min(limit, debug.SetMemoryLimit(-1)))
}

// entryMemory returns the bytes for all entries under a limit, which is math.MaxInt64 if there is none.
func entryMemory(configured config.Size, limit int64) int64 {
	switch {
	case configured > 0:
		return int64(configured)
	case limit <= 0 || limit == math.MaxInt64:
		return defaultMemory
	}
	return max(config.MinMemory, int64(float64(limit)*entryShare))
}
