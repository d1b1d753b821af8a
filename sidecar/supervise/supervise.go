// Package supervise runs a sidecar as a child process and replaces it without a gap: by a new program, with a configuration that
// needs a restart, or after a crash. It holds the listening sockets, so that connections wait, and serves nothing itself.
// DESIGN.md has the protocol.
package supervise

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/cgroup"
	"github.com/ringside-cache/ringside/sidecar/internal/inherit"
)

const (
	// steady is how long a child must run so that the next crash is followed by a start at once.
	steady = 10 * time.Second
	// firstPause and longestPause bound the time between a crash and the next start.
	firstPause, longestPause = 100 * time.Millisecond, 5 * time.Second
	// prepareTimeout is how long the next child may take until it needs only the end of the old one. A wait for its certificate
	// takes up to 30 s.
	prepareTimeout = time.Minute
	// stopTimeout is far more than a sidecar takes to stop: it limits a child that hangs.
	stopTimeout = 2 * time.Minute
	// childMemory is what a second child needs before it has entries.
	childMemory = 16 << 20
)

// Config is what a supervisor is made of.
type Config struct {
	// Load returns the configuration as the next child reads it.
	Load func() (config.Config, error)
	// Command is the command line of the child.
	Command []string
	// Signals are those of the operator: SIGHUP reloads the child, SIGUSR2 replaces it.
	Signals <-chan os.Signal
	Log     *zap.Logger

	prepareTimeout time.Duration // of tests; 0 means the constant
}

// ExitError means that the child ended by itself, with this exit code.
type ExitError struct{ Code int }

// Error implements error.
func (e *ExitError) Error() string { return fmt.Sprintf("the sidecar ended with exit code %d", e.Code) }

// Run runs the child until ctx ends; then it stops the child and waits for it. It also ends, with an *ExitError, when the first
// child ends by itself before it was ever replaced, unless it crashed.
func Run(ctx context.Context, c Config) error {
	// The kernel ends a child with the thread that has started it (see childAttributes), and not only with this process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s := &supervisor{
		Config: c, pause: backoff.Backoff{First: firstPause, Longest: longestPause}, next: none, requests: make(chan request),
	}
	defer s.listen()()
	loaded, err := c.Load()
	if err != nil {
		return err
	}
	sockets, err := bind(ctx, loaded, nil)
	if err != nil {
		return err
	}
	if s.current, err = s.start(sockets, nil); err != nil {
		closeHeld(sockets)
		return err
	}
	defer func() { closeHeld(s.current.sockets) }()
	return s.run(ctx)
}

// request asks for another child. Its outcome is sent to reply, which has room for it.
type request struct{ reply chan error }

func (r *request) answer(err error) {
	if r.reply != nil {
		r.reply <- err
		r.reply = nil
	}
}

// supervisor is run by one goroutine.
type supervisor struct {
	Config
	pause    backoff.Backoff
	requests chan request

	current *child
	next    *child  // none unless a request is under way
	request request // under way, until the next child serves
	runs    int     // children so far
	timeout <-chan time.Time
	// committed is set when the current child is asked to stop for the next one. There is no way back from that.
	committed, stopping bool
}

// run reacts to what happens until the last child has ended.
func (s *supervisor) run(ctx context.Context) error {
	stop := ctx.Done()
	for {
		select {
		case err := <-s.current.ended:
			if end, err := s.currentEnded(ctx, err); end {
				return err
			}
		case err := <-s.next.ended:
			s.nextEnded(err)
		case line := <-s.current.lines:
			if line == inherit.Ready && s.next == none { //guard:restart-succeeds-before-its-process-serves
				s.request.answer(nil)
			}
		case line := <-s.next.lines:
			switch line {
			case inherit.Prepared:
				s.commit()
			case inherit.Ready: // it serves already, while the current child ends
				s.next.ready = true
			}
		case <-s.timeout:
			s.late()
		case sig := <-s.Signals:
			if sig == syscall.SIGUSR2 {
				s.replace(ctx, request{})
			} else {
				s.current.signal(sig)
			}
		case r := <-s.requests:
			s.replace(ctx, r)
		case <-stop:
			stop, s.stopping, s.timeout = nil, true, time.After(stopTimeout)
			s.next.signal(syscall.SIGKILL)
			s.current.signal(syscall.SIGTERM)
		}
	}
}

