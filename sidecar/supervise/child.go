package supervise

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/inherit"
)

// child is one process of the sidecar. Its channels never get anything from none.
type child struct {
	sockets []held
	process *os.Process
	began   time.Time
	control *os.File
	saved   *os.File    // what it saves for the next child
	lines   chan string // that it sends
	ended   chan error
	ready   bool                   // it has said so before the child before it ended
	failure atomic.Pointer[string] // why it ends, by itself
}

// none is in the place of a child that there is not.
var none = &child{}

// start starts a child that reads what the previous one saves; nil if there is none.
func (s *supervisor) start(sockets []held, previous *os.File) (*child, error) {
	c := &child{sockets: sockets, began: time.Now(), lines: make(chan string, 4), ended: make(chan error, 1)}
	cmd, err := s.command(c, previous)
	defer closeFiles(cmd.ExtraFiles)
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		c.close()
		return nil, fmt.Errorf("start the sidecar: %w", err)
	}
	s.runs++
	c.process = cmd.Process
	listened := make(chan struct{})
	go func() {
		defer close(listened)
		c.listen()
	}()
	go func() {
		err := cmd.Wait()
		<-listened // the last line may be the reason
		c.ended <- err
	}()
	return c, nil
}

// command returns the command of a child. Its files are new ones, which the caller closes even if there is an error.
func (s *supervisor) command(c *child, previous *os.File) (*exec.Cmd, error) {
	cmd := exec.Command(s.Command[0], s.Command[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = childAttributes()
	var names []string
	add := func(name string, f *os.File, err error) error {
		if err == nil {
			cmd.ExtraFiles, names = append(cmd.ExtraFiles, f), append(names, name)
		}
		return err
	}
	ours, theirs, controlErr := socketPair()
	c.control = ours
	read, write, pipeErr := os.Pipe()
	c.saved = read
	before, beforeErr := savedBy(previous)
	err := errors.Join(
		add(inherit.Control, theirs, controlErr), add(inherit.Next, write, pipeErr), add(inherit.Previous, before, beforeErr))
	for _, h := range c.sockets {
		for _, socket := range h.sockets {
			f, fileErr := duplicate(socket.Listener.(syscall.Conn), h.Name) //guard:sockets-of-the-old-process-become-blocking
			err = errors.Join(err, add(h.Name, f, fileErr))
		}
	}
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "LISTEN_") }),
		inherit.Environ(os.Getpid(), names)...)
	return cmd, err
}

// savedBy returns a new file of what a child saves; an empty one if there is none.
func savedBy(previous *os.File) (*os.File, error) {
	if previous == nil {
		return os.Open(os.DevNull)
	}
	return duplicate(previous, inherit.Previous)
}

// duplicate returns the file of c again. It stays in non-blocking mode, which all processes with a file share: File of a listener
// would change that, and an Accept of the child before could then not be interrupted.
func duplicate(c syscall.Conn, name string) (*os.File, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	number := -1
	controlErr := raw.Control(func(fd uintptr) { number, err = syscall.Dup(int(fd)) })
	if err := errors.Join(controlErr, err); err != nil {
		return nil, err
	}
	syscall.CloseOnExec(number)
	return os.NewFile(uintptr(number), name), nil
}

// socketPair returns the two ends of a connection.
func socketPair() (ours, theirs *os.File, err error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, err
	}
	syscall.CloseOnExec(pair[0]) // only this goroutine starts processes
	syscall.CloseOnExec(pair[1])
	if err := syscall.SetNonblock(pair[0], true); err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(pair[0]), "control"), os.NewFile(uintptr(pair[1]), "control"), nil
}

// maxLine bounds a line of a child.
const maxLine = 4 << 10

// listen reads the lines of the child until it ends.
func (c *child) listen() {
	in := bufio.NewScanner(io.LimitReader(c.control, maxLine))
	for in.Scan() {
		if why, ok := strings.CutPrefix(in.Text(), inherit.Failed); ok {
			if text, err := strconv.Unquote(why); err == nil {
				c.failure.Store(&text)
			}
			continue
		}
		select {
		case c.lines <- in.Text():
		default: // more lines than there are in the protocol
		}
	}
}

// reason returns why the child has ended, as it says itself if it did.
func (c *child) reason(ended error) error {
	why := c.failure.Load()
	switch {
	case why != nil:
		return errors.New(*why)
	case ended == nil:
		return errors.New("it ended with exit code 0")
	}
	return fmt.Errorf("%w: its log has the reason", ended)
}

// say sends a line. It fails only if the child has ended.
func (c *child) say(line string) { _, _ = io.WriteString(c.control, line+"\n") }

// signal fails only if the child has ended. none gets no signals.
func (c *child) signal(sig os.Signal) {
	if c.process != nil {
		_ = c.process.Signal(sig)
	}
}

// close closes the files of a child that has ended.
func (c *child) close() {
	for _, f := range []*os.File{c.control, c.saved} {
		if f != nil {
			_ = f.Close() // nothing is lost: the child has ended
		}
	}
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // the child has its own
	}
}
