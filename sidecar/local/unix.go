package local

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// socketMode lets the owner and the group connect.
const socketMode = 0o660

// ListenUnix listens on a unix socket with mode 0660. It takes the place of a socket whose process is gone, refuses to
// take that of one which answers, and leaves every other kind of file alone. Close removes the file.
func ListenUnix(path string) (net.Listener, error) {
	if err := checkUnused(path); err != nil {
		return nil, err
	}
	// The socket gets its mode under another name, so that nobody connects before it has it.
	draft := path + "~"
	if err := removeSocket(draft); err != nil {
		return nil, fmt.Errorf("listen on unix socket %s: %w", path, err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: draft, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on unix socket %s: %w", path, err)
	}
	ln.SetUnlinkOnClose(false)
	u := &unixListener{UnixListener: ln, path: path}
	if err := u.publish(draft); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on unix socket %s: %w", path, err), ln.Close(), os.Remove(draft))
	}
	return u, nil
}

// checkUnused returns an error unless path is free or a socket on which nobody listens.
func checkUnused(path string) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("listen on unix socket %s: %w", path, err)
	case st.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("listen on unix socket %s: the path is taken by a file that is no socket; move it away", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close() // it has served its purpose
		return fmt.Errorf("listen on unix socket %s: another process listens there; stop it or choose another path", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("listen on unix socket %s: cannot tell whether it is in use: %w", path, err)
	}
	return nil
}

func removeSocket(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is no socket; move it away", path)
	}
	return os.Remove(path)
}

// unixListener removes its file when it is closed, if the file is still its own.
type unixListener struct {
	*net.UnixListener
	path string
	file os.FileInfo
	once sync.Once // of removing the file
}

func (l *unixListener) publish(draft string) (err error) {
	if err := os.Chmod(draft, socketMode); err != nil {
		return err
	}
	if l.file, err = os.Lstat(draft); err != nil {
		return err
	}
	return os.Rename(draft, l.path)
}

// Addr implements net.Listener.
func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close implements net.Listener.
func (l *unixListener) Close() error {
	err := l.UnixListener.Close()
	l.once.Do(func() {
		if st, statErr := os.Lstat(l.path); statErr == nil && os.SameFile(st, l.file) {
			err = errors.Join(err, os.Remove(l.path))
		}
	})
	return err
}

// preface begins every HTTP/2 connection (RFC 9113, 3.4), and so every gRPC connection. Its first bytes are no HTTP/1
// request that anybody sends.
const preface = "PRI * HTTP/2.0\r\n"

// sniff reads as much of c as tells whether it speaks gRPC, and returns a connection that reads from the start.
func sniff(c net.Conn, timeout time.Duration) (conn net.Conn, isGRPC bool, err error) {
	if err := c.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return nil, false, err
	}
	head := make([]byte, 0, len(preface))
	for len(head) < len(preface) && strings.HasPrefix(preface, view(head)) {
		n, err := c.Read(head[len(head):cap(head)])
		head = head[:len(head)+n]
		if err != nil {
			return nil, false, err
		}
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return nil, false, err
	}
	return &replayed{Conn: c, head: head}, view(head) == preface, nil
}

// replayed is a connection of which some bytes have been read already.
type replayed struct {
	net.Conn
	head []byte
}

// Read implements net.Conn.
func (c *replayed) Read(p []byte) (int, error) {
	if len(c.head) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.head)
	c.head = c.head[n:]
	return n, nil
}

// handoff is a listener whose connections somebody else has accepted.
type handoff struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once // of closing done
}

func newHandoff(addr net.Addr) *handoff {
	return &handoff{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// give hands c to whoever accepts, or closes it when nobody does any more.
func (h *handoff) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.done:
		_ = c.Close() // nobody is left to tell
	}
}

// Accept implements net.Listener.
func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handoff) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr implements net.Listener.
func (h *handoff) Addr() net.Addr { return h.addr }
