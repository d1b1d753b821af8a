// Package rig starts the real servers that tests run against: databases and etcd on free ports of the loopback
// interface, with their files in a temporary directory. Each server dies with the test that started it.
package rig

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	startGrace = 30 * time.Second // a shared build machine may be this slow
	stopGrace  = 15 * time.Second // then the process is killed
	pollEvery  = 5 * time.Millisecond
)

// process is one server of a test. Its methods are for the goroutine that runs the test.
type process struct {
	t     testing.TB
	name  string
	path  string
	args  []string
	dir   string              // working directory; holds <name>.log
	cred  *syscall.Credential // nil: the user that runs the test
	ready func(pid int) error // nil once the server answers
	quit  syscall.Signal      // asks it to stop in order

	cmd    *exec.Cmd     // nil before the first Start
	exited chan struct{} // closed when cmd has ended
}

// Start starts the server, on the same port and the same files each time, and waits until it answers.
func (p *process) Start() {
	p.t.Helper()
	p.spawn()
	deadline := time.Now().Add(startGrace)
	for {
		err := p.ready(p.cmd.Process.Pid)
		switch {
		case err == nil:
			return
		case !p.running():
			p.t.Fatalf("rig: %s ended while it started:\n%s", p.name, p.logTail())
		case time.Now().After(deadline):
			p.t.Fatalf("rig: %s does not answer after %v: %v\n%s", p.name, startGrace, err, p.logTail())
		}
		time.Sleep(pollEvery)
	}
}

func (p *process) spawn() {
	p.t.Helper()
	log, err := os.OpenFile(p.logPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		p.t.Fatalf("rig: log of %s: %v", p.name, err)
	}
	defer log.Close()
	cmd := exec.Command(p.path, p.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.cred, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		p.t.Fatalf("rig: start %s: %v", p.name, err)
	}
	exited := make(chan struct{})
	p.cmd, p.exited = cmd, exited
	go func() {
		defer close(exited)
		_ = cmd.Wait() // the exit status of a server that was told to end says nothing
	}()
}

// Stop asks the server to end in order, and waits until it has. A server that has ended already is left alone.
func (p *process) Stop() {
	if !p.running() {
		return
	}
	p.Thaw()
	_ = p.cmd.Process.Signal(p.quit) // fails only when it has just ended
	select {
	case <-p.exited:
	case <-time.After(stopGrace):
		p.Kill()
	}
}

// Kill ends the server and its children with SIGKILL, as a crash of their machine would, and waits until they are gone.
func (p *process) Kill() {
	if !p.running() {
		return
	}
	children := childrenOf(p.cmd.Process.Pid)
	p.signalAll(syscall.SIGKILL)
	<-p.exited
	for _, child := range children {
		for alive(child) { // or it holds the shared memory that the next Start needs
			time.Sleep(pollEvery)
		}
	}
}

// Freeze stops the server and its children in their tracks (SIGSTOP), and waits until all their threads have stopped:
// connections stay open and nothing answers.
func (p *process) Freeze() {
	p.signalAll(syscall.SIGSTOP)
	for _, pid := range append(childrenOf(p.cmd.Process.Pid), p.cmd.Process.Pid) {
		for threadRuns(pid) {
			_ = syscall.Kill(pid, syscall.SIGSTOP) // one that began while the others were told has not been
			time.Sleep(pollEvery)
		}
	}
}

// Thaw undoes Freeze.
func (p *process) Thaw() { p.signalAll(syscall.SIGCONT) }

// signalAll reaches children too: each connection of PostgreSQL is a process in a group of its own. The parent comes
// first, so that it makes no more of them.
func (p *process) signalAll(sig syscall.Signal) {
	if !p.running() {
		return
	}
	pid := p.cmd.Process.Pid
	_ = p.cmd.Process.Signal(sig)
	for _, child := range childrenOf(pid) {
		_ = syscall.Kill(child, sig)
	}
}

func (p *process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

func (p *process) logPath() string { return filepath.Join(p.dir, p.name+".log") }

func (p *process) logTail() string {
	const most = 4 << 10
	log, err := os.ReadFile(p.logPath())
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-most):])
}

func childrenOf(pid int) (children []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is well-formed
	for _, list := range lists {
		b, err := os.ReadFile(list)
		if err != nil {
			continue // that thread has ended
		}
		for _, field := range bytes.Fields(b) {
			if child, err := strconv.Atoi(string(field)); err == nil {
				children = append(children, child)
			}
		}
	}
	return children
}

// alive reports whether a process runs; one that has ended but that its parent has not waited for does not.
func alive(pid int) bool {
	state := stateOf(fmt.Sprintf("/proc/%d/stat", pid))
	return state != 0 && state != 'Z'
}

func threadRuns(pid int) bool {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid)) // the pattern is well-formed
	return slices.ContainsFunc(threads, func(stat string) bool {
		return !strings.ContainsRune("TZ\x00", rune(stateOf(stat)))
	})
}

// stateOf reads the state of a process or thread (proc_pid_stat(5)); 0 where there is none.
func stateOf(path string) byte {
	stat, err := os.ReadFile(path)
	_, state, found := bytes.Cut(stat, []byte(") ")) // the name before is in parentheses
	if err != nil || !found || len(state) == 0 {
		return 0
	}
	return state[0]
}

// binary finds a program in PATH, or in one of the folders (patterns of filepath.Glob) where packages put servers.
func binary(t testing.TB, name string, folders ...string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, folder := range folders {
		found, _ := filepath.Glob(filepath.Join(folder, name)) // the patterns are constants
		if len(found) > 0 {
			return found[len(found)-1] // the newest version sorts last
		}
	}
	t.Fatalf("rig: %s is in neither PATH nor %s: run make setup", name, strings.Join(folders, ", "))
	return ""
}

// freePort returns a TCP port of 127.0.0.1 that nobody listens on now.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("rig: free port: %v", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// listening returns a check that a server accepts connections at address.
func listening(address string) func(pid int) error {
	return func(int) error {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}
