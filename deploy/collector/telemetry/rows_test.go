package telemetry

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/load"
	"github.com/shirou/gopsutil/v4/mem"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func named(pid int32) string { return fmt.Sprint("p", pid) }

// rowsOf returns the rows of two readings two seconds apart, by id.
func rowsOf(t *testing.T, last, now *reading, top int) map[string]Row {
	t.Helper()
	now.at = noon.Add(2 * time.Second)
	if last != nil {
		last.at = noon
	}
	sheet := &sheet{at: now.at}
	byID := make(map[string]Row)
	for _, row := range sheet.fill(last, now, top, named) {
		if _, twice := byID[row.ID]; twice {
			t.Errorf("%s is there twice", row.ID)
		}
		byID[row.ID] = row
	}
	return byID
}

// values returns id → value and status.
func values(rows map[string]Row) map[string]string {
	v := make(map[string]string)
	for id, row := range rows {
		v[id] = fmt.Sprint(row.Value, " ", row.Status)
	}
	return v
}

func TestRows(t *testing.T) {
	tests := []struct {
		name      string
		last, now reading
		want      map[string]string
	}{
		{"nothing is read", reading{}, reading{}, map[string]string{}},
		{
			"CPU",
			reading{
				cpu:   &cpu.TimesStat{User: 10, Idle: 50, Iowait: 5},
				cores: []cpu.TimesStat{{User: 1}, {Idle: 1}, {User: 9}},
			},
			reading{
				cpu:   &cpu.TimesStat{User: 12, System: 1, Idle: 55, Iowait: 7},
				cores: []cpu.TimesStat{{User: 3}, {Idle: 3}, {User: 2, Idle: 2}},
			},
			map[string]string{"CNF-001": "30 ok", "cpu/0": "100 critical", "cpu/1": "0 ok", "cpu/2": "0 ok"},
		},
		{
			"time of guests is part of user time",
			reading{cpu: &cpu.TimesStat{}},
			reading{cpu: &cpu.TimesStat{User: 1, Nice: 1, Guest: 1, GuestNice: 1, Idle: 2}},
			map[string]string{"CNF-001": "50 ok"},
		},
		{
			"a core that was added has no share yet",
			reading{cores: make([]cpu.TimesStat, 1)},
			reading{cores: make([]cpu.TimesStat, 2)},
			map[string]string{"cpu/0": "0 ok"},
		},
		{
			"load is judged by the number of cores",
			reading{},
			reading{load: &load.AvgStat{Load1: 8, Load5: 4, Load15: 3.9}, cores: make([]cpu.TimesStat, 4)},
			map[string]string{"CNF-002": "8 critical", "CNF-003": "4 warn", "CNF-004": "3.9 ok"},
		},
		{
			"memory",
			reading{},
			reading{
				memory: &mem.VirtualMemoryStat{UsedPercent: 85, Available: 4096},
				swap:   &mem.SwapMemoryStat{UsedPercent: 49.9},
				uptime: 77,
			},
			map[string]string{"CNF-005": "85 warn", "CNF-006": "4096 ok", "CNF-007": "49.9 ok", "CNF-014": "77 ok"},
		},
		{
			"file systems",
			reading{},
			reading{used: map[string]float64{"/": 95, "/var/lib": 84}},
			map[string]string{"CNF-008": "95 critical", "fs/var/lib/used": "84 ok"},
		},
		{
			"disks",
			reading{disks: map[string]traffic{"sda": {100, 0}, "sdb": {0, 50}, "old": {1, 1}}},
			reading{disks: map[string]traffic{"sda": {300, 10}, "sdb": {20, 50}, "new": {9, 9}}},
			map[string]string{
				"disk/sda/read": "100 ok", "disk/sda/write": "5 ok", "disk/sdb/read": "10 ok", "disk/sdb/write": "0 ok",
				"CNF-009": "110 ok", "CNF-010": "5 ok",
			},
		},
		{
			"networks, and nothing that loops back in their sum",
			reading{networks: map[string]traffic{"eth0": {0, 0}, "eth1": {0, 0}, "lo": {0, 0}}},
			reading{networks: map[string]traffic{"eth0": {2, 4}, "eth1": {6, 8}, "lo": {90, 90}}, loopback: "lo"},
			map[string]string{
				"net/eth0/rx": "1 ok", "net/eth0/tx": "2 ok", "net/eth1/rx": "3 ok", "net/eth1/tx": "4 ok",
				"net/lo/rx": "45 ok", "net/lo/tx": "45 ok", "CNF-011": "4 ok", "CNF-012": "6 ok",
			},
		},
		{
			"a counter that was reset",
			reading{networks: map[string]traffic{"eth0": {1 << 40, 0}}},
			reading{networks: map[string]traffic{"eth0": {10, 2}}},
			map[string]string{"net/eth0/rx": "0 ok", "net/eth0/tx": "1 ok", "CNF-011": "0 ok", "CNF-012": "1 ok"},
		},
		{
			"processes, two by CPU and two by memory",
			reading{processes: map[int32]usage{1: {10, 500}, 2: {0, 10}, 3: {0, 20}, 4: {1, 0}, 5: {0, 900}}},
			reading{processes: map[int32]usage{1: {10, 500}, 2: {3, 10}, 3: {1, 20}, 4: {1, 0}, 5: {0, 900}}},
			map[string]string{
				"CNF-013":    "5 ok",
				"proc/2/cpu": "150 ok", "proc/2/rss": "10 ok", "proc/3/cpu": "50 ok", "proc/3/rss": "20 ok",
				"proc/5/cpu": "0 ok", "proc/5/rss": "900 ok", "proc/1/cpu": "0 ok", "proc/1/rss": "500 ok",
			},
		},
		{
			"a pid that another process got has no share of CPU yet",
			reading{processes: map[int32]usage{1: {10, 5}}},
			reading{processes: map[int32]usage{1: {0.5, 5}, 2: {7, 5}}},
			map[string]string{"CNF-013": "2 ok", "proc/1/rss": "5 ok", "proc/2/rss": "5 ok"},
		},
		{
			"processes that take nothing are none of the top ones",
			reading{processes: map[int32]usage{1: {}}},
			reading{processes: map[int32]usage{1: {}}},
			map[string]string{"CNF-013": "1 ok"},
		},
		{
			"values that are not numbers are left out",
			reading{},
			reading{used: map[string]float64{"/": math.NaN(), "/a": math.Inf(1), "/b": 1}},
			map[string]string{"fs/b/used": "1 ok"},
		},
		{
			"what the table has no room for is left out",
			reading{},
			reading{used: map[string]float64{"/" + strings.Repeat("x", maxText): 1, "/b": 1}},
			map[string]string{"fs/b/used": "1 ok"},
		},
		{
			"names that a database would refuse",
			reading{},
			reading{used: map[string]float64{"/a\x00b\nc\xffd": 1, "/a_b_c_d": 1}},
			map[string]string{"fs/a_b_c_d/used": "1 ok"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := values(rowsOf(t, &tt.last, &tt.now, 2))
			for id, want := range tt.want {
				if got[id] != want {
					t.Errorf("%s is %q, want %q", id, got[id], want)
				}
			}
			for id := range got {
				if _, ok := tt.want[id]; !ok {
					t.Errorf("%s = %s is too much", id, got[id])
				}
			}
		})
	}
}

