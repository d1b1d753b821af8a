package telemetry

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/shirou/gopsutil/v4/cpu"
)

// Families are the id prefixes of all rows that are not lasting. The rows CNF-001 to CNF-014 are lasting.
func Families() []string { return []string{"cpu/", "disk/", "fs/", "net/", "proc/"} }

// maxDevices limits the rows per kind of device, and maxCores those of cores: a container host may have one network
// interface per container.
const (
	maxDevices = 64
	maxCores   = 1024
)

// fill turns a reading into rows, ordered by id. Rates need the previous reading, which may be nil. Name returns the name
// of a process.
func (s *sheet) fill(last, now *reading, top int, name func(pid int32) string) []Row {
	if last == nil {
		last = &reading{at: now.at}
	}
	s.cpu(last, now)
	s.load(now)
	s.memory(now)
	s.fileSystems(now)
	elapsed := now.at.Sub(last.at).Seconds()
	disks, networks := rates(last.disks, now.disks, elapsed), rates(last.networks, now.networks, elapsed)
	s.traffic("disk/", "read", "write", disks)
	s.traffic("net/", "rx", "tx", networks)
	s.totals(disks, networks, now.loopback)
	s.processes(last, now, elapsed, top, name)
	slices.SortFunc(s.rows, func(a, b Row) int { return cmp.Compare(a.ID, b.ID) })
	// Two names may be equal after cleaning, and PostgreSQL rejects a statement that writes a row twice.
	return slices.CompactFunc(s.rows, func(a, b Row) bool { return a.ID == b.ID })
}

func (s *sheet) cpu(last, now *reading) {
	if last.cpu != nil && now.cpu != nil {
		s.add("CNF-001", "cpu.total", busy(*last.cpu, *now.cpu), percent, cpuLimits)
	}
	for i := range min(len(last.cores), len(now.cores), maxCores) {
		s.add("cpu/"+strconv.Itoa(i), "cpu.core", busy(last.cores[i], now.cores[i]), percent, cpuLimits)
	}
}

// busy returns the percentage of time between two readings in which a CPU neither idled nor waited for disks. Guest time
// is already part of user time (proc(5)).
func busy(last, now cpu.TimesStat) float64 {
	idle := now.Idle + now.Iowait - last.Idle - last.Iowait
	work := func(t cpu.TimesStat) float64 { return t.User + t.System + t.Nice + t.Irq + t.Softirq + t.Steal }
	worked := max(work(now)-work(last), 0)
	if worked == 0 {
		return 0
	}
	return 100 * worked / (worked + max(idle, 0))
}

func (s *sheet) load(now *reading) {
	if now.load == nil {
		return
	}
	l := loadLimits.times(len(now.cores))
	s.add("CNF-002", "load.1m", now.load.Load1, tasks, l)
	s.add("CNF-003", "load.5m", now.load.Load5, tasks, l)
	s.add("CNF-004", "load.15m", now.load.Load15, tasks, l)
}

func (s *sheet) memory(now *reading) {
	if now.memory != nil {
		s.add("CNF-005", "memory.used", now.memory.UsedPercent, percent, memoryLimits)
		s.add("CNF-006", "memory.available", float64(now.memory.Available), bytes, limits{})
	}
	if now.swap != nil {
		s.add("CNF-007", "swap.used", now.swap.UsedPercent, percent, swapLimits)
	}
	if now.uptime > 0 {
		s.add("CNF-014", "host.uptime", float64(now.uptime), seconds, limits{})
	}
}

func (s *sheet) fileSystems(now *reading) {
	for _, mount := range firstOf(now.used, maxDevices) {
		if mount == "/" {
			s.add("CNF-008", "disk.root.used", now.used[mount], percent, diskLimits)
			continue
		}
		s.add("fs/"+strings.Trim(mount, "/")+"/used", "disk.used", now.used[mount], percent, diskLimits)
	}
}

// rate is in bytes per second.
type rate struct{ in, out float64 }

