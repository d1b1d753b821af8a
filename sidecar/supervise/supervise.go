// Package supervise runs a sidecar as a child process and holds its listening sockets, so that connections wait while the child
// is replaced: by a new program, with a configuration that needs a restart, or after a crash. It serves nothing itself.
package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/ringside-cache/ringside/ring/backoff"
	"github.com/ringside-cache/ringside/sidecar/config"
	"github.com/ringside-cache/ringside/sidecar/internal/inherit"
	"github.com/ringside-cache/ringside/sidecar/internal/servers"
)

const (
	// steady is how long a child must run so that the next crash is followed by a start at once.
	steady = 10 * time.Second
	// firstPause and longestPause bound the time between a crash and the next start.
	firstPause, longestPause = 100 * time.Millisecond, 5 * time.Second
	// stopTimeout is far more than a sidecar takes to stop: it limits a child that hangs.
	stopTimeout = 2 * time.Minute
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
}

// ExitError means that the child ended by itself, with this exit code.
type ExitError struct{ Code int }

// Error implements error.
func (e *ExitError) Error() string { return fmt.Sprintf("the sidecar ended with exit code %d", e.Code) }

// Run runs the child until ctx ends; then it stops the child and waits for it. It also ends, with an *ExitError, when the first
// child ends by itself before it was ever replaced, unless it crashed.
func Run(ctx context.Context, c Config) error {
	s := &supervisor{Config: c, pause: backoff.Backoff{First: firstPause, Longest: longestPause}}
	defer s.closeAll()
	loaded, err := c.Load()
	if err == nil {
		err = s.bind(ctx, loaded)
	}
	for err == nil && ctx.Err() == nil {
		err = s.runChild(ctx)
	}
	return err
}

type supervisor struct {
	Config
	sockets []held
	pause   backoff.Backoff
	runs    int // children so far
}

// held is the sockets of one listener.
type held struct {
	config.Address
	sockets []inherit.Socket
}

// bind binds the listeners of a configuration that are not held yet, and closes those that it does not have.
func (s *supervisor) bind(ctx context.Context, c config.Config) error {
	var next, opened []held
	for _, a := range c.Effective().Listeners() {
		i := slices.IndexFunc(s.sockets, func(h held) bool { return h.Address == a })
		if i >= 0 {
			next = append(next, s.sockets[i])
			continue
		}
		sockets, err := servers.Open(ctx, a)
		if err != nil {
			closeHeld(opened)
			return err
		}
		opened = append(opened, held{a, sockets})
	}
	old := s.sockets
	s.sockets = append(next, opened...)
	closeHeld(slices.DeleteFunc(old, func(h held) bool {
		return slices.ContainsFunc(s.sockets, func(kept held) bool { return kept.Address == h.Address })
	}))
	return nil
}

func (s *supervisor) closeAll() { closeHeld(s.sockets) }

func closeHeld(list []held) {
	for _, h := range list {
		for _, socket := range h.sockets {
			_ = socket.Close() // nothing was written to it
		}
	}
}

// runChild runs one child until it ends. The error ends the supervisor.
func (s *supervisor) runChild(ctx context.Context) error {
	// The kernel ends the child with the thread that has started it (see childAttributes), and not only with this process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd, err := s.command()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the sidecar: %w", err)
	}
	closeFiles(cmd.ExtraFiles)
	s.runs++
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	asked, err := s.control(ctx, cmd.Process, ended)
	if asked && err == nil {
		return nil
	}
	return s.ended(ctx, asked, err, time.Since(began))
}

// ended decides what follows a child that has ended with err.
func (s *supervisor) ended(ctx context.Context, asked bool, err error, ran time.Duration) error {
	code, crashed := 0, false
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code, crashed = exit.ExitCode(), !exit.Exited() // by a signal
		if code == goPanic {
			crashed = true
		}
	}
	switch {
	case ctx.Err() != nil && code == 0:
		return nil
	case ctx.Err() != nil || !crashed && !asked && s.runs == 1:
		return &ExitError{code}
	}
	if ran >= steady {
		s.pause.Reset()
	}
	s.Log.Error("the sidecar has ended; it is started again, and connections wait", zap.NamedError("reason", err), zap.Duration("ran", ran))
	s.pause.Wait(ctx)
	return nil
}

// goPanic is the exit code of a Go program that panics.
const goPanic = 2

func (s *supervisor) command() (*exec.Cmd, error) {
	cmd := exec.Command(s.Command[0], s.Command[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	var names []string
	for _, h := range s.sockets {
		for _, socket := range h.sockets {
			f, err := socket.Listener.(interface{ File() (*os.File, error) }).File()
			if err != nil {
				closeFiles(cmd.ExtraFiles)
				return nil, fmt.Errorf("pass the sockets of listen.%s: %w", h.Name, err)
			}
			names, cmd.ExtraFiles = append(names, h.Name), append(cmd.ExtraFiles, f)
		}
	}
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "LISTEN_") }),
		inherit.Environ(os.Getpid(), names)...)
	cmd.SysProcAttr = childAttributes()
	return cmd, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // the child has its own
	}
}

// control passes signals to the child until it has ended. asked reports whether it was to end.
func (s *supervisor) control(ctx context.Context, child *os.Process, ended <-chan error) (asked bool, err error) {
	stop, hard := ctx.Done(), (<-chan time.Time)(nil)
	for {
		select {
		case err := <-ended:
			return asked, err
		case sig := <-s.Signals:
			switch {
			case sig != syscall.SIGUSR2:
				_ = child.Signal(sig) // it fails only if the child has ended
			case !asked && s.prepare(ctx):
				asked, stop = true, closedChannel()
			}
		case <-stop:
			asked, stop = true, nil
			hard = time.After(stopTimeout)
			_ = child.Signal(syscall.SIGTERM)
		case <-hard:
			_ = child.Kill()
		}
	}
}

func closedChannel() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// prepare reports whether the child may be replaced: a configuration that is wrong, or an address in use, changes nothing.
func (s *supervisor) prepare(ctx context.Context) bool {
	c, err := s.Load()
	if err == nil {
		err = s.bind(ctx, c)
	}
	if err != nil {
		s.Log.Error("the sidecar is not replaced; the old one keeps serving", zap.Error(err))
		return false
	}
	s.Log.Info("the sidecar is being replaced; connections wait")
	return true
}
