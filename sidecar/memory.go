package sidecar

import (
	"errors"
	"fmt"
	"math"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/sidecar/config"
)

const (
	// defaultMemory is for a process without a memory limit, for entries and for clients each.
	defaultMemory = 128 << 20
	// goShare is the share of the container's limit for Go. The rest is for the kernel, for the pages of the program, and for
	// what Go allocates before its collector catches up: with 0.9, an attack that allocates quickly got the process killed.
	goShare = 0.8
	// entryShare is the share of Go's memory limit for entries, and clientShare that for clients. In a container of 128 MiB,
	// Go's limit is 102 MiB: 44 for entries, 28 for clients, 12 for the process and its reads from the origins, and 18 that
	// the collector needs so that it does not run all the time (see TestPromiseDNoClientExhaustsASidecar).
	entryShare, clientShare = 0.43, 0.27
	// processMemory is what the process needs without entries and clients: runtime, connections to origins, other members.
	processMemory = 12 << 20
)

// memory is what the process may use, in bytes.
type memory struct {
	limit   int64 // Go's limit; math.MaxInt64 if there is none
	entries int64 // all entries
	clients int64 // everything else that clients and members make it use: the budget
}

// limitMemory sets Go's memory limit to that of the container, cgroup v1 or v2, unless GOMEMLIMIT is set, and divides it.
func limitMemory(c config.Config, log *zap.Logger) memory {
	limit, err := memlimit.Set(memlimit.WithRatio(goShare))
	if err != nil && !errors.Is(err, memlimit.ErrNoCgroup) && !errors.Is(err, memlimit.ErrNoLimit) {
		log.Warn("the memory limit of the container is unknown; set GOMEMLIMIT, or memory in the configuration",
			zap.Error(err))
	}
	m := divideMemory(c, min(limit, debug.SetMemoryLimit(-1)))
	if err := m.check(); err != nil {
		log.Warn("the memory limit of the container is too small for the configuration", zap.Error(err))
	}
	return m
}

// CheckMemory returns an error if the memory of a configuration does not fit into the limit of this process, of its container
// or GOMEMLIMIT. There is none if the process has no limit.
func CheckMemory(c config.Config) error {
	limit := debug.SetMemoryLimit(-1)
	if container, err := memlimit.FromCgroup(); err == nil && limit == math.MaxInt64 {
		limit = int64(float64(container) * goShare)
	}
	return divideMemory(c, limit).check()
}

func divideMemory(c config.Config, limit int64) memory {
	if limit <= 0 {
		limit = math.MaxInt64
	}
	return memory{limit, shareOf(c.Memory, limit, entryShare), shareOf(c.ClientMemory, limit, clientShare)}
}

// check returns an error if the process would exceed its limit, or do nothing but collect garbage.
func (m memory) check() error {
	need := m.entries + m.clients + processMemory
	if need <= m.limit { //guard:memory-beyond-the-container
		return nil
	}
	const mib = 1 << 20
	message := fmt.Sprintf("it (%d MiB), client_memory (%d MiB) and the process itself (%d MiB) do not fit into "+
		"the memory limit, of which Go may use %d MiB: the kernel would end the process; reduce memory or client_memory, or raise the "+
		"limit of the container", m.entries/mib, m.clients/mib, processMemory/mib, m.limit/mib)
	return &config.Error{Problems: []config.Problem{{Field: "memory", Message: message}}}
}

// shareOf returns the configured bytes, or the share of a limit, which is math.MaxInt64 if there is none.
func shareOf(configured config.Size, limit int64, share float64) int64 {
	switch {
	case configured > 0:
		return int64(configured)
	case limit == math.MaxInt64:
		return defaultMemory
	}
	return max(config.MinMemory, int64(float64(limit)*share))
}
