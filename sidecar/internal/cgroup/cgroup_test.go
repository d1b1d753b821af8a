package cgroup

import (
	"testing"
	"testing/fstest"
)

func files(pairs ...string) fstest.MapFS {
	list := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		list[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return list
}

func TestMemoryLeft(t *testing.T) {
	for name, test := range map[string]struct {
		root fstest.MapFS
		want int64
	}{
		"v2, in a container": {files("proc/self/cgroup", "0::/\n", "sys/fs/cgroup/memory.max", "1000\n",
			"sys/fs/cgroup/memory.current", "700\n", "sys/fs/cgroup/memory.stat", "anon 300\ninactive_file 100\nactive_file 5\n"), 400},
		"v2, the parent has less": {files("proc/self/cgroup", "0::/pod/c\n", "sys/fs/cgroup/pod/memory.max", "500\n",
			"sys/fs/cgroup/pod/memory.current", "450\n", "sys/fs/cgroup/pod/c/memory.max", "max\n",
			"sys/fs/cgroup/pod/c/memory.current", "450\n"), 50},
		"v2, above the limit": {files("proc/self/cgroup", "0::/\n", "sys/fs/cgroup/memory.max", "1000\n",
			"sys/fs/cgroup/memory.current", "1200\n"), 0},
		"v1, with the path of the host": {files("proc/self/cgroup", "5:cpu:/x\n4:memory:/kubepods/x\n0::/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes", "1000\n", "sys/fs/cgroup/memory/memory.usage_in_bytes", "900\n",
			"sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 20\n"), 120},
	} {
		if got, ok := MemoryLeft(test.root); !ok || got != test.want {
			t.Errorf("%s: got %d, %t; want %d", name, got, ok, test.want)
		}
	}
	for name, root := range map[string]fstest.MapFS{
		"no files":     files(),
		"v2, no limit": files("proc/self/cgroup", "0::/\n", "sys/fs/cgroup/memory.max", "max\n", "sys/fs/cgroup/memory.current", "1\n"),
		"v1, no limit": files("proc/self/cgroup", "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n",
			"sys/fs/cgroup/memory/memory.usage_in_bytes", "900\n"),
		"garbage": files("proc/self/cgroup", "x\n0::/\n", "sys/fs/cgroup/memory.max", "-5\n", "sys/fs/cgroup/memory.current", "1\n"),
	} {
		if got, ok := MemoryLeft(root); ok {
			t.Errorf("%s: got %d; want no limit", name, got)
		}
	}
}
