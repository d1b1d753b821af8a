package supervise

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// socketName is that of the socket on which a supervisor gets requests: an abstract one (unix(7)), which needs no folder to write
// to, is reached from all containers of the pod, and ends with the process. Only the user of the process, or root, may use it.
const socketName = "@ringside-supervise-"

const (
	// askTimeout is how long a client may take to send its request.
	askTimeout = 5 * time.Second
	restart    = "restart"
	done       = "done"
)

// listen takes requests of other processes until the returned function is called.
func (s *supervisor) listen() (end func()) {
	ln, err := net.Listen("unix", socketName+strconv.Itoa(os.Getpid()))
	if err != nil { // another container of the pod has a process with this number
		s.Log.Warn("`ringside restart` does not reach this process; use kill -USR2", zap.Error(err))
		return func() {}
	}
	stopped := make(chan struct{})
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go s.serve(c.(*net.UnixConn), stopped) // a restart under way does not delay the next one
		}
	}()
	return func() {
		close(stopped)
		_ = ln.Close() // it was not used to write
	}
}

// serve answers one request.
func (s *supervisor) serve(c *net.UnixConn, stopped <-chan struct{}) {
	defer c.Close()
	if !allowed(c) {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(askTimeout)) // it fails only for a closed connection
	line, err := bufio.NewReader(io.LimitReader(c, 64)).ReadString('\n')
	if err != nil || line != restart+"\n" {
		return
	}
	r := request{reply: make(chan error, 1)}
	select {
	case s.requests <- r:
	case <-stopped:
		return
	}
	select {
	case err = <-r.reply:
	case <-stopped:
		err = errors.New("the sidecar has stopped")
	}
	answer := done
	if err != nil {
		answer = strconv.Quote(err.Error())
	}
	_, _ = io.WriteString(c, answer+"\n") // the outcome is in the log as well
}

// allowed reports whether the client is of the same user, or root.
func allowed(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var peer *syscall.Ucred
	controlErr := raw.Control(func(fd uintptr) {
		peer, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if controlErr != nil || err != nil {
		return false
	}
	return mayRestart(peer.Uid, os.Getuid())
}

func mayRestart(peer uint32, self int) bool { return peer == 0 || peer == uint32(self) } //guard:every-user-restarts-the-sidecar

var socketLine = regexp.MustCompile(`(?m) ` + socketName + `([0-9]+)$`)

// Restart asks the supervisor with that process id, or the only one if it is 0, to replace its child, and waits for the outcome. An
// error says that the old child serves, unless ctx ended.
func Restart(ctx context.Context, pid int) error {
	pid, err := find(pid)
	if err != nil {
		return err
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", socketName+strconv.Itoa(pid))
	if err != nil {
		return fmt.Errorf("no `ringside run --supervise` has process id %d: %w", pid, err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })() // it fails only for a closed connection
	_, err = io.WriteString(c, restart+"\n")
	if err != nil {
		return fmt.Errorf("ask process %d to restart: %w", pid, err)
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	answer = strings.TrimSpace(answer)
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("no outcome yet; the log has it: %w", ctx.Err())
	case err != nil:
		return fmt.Errorf("process %d has not answered; only its user and root may ask it: %w", pid, err)
	case answer == done:
		return nil
	}
	if text, err := strconv.Unquote(answer); err == nil {
		answer = text
	}
	return errors.New(answer)
}

func find(pid int) (int, error) {
	if pid != 0 {
		return pid, nil
	}
	text, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return 0, fmt.Errorf("find the supervisor: %w", err)
	}
	var found []string
	for _, match := range socketLine.FindAllStringSubmatch(string(text), -1) {
		found = append(found, match[1])
	}
	switch len(found) {
	case 0:
		return 0, errors.New("no sidecar that can be restarted: is `ringside run --supervise` running in this pod?")
	case 1:
		return strconv.Atoi(found[0])
	}
	return 0, fmt.Errorf("several sidecars run here, with the process ids %s: choose one with --pid", strings.Join(found, ", "))
}
