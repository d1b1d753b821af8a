package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// stopGrace is what a process gets between SIGTERM and SIGKILL.
const stopGrace = 5 * time.Second

// nursery starts processes, from one thread that lives as long as this process does: Linux ends a child when the thread
// that started it ends (Pdeathsig, prctl(2)), and the Go runtime ends threads as it likes.
type nursery struct {
	starts chan func()
}

func newNursery() *nursery {
	n := &nursery{starts: make(chan func())}
	go func() {
		runtime.LockOSThread() // for good; the thread ends with the process, or when close has been called
		for start := range n.starts {
			start()
		}
	}()
	return n
}

// close ends the thread, and with it every process that still runs.
func (n *nursery) close() { close(n.starts) }

// process is a running or ended child. It has a process group of its own, so that Ctrl-C in the terminal reaches this
// program alone, which stops its children in order.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and was waited for
}

// start runs a program whose output goes to the end of the file at log.
func (n *nursery) start(log, program string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	defer out.Close()
	p := &process{cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.SysProcAttr = out, out, childAttributes()
	started := make(chan error)
	n.starts <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	go func() {
		_ = p.cmd.Wait() // why it ended is in its log
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

// stop returns when the process has ended, if need be by force.
func (p *process) stop() {
	p.signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopGrace):
		p.signal(syscall.SIGKILL)
		<-p.done
	}
}

// signal reaches the whole group. One that has ended is no error.
func (p *process) signal(s syscall.Signal) {
	if p.running() {
		_ = syscall.Kill(-p.pid(), s)
	}
}
