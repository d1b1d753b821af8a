// Package proc reads the processes of this machine in /proc.
//
// A process may exit at any time: between the listing of /proc and the opening of a file there (ENOENT), and between the
// opening and the reading (ESRCH). The functions report a process that has exited as such, and not as an error.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// readProc reads a file of /proc; ok is false if its process has exited.
func readProc(path string) (text []byte, ok bool, err error) {
	text, err = os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return nil, false, nil
	}
	return text, err == nil, err
}

// Status returns the fields of proc_pid_status(5), or nil if the process has exited and its parent has waited for it.
func Status(t testing.TB, pid int) map[string]string {
	t.Helper()
	text, ok, err := readProc(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatalf("proc: %v", err)
	}
	if !ok {
		return nil
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimSpace(value)
	}
	return fields
}

// Children returns the child processes of pid: those that run, and those that have exited but that pid has not waited for.
func Children(pid int) (running, zombies []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is well-formed
	for _, list := range lists {
		text, _, _ := readProc(list) // a thread that has exited has no children
		for _, field := range bytes.Fields(text) {
			child, err := strconv.Atoi(string(field))
			if err != nil {
				continue // the kernel writes numbers only
			}
			switch stateOf(fmt.Sprintf("/proc/%d/stat", child)) {
			case exited:
			case zombie:
				zombies = append(zombies, child)
			default:
				running = append(running, child)
			}
		}
	}
	return running, zombies
}

// Process is one process. A pid alone does not name one for long: after its process has exited the kernel gives it to another
// one, on a machine where tests start thousands of processes within seconds.
type Process struct {
	pid     int
	started string // in ticks since the start of the machine
}

// Of returns the process that has a pid now.
func Of(pid int) Process {
	_, started := readStat(fmt.Sprintf("/proc/%d/stat", pid))
	return Process{pid, started}
}

// Runs reports whether the process runs. One that has exited but that its parent has not waited for does not.
func (p Process) Runs() bool {
	state, started := readStat(fmt.Sprintf("/proc/%d/stat", p.pid))
	return state != exited && state != zombie && started == p.started
}

// HasRunningThread reports whether at least one thread of a process is not stopped.
func HasRunningThread(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid)) // the pattern is well-formed
	for _, thread := range threads {
		if state := stateOf(thread); state != stopped && state != zombie && state != exited {
			return true
		}
	}
	return false
}

// States of proc_pid_stat(5); exited is not one of them.
const (
	exited  = 0
	stopped = 'T'
	zombie  = 'Z'
)

// stateOf reads the state of a process or thread from its stat file.
func stateOf(path string) byte {
	state, _ := readStat(path)
	return state
}

// clockTick is the unit of times in /proc on all architectures that Go supports (sysconf(_SC_CLK_TCK)).
const clockTick = 10 * time.Millisecond

// CPUTime returns the time that the threads of a process have run, in user and in kernel mode: the fields 14 and 15 of
// proc_pid_stat(5). It is 0 for a process that has exited.
func CPUTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	fields := statFields(fmt.Sprintf("/proc/%d/stat", pid))
	if len(fields) < 13 {
		return 0
	}
	user, err := strconv.Atoi(string(fields[11]))
	system, err2 := strconv.Atoi(string(fields[12]))
	if err := errors.Join(err, err2); err != nil {
		t.Fatalf("proc: times of process %d: %v", pid, err)
	}
	return time.Duration(user+system) * clockTick
}

// readStat reads the fields 3 and 22 of a stat file: the state, and the time of the start.
func readStat(path string) (state byte, started string) {
	fields := statFields(path)
	if len(fields) < 20 {
		return exited, ""
	}
	return fields[0][0], string(fields[19])
}

// statFields returns the fields of a stat file from the third one; none if the process has exited.
func statFields(path string) [][]byte {
	stat, _, _ := readProc(path)
	return bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // the name before it may have spaces and parentheses
}
