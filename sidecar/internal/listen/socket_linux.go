package listen

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Socket is a connection that the runtime does not poll: reads and writes never wait, and fail with ErrWouldBlock instead. Its
// methods are for the goroutine that serves it, except Close and SyscallConn.
type Socket struct {
	net.Conn              // the connection that it was, which is closed: only its addresses are used
	readBy   atomic.Int64 // the deadline for reading, in nanoseconds; 0: none

	mu       sync.Mutex // guards the fields below, so that nothing uses a descriptor that belongs to another file by now
	fd       int        // -1 after Release
	shutDown bool
}

// Detach takes the socket of c, a connection of a Listener, from the runtime: c reads and writes without waiting from then on. It
// reports false, and changes nothing, if c has no socket of its own, as with TLS. The caller closes c, and then calls Release.
func Detach(c net.Conn) (*Socket, bool) {
	of := bottomOf(c)
	if of == nil {
		return nil, false
	}
	of.mu.Lock()
	defer of.mu.Unlock()
	s, err := newSocket(of.Conn)
	if err != nil {
		return nil, false
	}
	polled := of.Conn
	of.Conn = s
	_ = polled.Close()    // the duplicate keeps the connection open
	if of.closed.Load() { //guard:connection-closed-while-detached-stays-open
		_ = s.Close()
	}
	return s, true
}

// Attach gives the socket of c, which Detach has taken, back to the runtime.
func Attach(c net.Conn, s *Socket) error {
	of := bottomOf(c)
	of.mu.Lock()
	defer of.mu.Unlock()
	polled, err := s.polled()
	if err != nil {
		return err
	}
	of.Conn = polled
	if of.closed.Load() { //guard:connection-closed-while-attached-stays-open
		return polled.Close()
	}
	return nil
}

// bottomOf returns the connection of a Listener that has the socket; nil if another kind of connection is between them.
func bottomOf(c net.Conn) *conn {
	var bottom *conn
	for {
		switch one := c.(type) {
		case *conn:
			bottom = one
			c = one.NetConn()
		case *replayed:
			if len(one.head) > 0 { //guard:bytes-of-a-demultiplexed-connection-lost
				return nil
			}
			c = one.Conn
		case *net.TCPConn, *net.UnixConn, *Socket:
			return bottom
		default:
			return nil
		}
	}
}

// newSocket duplicates the socket of a connection.
func newSocket(c net.Conn) (*Socket, error) {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &Socket{Conn: c}
	controlled := raw.Control(func(fd uintptr) { s.fd, err = duplicate(fd) })
	if err == nil {
		err = controlled
	}
	return s, err
}

// polled gives the socket to a connection that the runtime polls.
func (s *Socket) polled() (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	file := os.NewFile(uintptr(s.fd), "")
	s.fd = -1
	defer file.Close() // FileConn has a duplicate
	return net.FileConn(file)
}

// FD returns the descriptor, until Release.
func (s *Socket) FD() int { return s.fd }

// Read implements net.Conn.
func (s *Socket) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, err := transfer(syscall.SYS_READ, s.fd, p)
		switch {
		case err == syscall.EINTR:
		case err != 0:
			return 0, failed("read", err)
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Write implements net.Conn. It writes what the kernel takes at once.
func (s *Socket) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		n, err := transfer(syscall.SYS_WRITE, s.fd, p[written:])
		switch {
		case err == syscall.EINTR:
		case err != 0:
			return written, failed("write", err)
		default:
			written += n
		}
	}
	return written, nil
}

func failed(call string, err syscall.Errno) error {
	if err == syscall.EAGAIN {
		return ErrWouldBlock
	}
	return os.NewSyscallError(call, err)
}

// SetReadDeadline implements net.Conn: a loop of package ready closes the socket when Late reports true.
func (s *Socket) SetReadDeadline(t time.Time) error {
	by := int64(0)
	if !t.IsZero() {
		by = t.UnixNano()
	}
	s.readBy.Store(by)
	return nil
}

// Late reports whether the deadline for reading has passed.
func (s *Socket) Late(now time.Time) bool {
	by := s.readBy.Load()
	return by != 0 && now.UnixNano() > by
}

// SetWriteDeadline implements net.Conn. A write never waits.
func (s *Socket) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline implements net.Conn.
func (s *Socket) SetDeadline(t time.Time) error { return s.SetReadDeadline(t) }

// Close ends the connection: the goroutine that serves it reads its end, and calls Release.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shutDown || s.fd < 0 {
		return net.ErrClosed
	}
	s.shutDown = true
	return os.NewSyscallError("shutdown", syscall.Shutdown(s.fd, syscall.SHUT_RDWR))
}

// Release closes the descriptor.
func (s *Socket) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd >= 0 {
		_ = syscall.Close(s.fd) // nothing has been buffered
		s.fd = -1
	}
}

// SyscallConn implements syscall.Conn.
func (s *Socket) SyscallConn() (syscall.RawConn, error) { return (*rawSocket)(s), nil }

// rawSocket implements syscall.RawConn.
type rawSocket Socket

func (r *rawSocket) Control(f func(fd uintptr)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fd < 0 {
		return net.ErrClosed
	}
	f(uintptr(r.fd))
	return nil
}

func (r *rawSocket) Read(func(fd uintptr) bool) error  { return syscall.EOPNOTSUPP }
func (r *rawSocket) Write(func(fd uintptr) bool) error { return syscall.EOPNOTSUPP }
