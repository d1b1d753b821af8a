package telemetry

import (
	"cmp"
	"slices"
	"strings"

	"github.com/shirou/gopsutil/v4/disk"
)

// onePerDevice returns the shortest mount point of each device but the root's: containers and bind mounts show one
// device many times. Loop devices hold read-only images, which are full by nature.
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

// isDisk reports whether a block device is a disk of its own. The bytes of a partition (sda1 of sda, nvme0n1p2 of
// nvme0n1) count for its disk, those of a mapped or striped device for the ones below it.
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
