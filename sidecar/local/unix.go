package local

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// socketMode lets the owner and the group connect.
const socketMode = 0o660

// ListenUnix listens on a unix socket with mode 0660. It replaces a socket on which no process listens any more, and fails
// if a process does, or if the path is another kind of file. Close removes the file.
func ListenUnix(path string) (net.Listener, error) {
	if err := checkUnused(path); err != nil {
		return nil, err
	}
	// The socket gets its mode under a temporary name, so that no client connects before.
	temporary := path + "~"
	if err := removeSocket(temporary); err != nil {
		return nil, fmt.Errorf("listen on unix socket %s: %w", path, err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on unix socket %s: %w", path, err)
	}
	ln.SetUnlinkOnClose(false)
	u := &unixListener{UnixListener: ln, path: path}
	if err := u.publish(temporary); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on unix socket %s: %w", path, err), ln.Close(), os.Remove(temporary))
	}
	return u, nil
}

// checkUnused returns an error unless path is free or a socket on which no process listens.
func checkUnused(path string) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("listen on unix socket %s: %w", path, err)
	case st.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("listen on unix socket %s: the path exists and is not a socket; move it away", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close() // it was only a test
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
		return fmt.Errorf("%s is not a socket; move it away", path)
	}
	return os.Remove(path)
}

// unixListener removes its file when it is closed, unless another process has replaced the file.
type unixListener struct {
	*net.UnixListener
	path string
	file os.FileInfo
	once sync.Once // of removing the file
}

func (l *unixListener) publish(temporary string) (err error) {
	if err := os.Chmod(temporary, socketMode); err != nil {
		return err
	}
	if l.file, err = os.Lstat(temporary); err != nil {
		return err
	}
	return os.Rename(temporary, l.path)
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
