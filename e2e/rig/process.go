// Package rig starts the real servers that tests run against: databases, etcd, proxies and sidecars, on free ports of the
// loopback interface, with their files in a temporary directory. Each server ends with the test that started it.
package rig

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/e2e/rig/proc"
)

const (
	startTimeout = 2 * time.Minute // a shared build machine may be this slow
	stopTimeout  = 30 * time.Second
	pollEvery    = 5 * time.Millisecond
)

// NeedServers skips the test under -short. `make check` runs with -short, on machines that have none of the programs that
// `make setup` installs. `make test` runs without it and skips nothing. All functions of this package that start a program
// call it; a test that starts a program itself calls it first.
func NeedServers(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs installed programs or whole processes: make test runs it")
	}
}

// process is one server of a test. Its methods are for the goroutine that runs the test.
type process struct {
	t     testing.TB
	name  string
	path  string
	args  []string
	dir   string              // working directory; has <name>.log
	cred  *syscall.Credential // nil: the user that runs the test
	ready func(pid int) error // nil once the server accepts requests
	quit  syscall.Signal      // requests an orderly stop

	cmd    *exec.Cmd     // nil before the first Start
	exited chan struct{} // closed when cmd has exited
	killed bool          // by Stop or Kill
}

// Start starts the server, on the same port and the same files each time, and waits until it accepts requests.
func (p *process) Start() {
	p.t.Helper()
	p.spawn()
	deadline := time.Now().Add(startTimeout)
	for {
		err := p.ready(p.cmd.Process.Pid)
		switch {
		case err == nil:
			return
		case !p.running():
			p.t.Fatalf("rig: %s exited during its start:\n%s", p.name, p.logTail())
		case time.Now().After(deadline):
			p.t.Fatalf("rig: %s is not ready after %v: %v\n%s", p.name, startTimeout, err, p.logTail())
		}
		time.Sleep(pollEvery)
	}
}

func (p *process) spawn() {
	p.t.Helper()
	log, err := os.OpenFile(p.logPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		p.t.Fatalf("rig: open the log of %s: %v", p.name, err)
	}
	defer log.Close()
	cmd := exec.Command(p.path, p.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.cred, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		p.t.Fatalf("rig: start %s: %v", p.name, err)
	}
	exited := make(chan struct{})
	p.cmd, p.exited, p.killed = cmd, exited, false
	go func() {
		defer close(exited)
		_ = cmd.Wait() // the exit status of a server that a test stops does not matter
	}()
}

// Stop requests an orderly stop and waits until the server has exited. It kills the server after stopTimeout. If the server has
// exited by itself, it prints the end of the log.
func (p *process) Stop() {
	if !p.running() {
		p.reportExit()
		return
	}
	p.killed = true
	p.Thaw()
	_ = p.cmd.Process.Signal(p.quit) // fails only if the server has just exited
	select {
	case <-p.exited:
	case <-time.After(stopTimeout):
		p.Kill()
	}
}

// Quit requests an orderly stop and does not wait for it.
func (p *process) Quit() {
	p.killed = true
	_ = p.cmd.Process.Signal(p.quit) // fails only if the server has just exited
}

// Kill ends the server and its children with SIGKILL, as a crash of their machine would, and waits until all have exited.
func (p *process) Kill() {
	if !p.running() {
		p.reportExit()
		return
	}
	p.killed = true
	// After the server's death its children would have another parent. A stopped server starts no more of them.
	_ = p.cmd.Process.Signal(syscall.SIGSTOP)
	pids, _ := proc.Children(p.cmd.Process.Pid)
	children := make([]proc.Process, len(pids))
	for i, pid := range pids {
		children[i] = proc.Of(pid)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
	for _, child := range children {
		for child.Runs() { // it would hold the shared memory that the next Start needs
			time.Sleep(pollEvery)
		}
	}
}

// reportExit explains the failure of a test whose server has crashed.
func (p *process) reportExit() {
	if p.cmd != nil && !p.killed {
		p.killed = true
		p.t.Errorf("rig: %s exited by itself: %v; the end of its log:\n%s", p.name, p.cmd.ProcessState, p.logTail())
	}
}

// Freeze stops the server and its children with SIGSTOP, and waits until all their threads have stopped. Connections
// stay open and get no response.
func (p *process) Freeze() {
	p.signalAll(syscall.SIGSTOP)
	children, _ := proc.Children(p.cmd.Process.Pid)
	for _, pid := range append(children, p.cmd.Process.Pid) {
		for proc.HasRunningThread(pid) {
			_ = syscall.Kill(pid, syscall.SIGSTOP) // for a child that started after the signal to the others
			time.Sleep(pollEvery)
		}
	}
}

// Thaw undoes Freeze.
func (p *process) Thaw() { p.signalAll(syscall.SIGCONT) }

// signalAll signals children too: each connection of PostgreSQL is a process in its own process group. The parent comes
// first, so that it starts no more children.
func (p *process) signalAll(sig syscall.Signal) {
	if !p.running() {
		return
	}
	pid := p.cmd.Process.Pid
	_ = p.cmd.Process.Signal(sig)
	children, _ := proc.Children(pid)
	for _, child := range children {
		_ = syscall.Kill(child, sig)
	}
}

// Pid returns the id of the running process.
func (p *process) Pid() int { return p.cmd.Process.Pid }

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

// Program returns the path of an installed program: in PATH, or in one of the folders (patterns of filepath.Glob) where
// packages put servers.
func Program(t testing.TB, name string, folders ...string) string {
	t.Helper()
	NeedServers(t)
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
