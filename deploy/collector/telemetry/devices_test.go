package telemetry

import (
	"slices"
	"testing"

	"github.com/shirou/gopsutil/v4/disk"
)

func TestOnePerDevice(t *testing.T) {
	mount := func(device, point string) disk.PartitionStat {
		return disk.PartitionStat{Device: device, Mountpoint: point}
	}
	got := onePerDevice([]disk.PartitionStat{
		mount("/dev/vda1", "/etc/resolv.conf"),
		mount("/dev/vda1", "/"),
		mount("/dev/vdb1", "/var/lib/pods/x"),
		mount("/dev/vdb1", "/data"),
		mount("/dev/vdb1", "/dada"),
		mount("/dev/loop3", "/snap/core"),
		mount("/dev/vdc", "/boot"),
	})
	if want := []string{"/boot", "/dada"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestIsDisk(t *testing.T) {
	all := map[string]bool{ // → is a disk
		"sda": true, "sda1": false, "sda12": false, "sdb1": true, "vda": true, "xvda1": true, "nvme0n1": true,
		"nvme0n1p1": false, "nvme10n1p2": true, "mmcblk0": true, "mmcblk0p1": false, "mmcblk0boot0": true, "disk0": true,
		"sr0": true, "loop0": false, "ram1": false, "zram0": false, "dm-0": false, "md127": false,
	}
	for name, want := range all {
		if got := isDisk(name, all); got != want {
			t.Errorf("%s: %t, want %t", name, got, want)
		}
	}
}