// rates returns the rates of the devices in both readings, 0 for a counter that was reset.
func rates(last, now map[string]traffic, elapsed float64) map[string]rate {
	per := make(map[string]rate)
	since := func(last, now uint64) float64 { return float64(now-min(last, now)) / elapsed }
	for name, n := range now {
		if l, ok := last[name]; ok && elapsed > 0 {
			per[name] = rate{since(l.in, n.in), since(l.out, n.out)}
		}
	}
	return per
}

// traffic adds the rates of devices, with types such as net.rx.
func (s *sheet) traffic(family, in, out string, devices map[string]rate) {
	kind := strings.TrimSuffix(family, "/") + "."
	for _, name := range firstOf(devices, maxDevices) {
		s.add(family+name+"/"+in, kind+in, devices[name].in, bytesPerSecond, limits{})
		s.add(family+name+"/"+out, kind+out, devices[name].out, bytesPerSecond, limits{})
	}
}

// totals adds the sums over all disks and over all networks except the loopback.
func (s *sheet) totals(disks, networks map[string]rate, loopback string) {
	if len(disks) > 0 {
		d := sum(disks, "")
		s.add("CNF-009", "disk.total.read", d.in, bytesPerSecond, limits{})
		s.add("CNF-010", "disk.total.write", d.out, bytesPerSecond, limits{})
	}
	if len(networks) > 0 {
		n := sum(networks, loopback)
		s.add("CNF-011", "net.total.rx", n.in, bytesPerSecond, limits{})
		s.add("CNF-012", "net.total.tx", n.out, bytesPerSecond, limits{})
	}
}

func sum(rates map[string]rate, but string) (total rate) {
	for name, r := range rates {
		if name != but {
			total.in += r.in
			total.out += r.out
		}
	}
	return total
}

func firstOf[V any](devices map[string]V, n int) []string {
	names := slices.Sorted(maps.Keys(devices))
	return names[:min(n, len(names))]
}

// share is the resource usage of one process.
type share struct {
	pid      int32
	rss      uint64  // bytes
	cpu      float64 // percent of one core
	cpuKnown bool    // the process is in both readings
}

// processes adds both values of the top processes by CPU and by memory.
func (s *sheet) processes(last, now *reading, elapsed float64, top int, name func(pid int32) string) {
	if len(now.processes) > 0 {
		s.add("CNF-013", "process.count", float64(len(now.processes)), processes, limits{})
	}
	for _, p := range topOf(sharesOf(last, now, elapsed), top) {
		id, of := "proc/"+strconv.Itoa(int(p.pid)), ":"+name(p.pid)
		if p.cpuKnown {
			s.add(id+"/cpu", "process.cpu"+of, p.cpu, percent, limits{})
		}
		s.add(id+"/rss", "process.rss"+of, float64(p.rss), bytes, limits{})
	}
}

// sharesOf treats a process whose CPU time decreased as a new process with a reused pid.
func sharesOf(last, now *reading, elapsed float64) []share {
	shares := make([]share, 0, len(now.processes))
	for pid, n := range now.processes {
		p := share{pid: pid, rss: n.rss}
		if l, ok := last.processes[pid]; ok && elapsed > 0 && n.cpu >= l.cpu {
			p.cpu, p.cpuKnown = 100*(n.cpu-l.cpu)/elapsed, true
		}
		shares = append(shares, p)
	}
	return shares
}

// topOf returns the n largest by CPU and the n largest by memory (at most 2n), without those that use nothing.
func topOf(shares []share, n int) []share {
	top := make(map[int32]share)
	for _, measure := range []func(share) float64{
		func(p share) float64 { return p.cpu },
		func(p share) float64 { return float64(p.rss) },
	} {
		slices.SortFunc(shares, func(a, b share) int {
			return cmp.Or(cmp.Compare(measure(b), measure(a)), cmp.Compare(a.pid, b.pid))
		})
		for _, p := range shares[:min(n, len(shares))] {
			if measure(p) > 0 {
				top[p.pid] = p
			}
		}
	}
	return slices.Collect(maps.Values(top))
}