// full returns a reading that results in rows of every kind.
func full() *reading {
	return &reading{
		cpu: &cpu.TimesStat{}, cores: make([]cpu.TimesStat, 1), load: &load.AvgStat{}, memory: &mem.VirtualMemoryStat{},
		swap: &mem.SwapMemoryStat{}, uptime: 1, used: map[string]float64{"/": 1, "/home": 1},
		disks: map[string]traffic{"sda": {}}, networks: map[string]traffic{"eth0": {}},
		processes: map[int32]usage{7: {1, 1}},
	}
}

func TestFirstSampleHasNoRates(t *testing.T) {
	for id, row := range rowsOf(t, nil, full(), 5) {
		if row.Unit == bytesPerSecond || strings.Contains(row.Type, "cpu") {
			t.Errorf("%s = %v came of one reading", id, row.Value)
		}
	}
}

func TestEveryRowIsComplete(t *testing.T) {
	sheet := &sheet{prefix: "node-7/", at: noon}
	last := full()
	last.at = noon.Add(-time.Second)
	now := full()
	now.at = noon
	rows := sheet.fill(last, now, 5, named)
	if len(rows) != 22 {
		t.Errorf("%d rows, want 14 of the host, one of a core, 2 of a disk, one of a mount, 2 of a network, 2 of a process",
			len(rows))
	}
	if !slices.IsSortedFunc(rows, func(a, b Row) int { return strings.Compare(a.ID, b.ID) }) {
		t.Error("rows are not in the order of their ids")
	}
	for _, row := range rows {
		rest, ok := strings.CutPrefix(row.ID, "node-7/")
		inFamily := slices.ContainsFunc(Families(), func(f string) bool { return strings.HasPrefix(rest, f) })
		if !ok || row.Lasting == inFamily || row.Lasting != strings.HasPrefix(rest, "CNF-") {
			t.Errorf("%s: lasting %t, in a family %t", row.ID, row.Lasting, inFamily)
		}
		if row.Type == "" || row.Unit == "" || row.Status != OK || row.Time != noon {
			t.Errorf("%+v is not whole", row)
		}
	}
}

func TestDevicesAreLimited(t *testing.T) {
	last, now := full(), full()
	for i := range 3 * maxDevices {
		last.networks[fmt.Sprintf("veth%03d", i)] = traffic{}
		now.networks[fmt.Sprintf("veth%03d", i)] = traffic{2, 0}
		now.used[fmt.Sprintf("/m%03d", i)] = 1
	}
	last.cores, now.cores = make([]cpu.TimesStat, 2*maxCores), make([]cpu.TimesStat, 2*maxCores)
	rows := rowsOf(t, last, now, 5)
	count := func(prefix string) (n int) {
		for id := range rows {
			if strings.HasPrefix(id, prefix) {
				n++
			}
		}
		return n
	}
	if count("net/") != 2*maxDevices || count("fs/") != maxDevices-1 || count("cpu/") != maxCores {
		t.Errorf("%d rows of networks, %d of file systems, %d of cores", count("net/"), count("fs/"), count("cpu/"))
	}
	if got := rows["CNF-011"].Value; got != 3*maxDevices {
		t.Errorf("the sum of all networks is %v, want %d", got, 3*maxDevices)
	}
}

func TestStatusChangesAtItsLimit(t *testing.T) {
	for v, want := range map[float64]string{0: OK, 79.99: OK, 80: Warn, 94.99: Warn, 95: Critical, 100: Critical} {
		if got := cpuLimits.status(v); got != want {
			t.Errorf("%v is %s, want %s", v, got, want)
		}
	}
	if got := (limits{}).status(1e300); got != OK {
		t.Errorf("without limits: %s", got)
	}
}
