package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// stopTimeout is the time between SIGTERM and SIGKILL.
const stopTimeout = 5 * time.Second

// launcher starts processes from one thread that exists as long as this process: Linux kills a child when the thread that
// started it exits (PR_SET_PDEATHSIG in prctl(2)), and the Go runtime may end threads.
type launcher struct {
	starts chan func()
}

func newLauncher() *launcher {
	l := &launcher{starts: make(chan func())}
	go func() {
		runtime.LockOSThread() // never unlocked: the thread exits with the process, or after close
		for start := range l.starts {
			start()
		}
	}()
	return l
}

// close ends the thread, so that the kernel kills the processes that still run.
func (l *launcher) close() { close(l.starts) }

// process is a child process. It has its own process group, so that Ctrl-C in the terminal interrupts only this program,
// which stops its children in order.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed after Wait has returned
}

// start starts a program and appends its output to the file log.
func (l *launcher) start(log, program string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	defer out.Close()
	p := &process{cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.SysProcAttr = out, out, childAttributes()
	started := make(chan error)
	l.starts <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	go func() {
		_ = p.cmd.Wait() // the reason of its exit is in its log
		close(p.done)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// stop sends SIGTERM, and SIGKILL after stopTimeout. It returns after the process has exited.
func (p *process) stop() {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		p.signal(syscall.SIGKILL)
		<-p.done
	}
}

// signal signals the process group. It does nothing after the process has exited.
func (p *process) signal(s syscall.Signal) {
	if p.running() {
		_ = syscall.Kill(-p.pid(), s)
	}
}
