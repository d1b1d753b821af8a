package telemetry

import (
	"cmp"
	"slices"
	"strings"

	"github.com/shirou/gopsutil/v4/disk"
)

// onePerDevice returns the shortest mount point of each device except the root's, because containers and bind mounts show
// one device many times. It omits loop devices, whose read-only images are always full.
func onePerDevice(mounts []disk.PartitionStat) (points []string) {
	slices.SortFunc(mounts, func(a, b disk.PartitionStat) int {
		return cmp.Or(cmp.Compare(len(a.Mountpoint), len(b.Mountpoint)), cmp.Compare(a.Mountpoint, b.Mountpoint))
	})
	seen := make(map[string]bool)
	for _, m := range mounts {
		if !seen[m.Device] && m.Mountpoint != "/" && !strings.HasPrefix(m.Device, "/dev/loop") {
			points = append(points, m.Mountpoint)
		}
		seen[m.Device] = true
	}
	return points
}

// isDisk reports whether a block device is a physical disk. The traffic of a partition (sda1 of sda, nvme0n1p2 of nvme0n1)
// is counted at its disk, that of a mapped or striped device at the underlying devices.
func isDisk[T any](name string, all map[string]T) bool {
	for _, made := range []string{"loop", "ram", "zram", "dm-", "md"} {
		if strings.HasPrefix(name, made) {
			return false
		}
	}
	disk := strings.TrimRight(name, "0123456789")
	if disk == name {
		return true
	}
	_, partition := all[disk]
	if short, ok := strings.CutSuffix(disk, "p"); ok && !partition {
		_, partition = all[short]
	}
	return !partition
}
