// Package cgroup reads how much memory the kernel leaves to the container of this process, cgroup v1 or v2.
package cgroup

import (
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
)

// version is where a version of cgroups has the limit of the memory, its use, and the part of the use that the kernel takes away
// before it ends a process: pages of files that have not been read for a while.
type version struct{ controller, folder, limit, used, inactive string }

var versions = []version{
	{"", "sys/fs/cgroup", "memory.max", "memory.current", "inactive_file "},
	{"memory", "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "},
}

// MemoryLeft returns the bytes that the container may still use; ok is false if it has no limit, or that is unknown. root is the
// root of the file system.
func MemoryLeft(root fs.FS) (left int64, ok bool) {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	left = math.MaxInt64
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3) // number:controllers:path
		for _, v := range versions {
			if len(fields) == 3 && fields[1] == v.controller {
				left = min(left, v.left(root, fields[2]))
			}
		}
	}
	return max(left, 0), left < math.MaxInt64
}

// left returns the least that the cgroup of a path and those above it leave. A container sees its own cgroup as the root, but with
// v1 the path of the host.
func (v version) left(root fs.FS, of string) int64 {
	least := v.leftIn(root, v.folder)
	for at := strings.Trim(of, "/"); at != "" && at != "."; at = path.Dir(at) {
		least = min(least, v.leftIn(root, path.Join(v.folder, at)))
	}
	return least
}

// leftIn returns the largest number if the folder has no limit, or does not exist.
func (v version) leftIn(root fs.FS, folder string) int64 {
	limit, limited := number(root, path.Join(folder, v.limit), "")
	used, known := number(root, path.Join(folder, v.used), "")
	if !limited || !known || limit >= math.MaxInt64-1<<20 { // v1 rounds "none" to pages
		return math.MaxInt64
	}
	inactive, _ := number(root, path.Join(folder, "memory.stat"), v.inactive)
	return limit - used + min(inactive, used) //guard:pages-of-files-count-as-used
}

// number returns the number in a file, on the line that begins with prefix.
func number(root fs.FS, file, prefix string) (n int64, ok bool) {
	text, err := fs.ReadFile(root, file)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		if rest, found := strings.CutPrefix(line, prefix); found {
			n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			return n, err == nil && n >= 0
		}
	}
	return 0, false
}
