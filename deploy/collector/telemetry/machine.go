package telemetry

import (
	"context"
	"errors"
	"fmt"
	stdnet "net"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/host"
	"github.com/shirou/gopsutil/v4/load"
	"github.com/shirou/gopsutil/v4/mem"
	"github.com/shirou/gopsutil/v4/net"
	"github.com/shirou/gopsutil/v4/process"
)

// reading has the counters and gauges at one moment. Values that cannot be read are nil or empty.
type reading struct {
	at        time.Time
	cpu       *cpu.TimesStat
	cores     []cpu.TimesStat
	load      *load.AvgStat
	memory    *mem.VirtualMemoryStat
	swap      *mem.SwapMemoryStat
	uptime    uint64             // seconds
	used      map[string]float64 // :: mount point → percent
	disks     map[string]traffic // :: device → bytes read and written
	networks  map[string]traffic // :: interface → bytes received and sent
	loopback  string             // interface
	processes map[int32]usage    // :: pid → usage so far
}

// traffic counts bytes since an arbitrary moment.
type traffic struct{ in, out uint64 }

// usage is the resource usage of a process.
type usage struct {
	cpu float64 // seconds since its start
	rss uint64  // bytes now
}

// read reads all values of the machine. The error lists those that cannot be read; the others are in the reading.
func read(ctx context.Context) (*reading, error) {
	r := &reading{at: time.Now()}
	var errs []error
	for _, part := range []struct {
		name string
		read func(context.Context) error
	}{
		{"CPU", r.readCPU},
		{"load", r.readLoad},
		{"memory", r.readMemory},
		{"swap", r.readSwap},
		{"uptime", r.readUptime},
		{"file systems", r.readMounts},
		{"disks", r.readDisks},
		{"networks", r.readNetworks},
		{"processes", r.readProcesses},
	} {
		if err := part.read(ctx); err != nil {
			errs = append(errs, fmt.Errorf("read %s: %w", part.name, err))
		}
	}
	return r, errors.Join(errs...)
}

func (r *reading) readCPU(ctx context.Context) error {
	all, err := cpu.TimesWithContext(ctx, false)
	if err != nil || len(all) == 0 {
		return err
	}
	r.cpu = &all[0]
	r.cores, err = cpu.TimesWithContext(ctx, true)
	return err
}

func (r *reading) readLoad(ctx context.Context) (err error) {
	r.load, err = load.AvgWithContext(ctx)
	return err
}

func (r *reading) readMemory(ctx context.Context) (err error) {
	r.memory, err = mem.VirtualMemoryWithContext(ctx)
	return err
}

func (r *reading) readSwap(ctx context.Context) (err error) {
	r.swap, err = mem.SwapMemoryWithContext(ctx)
	return err
}

func (r *reading) readUptime(ctx context.Context) (err error) {
	r.uptime, err = host.UptimeWithContext(ctx)
	return err
}

// readMounts reads the root and each file system on a device once. It omits network file systems, because a request to an
// unreachable server blocks forever.
func (r *reading) readMounts(ctx context.Context) error {
	mounts, err := disk.PartitionsWithContext(ctx, false)
	r.used = make(map[string]float64)
	for _, mount := range append([]string{"/"}, onePerDevice(mounts)...) {
		if u, err := disk.UsageWithContext(ctx, mount); err == nil && u.Total > 0 {
			r.used[mount] = u.UsedPercent
		}
	}
	return err
}

func (r *reading) readDisks(ctx context.Context) error {
	counters, err := disk.IOCountersWithContext(ctx)
	r.disks = make(map[string]traffic)
	for name, c := range counters {
		if isDisk(name, counters) {
			r.disks[name] = traffic{c.ReadBytes, c.WriteBytes}
		}
	}
	return err
}

func (r *reading) readNetworks(ctx context.Context) error {
	counters, err := net.IOCountersWithContext(ctx, true)
	r.networks = make(map[string]traffic)
	for _, c := range counters {
		r.networks[c.Name] = traffic{c.BytesRecv, c.BytesSent}
		if i, err := stdnet.InterfaceByName(c.Name); err == nil && i.Flags&stdnet.FlagLoopback != 0 {
			r.loopback = c.Name
		}
	}
	return err
}

// readProcesses skips processes that end meanwhile and those without permission.
func (r *reading) readProcesses(ctx context.Context) error {
	pids, err := process.PidsWithContext(ctx)
	r.processes = make(map[int32]usage, len(pids))
	for _, pid := range pids {
		p := process.Process{Pid: pid}
		times, errTimes := p.TimesWithContext(ctx)
		memory, errMemory := p.MemoryInfoWithContext(ctx)
		if errTimes == nil && errMemory == nil {
			r.processes[pid] = usage{times.User + times.System, memory.RSS}
		}
	}
	return err
}

// nameOf returns the name of a process, or "unknown" if it has ended.
func nameOf(ctx context.Context, pid int32) string {
	p := process.Process{Pid: pid}
	name, err := p.NameWithContext(ctx)
	if err != nil || name == "" {
		return "unknown"
	}
	return name
}
