package sidecar

import (
	"errors"
	"fmt"
	"math"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/container"
)

const (
	// defaultMemory is for a process without a memory limit, for entries and for clients each.
	defaultMemory = 128 << 20
	// goShare is the share of the container's limit for Go. The rest is for the kernel, for the pages of the program, and for
	// what Go allocates before its collector catches up: with 0.9, an attack that allocates quickly got the process killed.
	goShare = 0.8
	// processMemory is what the process needs without entries and clients: runtime, connections and reads from origins, other members.
	processMemory = 12 << 20
	// entryShare is the share for entries of what is left of Go's memory limit, and clientShare that for clients. In a container of
	// 128 MiB, Go's limit is 102 MiB: 12 for the process, 43 for entries, 28 for clients, and 19 that the collector needs so that it
	// does not run all the time (see TestPromiseDNoClientExhaustsASidecar).
	entryShare, clientShare = 0.48, 0.31
	mib                     = 1 << 20
)

// memory is what the process may use, in bytes.
type memory struct {
	limit   int64 // Go's limit; math.MaxInt64 if there is none
	entries int64 // all entries
	clients int64 // everything else that clients and members make it use: the budget
}

// limitMemory sets Go's memory limit to that of the container, cgroup v1 or v2, unless GOMEMLIMIT is set, and divides it. An error
// means that the container is too small for any configuration.
func limitMemory(c config.Config, log *zap.Logger) (memory, error) {
	if err := checkContainer(); err != nil {
		return memory{}, err
	}
	limit, err := memlimit.Set(memlimit.WithRatio(goShare))
	if err != nil && !errors.Is(err, memlimit.ErrNoCgroup) && !errors.Is(err, memlimit.ErrNoLimit) {
		log.Warn("the memory limit of the container is unknown; set GOMEMLIMIT, or memory in the configuration",
			zap.Error(err))
	}
	m := divideMemory(c, min(limit, debug.SetMemoryLimit(-1)))
	if err := m.check(); err != nil {
		log.Warn("the memory limit of the container is too small for the configuration", zap.Error(err))
	}
	return m, nil
}

// CheckMemory returns an error if the memory of a configuration does not fit into the limit of this process, of its container
// or GOMEMLIMIT. There is none if the process has no limit.
func CheckMemory(c config.Config) error {
	if err := checkContainer(); err != nil {
		return err
	}
	limit := debug.SetMemoryLimit(-1)
	if container, err := memlimit.FromCgroup(); err == nil && limit == math.MaxInt64 {
		limit = int64(float64(container) * goShare)
	}
	return divideMemory(c, limit).check()
}

// checkContainer returns an error if the container of this process has less memory than any sidecar needs.
func checkContainer() error {
	limit, err := memlimit.FromCgroup()
	if err != nil { // none, or unknown
		return nil
	}
	return checkLimit(limit)
}

func checkLimit(limit uint64) error {
	if limit >= container.LeastMemory { //guard:container-without-the-least-memory
		return nil
	}
	return memoryProblem(fmt.Sprintf("the memory limit of the container is %d MiB, and a sidecar needs at least %d MiB: otherwise its "+
		"clients can make the kernel end it; raise the limit (in Kubernetes resources.limits.memory, or the annotation "+
		"ringside.dev/memory-limit)", limit/mib, container.LeastMemory/mib))
}

func memoryProblem(message string) error {
	return &config.Error{Problems: []config.Problem{{Field: "memory", Message: message}}}
}

func divideMemory(c config.Config, limit int64) memory {
	if limit <= 0 {
		limit = math.MaxInt64
	}
	left := int64(math.MaxInt64)
	if limit < left {
		left = max(limit-processMemory, 0)
	}
	return memory{limit, shareOf(c.Memory, left, entryShare), shareOf(c.ClientMemory, left, clientShare)}
}

// check returns an error if the process would exceed its limit, or do nothing but collect garbage.
func (m memory) check() error {
	need := m.entries + m.clients + processMemory
	if need <= m.limit { //guard:memory-beyond-the-container
		return nil
	}
	return memoryProblem(fmt.Sprintf("it (%d MiB), client_memory (%d MiB) and the process itself (%d MiB) do not fit into "+
		"the memory limit, of which Go may use %d MiB: the kernel would end the process; reduce memory or client_memory, or raise the "+
		"limit of the container", m.entries/mib, m.clients/mib, processMemory/mib, m.limit/mib))
}

// shareOf returns the configured bytes, or the share of those that are left, which are math.MaxInt64 without a limit.
func shareOf(configured config.Size, left int64, share float64) int64 {
	switch {
	case configured > 0:
		return int64(configured)
	case left == math.MaxInt64:
		return defaultMemory
	}
	return max(config.MinMemory, int64(float64(left)*share))
}
