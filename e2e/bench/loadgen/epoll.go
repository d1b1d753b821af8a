package loadgen

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"
	"unsafe"
)

// conn is one connection. It is not a net.Conn, because then the runtime would poll it, too.
type conn struct {
	fd     int
	stream Stream
	in     []byte // the first read bytes are a part of a response
	has    int
	out    []byte        // not yet sent
	due    time.Duration // when the request in flight was to be sent
}

func connect(network, address string) (fd int, err error) {
	family, to := syscall.AF_UNIX, syscall.Sockaddr(&syscall.SockaddrUnix{Name: address})
	if network == "tcp" {
		parsed, err := netip.ParseAddrPort(address)
		if err != nil {
			return 0, err
		}
		family, to = syscall.AF_INET, &syscall.SockaddrInet4{Port: int(parsed.Port()), Addr: parsed.Addr().As4()}
	}
	if fd, err = syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0); err != nil {
		return 0, err
	}
	err = syscall.Connect(fd, to)
	if err == nil && network == "tcp" {
		err = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	}
	if err == nil {
		err = syscall.SetNonblock(fd, true)
	}
	if err != nil {
		syscall.Close(fd)
	}
	return fd, err
}

// flush writes out. The few requests in flight always fit into the buffer of the socket.
func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	n, err := syscall.Write(c.fd, c.out)
	if err == nil && n < len(c.out) {
		err = errors.New("the server does not read its requests")
	}
	if err != nil {
		return fmt.Errorf("loadgen: send: %w", err)
	}
	c.out = c.out[:0]
	return nil
}

// read reads once from the socket, which has bytes, and parses them.
func (c *conn) read() (responses int, err error) {
	if c.has == len(c.in) {
		c.in = append(c.in, make([]byte, len(c.in))...)
	}
	n, err := syscall.Read(c.fd, c.in[c.has:])
	if err == nil && n == 0 {
		err = errors.New("the server has closed the connection")
	}
	if err != nil {
		return 0, fmt.Errorf("loadgen: receive: %w", err)
	}
	c.has += n
	n, responses, c.out, err = c.stream.Parse(c.in[:c.has], c.out)
	if err != nil {
		return 0, fmt.Errorf("loadgen: response: %w", err)
	}
	c.has = copy(c.in, c.in[n:c.has])
	return responses, nil
}

// poller waits for connections that have bytes. Unlike package syscall's, its timeout is in nanoseconds.
type poller struct {
	fd     int
	events []syscall.EpollEvent
}

const (
	sysEpollPwait2 = 441 // on all architectures; package syscall does not have it
	prSetTimerslck = 29
)

func newPoller() (poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return poller{}, fmt.Errorf("loadgen: epoll: %w", err)
	}
	return poller{fd: fd, events: make([]syscall.EpollEvent, 128)}, nil
}

func (p poller) close() { syscall.Close(p.fd) }

// add watches a connection. wait returns its number as the Fd of an event.
func (p poller) add(fd, number int) error {
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(number)}
	if err := syscall.EpollCtl(p.fd, syscall.EPOLL_CTL_ADD, fd, &event); err != nil {
		return fmt.Errorf("loadgen: epoll: %w", err)
	}
	return nil
}

// wait returns the connections that have bytes, or none after the timeout.
func (p poller) wait(timeout time.Duration) ([]syscall.EpollEvent, error) {
	// Without this the kernel may end a wait 50 µs late. It is a property of the thread, and cheap to set.
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prSetTimerslck, 1, 0)
	for until := time.Now().Add(timeout); ; timeout = time.Until(until) {
		limit := syscall.NsecToTimespec(max(0, timeout.Nanoseconds()))
		n, _, errno := syscall.Syscall6(sysEpollPwait2, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)),
			uintptr(unsafe.Pointer(&limit)), 0, 0)
		switch errno {
		case 0:
			return p.events[:n], nil
		case syscall.EINTR: // the runtime signals its threads //guard:signal-ends-wait
		default:
			return nil, fmt.Errorf("loadgen: epoll_pwait2: %w", errno)
		}
	}
}
