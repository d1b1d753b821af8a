package rig

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// Cgroup is a control group with a memory limit, of cgroup v1 or v2, like that of a container.
type Cgroup struct {
	t   testing.TB
	dir string
	v2  bool
}

var cgroups atomic.Int64 // made by this program

// NewCgroup makes a control group. It needs root, and a mounted memory controller.
func NewCgroup(t testing.TB, limit int64) *Cgroup {
	t.Helper()
	NeedServers(t)
	const root = "/sys/fs/cgroup"
	name := fmt.Sprintf("ringside-test-%d-%d", os.Getpid(), cgroups.Add(1))
	c := &Cgroup{t: t, dir: filepath.Join(root, "memory", name)}
	limits := map[string]string{"memory.limit_in_bytes": strconv.FormatInt(limit, 10)}
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		c.dir, c.v2 = filepath.Join(root, name), true
		// It fails where a parent of this machine has not delegated the controller; then memory.max is missing.
		_ = os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+memory"), 0)
		limits = map[string]string{"memory.max": strconv.FormatInt(limit, 10)}
	}
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		t.Fatalf("rig: this test runs a sidecar in a control group with a memory limit: run it as root, with the memory controller"+
			" of cgroup v1 or v2 below %s: %v", root, err)
	}
	t.Cleanup(c.remove)
	for file, value := range limits {
		if err := os.WriteFile(filepath.Join(c.dir, file), []byte(value), 0); err != nil {
			t.Fatalf("rig: limit the memory of a control group (is the memory controller delegated?): %v", err)
		}
	}
	return c
}

// remove waits for the last process to leave the group, which may take a moment after its end.
func (c *Cgroup) remove() {
	Eventually(c.t, stopTimeout, func() error { return os.Remove(c.dir) })
}

// OOMKills returns how many processes of the group the kernel has killed because of the limit.
func (c *Cgroup) OOMKills() int64 {
	c.t.Helper()
	file := "memory.oom_control"
	if c.v2 {
		file = "memory.events"
	}
	for line := range strings.Lines(c.read(file)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return c.number(n)
		}
	}
	c.t.Fatalf("rig: %s of a control group has no oom_kill", file)
	return 0
}

// Usage returns how many bytes the group uses, without what the kernel can drop from its cache of files.
func (c *Cgroup) Usage() int64 {
	c.t.Helper()
	anonymous := map[bool]string{false: "total_rss ", true: "anon "}[c.v2]
	for line := range strings.Lines(c.read("memory.stat")) {
		if n, ok := strings.CutPrefix(line, anonymous); ok {
			return c.number(n)
		}
	}
	c.t.Fatalf("rig: memory.stat of a control group has no %s", anonymous)
	return 0
}

// Peak returns the most bytes that the group has used, cache included.
func (c *Cgroup) Peak() int64 {
	c.t.Helper()
	if c.v2 {
		return c.number(c.read("memory.peak"))
	}
	return c.number(c.read("memory.max_usage_in_bytes"))
}

func (c *Cgroup) read(file string) string {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, file))
	if err != nil {
		c.t.Fatalf("rig: read a control group: %v", err)
	}
	return string(text)
}

func (c *Cgroup) number(text string) int64 {
	c.t.Helper()
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		c.t.Fatalf("rig: read a control group: %v", err)
	}
	return n
}

// LimitMemory makes a sidecar that has not been started run in a control group of its own. Call it before LimitFiles.
func (s *Sidecar) LimitMemory(limit int64) *Cgroup {
	s.t.Helper()
	c := NewCgroup(s.t, limit)
	s.t.Cleanup(s.Kill) // before the group is removed
	cmd := c.Command(s.path, s.args...)
	s.path, s.args = cmd.Path, cmd.Args[1:]
	return c
}

// Command returns a command that runs a program in the group. The program must have ended before the test does.
func (c *Cgroup) Command(path string, args ...string) *exec.Cmd {
	c.t.Helper()
	const script = `echo $$ >"$0" && exec "$@"`
	return exec.Command(Program(c.t, "sh"), append([]string{"-c", script, filepath.Join(c.dir, "cgroup.procs"), path}, args...)...)
}