// replace starts the next child. A configuration that is wrong, an address in use or a lack of memory changes nothing.
func (s *supervisor) replace(ctx context.Context, r request) {
	err := errors.New("it is being replaced or stopped already")
	if s.next == none && !s.stopping { //guard:two-children-are-started-at-once
		s.request.answer(errors.New("another restart began before the new process served")) //guard:second-restart-forgets-the-first
		s.request = r
		if err = s.startNext(ctx); err == nil {
			s.timeout = time.After(cmp.Or(s.prepareTimeout, prepareTimeout))
			s.Log.Info("the next process of the sidecar is starting; the old one serves until it is prepared")
			return
		}
	}
	s.refuse(&r, err)
}

func (s *supervisor) startNext(ctx context.Context) error {
	if left, limited := cgroup.MemoryLeft(os.DirFS("/")); limited && left < childMemory {
		return fmt.Errorf("the memory limit of the container leaves %d MiB, and a second process needs %d MiB", left>>20, childMemory>>20)
	}
	c, err := s.Load()
	if err != nil {
		return err
	}
	sockets, err := bind(ctx, c, s.current.sockets)
	if err != nil {
		return err
	}
	next, err := s.start(sockets, s.current.saved)
	if err != nil {
		closeHeld(without(sockets, s.current.sockets))
		return err
	}
	s.next = next
	return nil
}

func (s *supervisor) refuse(r *request, err error) {
	s.Log.Error("the sidecar is not replaced; the old process keeps serving", zap.Error(err))
	r.answer(fmt.Errorf("the sidecar is not replaced; the old process keeps serving: %w", err))
}

// commit asks the current child to stop: the next one needs nothing else.
func (s *supervisor) commit() {
	if s.committed || s.stopping {
		return
	}
	s.committed, s.timeout = true, time.After(stopTimeout)
	s.Log.Info("the sidecar is being replaced; connections wait for a moment")
	s.current.say(inherit.Replace)
}

// late ends a child that takes too long: the next one to prepare itself, or the current one to stop.
func (s *supervisor) late() {
	if s.committed || s.stopping {
		s.current.signal(syscall.SIGKILL)
		return
	}
	s.next.signal(syscall.SIGKILL) //guard:next-process-that-hangs-blocks-all-restarts
}

// nextEnded keeps the current child, unless that was asked to stop already.
func (s *supervisor) nextEnded(err error) {
	err = s.next.reason(err)
	closeHeld(without(s.next.sockets, s.current.sockets))
	s.next.close()
	s.next = none
	if s.committed {
		s.Log.Error("the next process of the sidecar has ended before it served; another one is started", zap.NamedError("reason", err))
		s.request.answer(fmt.Errorf("the next process has ended before it served; another one is started: %w", err))
		return
	}
	s.timeout = nil
	s.refuse(&s.request, err)
}

// currentEnded makes the next child the current one, or starts one. end reports that there is none.
func (s *supervisor) currentEnded(ctx context.Context, err error) (end bool, result error) {
	code, crashed := exitOf(err)
	if s.stopping {
		return true, s.afterStop(code)
	}
	if !s.committed {
		if !crashed && s.runs == 1 && s.next == none {
			return true, exitError(code)
		}
		s.Log.Error("the sidecar has ended; it is started again, and connections wait",
			zap.NamedError("reason", s.current.reason(err)), zap.Duration("ran", time.Since(s.current.began)))
		s.request.answer(errors.New("the sidecar has crashed, and is started again")) // the one that was to serve, or the old one
	}
	s.committed, s.timeout = false, nil
	return s.promote(ctx)
}

// promote makes the next child the current one; it serves as soon as it sees that the old one has ended. Without one, it starts one.
func (s *supervisor) promote(ctx context.Context) (end bool, result error) {
	old := s.current
	defer old.close()
	if s.next != none {
		s.current, s.next = s.next, none
		closeHeld(without(old.sockets, s.current.sockets))
		if s.current.ready {
			s.request.answer(nil)
		}
		return false, nil
	}
	if time.Since(old.began) >= steady {
		s.pause.Reset()
	}
	if !s.pause.Wait(ctx) {
		return true, nil
	}
	next, err := s.start(old.sockets, nil)
	if err != nil {
		return true, err
	}
	s.current = next
	return false, nil
}

func (s *supervisor) afterStop(code int) error {
	if s.next != none {
		<-s.next.ended
		closeHeld(without(s.next.sockets, s.current.sockets))
	}
	s.request.answer(errors.New("the sidecar is stopping"))
	return exitError(code)
}

func exitError(code int) error {
	if code == 0 {
		return nil
	}
	return &ExitError{code}
}

// goPanic is the exit code of a Go program that panics.
const goPanic = 2

// exitOf returns the exit code of a child, and whether it crashed: by a signal, or by a panic.
func exitOf(err error) (code int, crashed bool) {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode(), !exit.Exited() || exit.ExitCode() == goPanic
	}
	return 0, false
}
