package ready

import (
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/ringside-cache/ringside/sidecar/internal/listen"
)

// maxEvents is how many sockets one look at the kernel's list returns.
const maxEvents = 64

// checkLate is how often deadlines are checked.
const checkLate = time.Second

// loop is the goroutine that waits. It runs only while there are connections. The zero value is ready to use.
type loop struct {
	mu      sync.Mutex // guards the fields below
	epoll   *os.File   // nil before the first connection
	kernel  syscall.RawConn
	waiting map[int]waiting // :: descriptor → who waits for it
	running bool
	left    int         // connections that have been removed; only the loop uses it
	late    *time.Timer // closes connections whose deadline has passed
}

type waiting struct {
	socket *listen.Socket
	waiter Waiter
}

// add calls w.Ready, in the goroutine of the loop, whenever s can be read or has ended, until remove.
func (l *loop) add(s *listen.Socket, w Waiter) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.open(); err != nil {
		return err
	}
	fd := s.FD()
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}
	if err := l.control(syscall.EPOLL_CTL_ADD, fd, &event); err != nil {
		return err
	}
	l.waiting[fd] = waiting{s, w}
	if !l.running {
		l.running, l.late = true, time.AfterFunc(checkLate, l.closeLate)
		go l.run()
	}
	return nil
}

// remove ends what add began. It is called by Ready.
func (l *loop) remove(s *listen.Socket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left++
	delete(l.waiting, s.FD())
	_ = l.control(syscall.EPOLL_CTL_DEL, s.FD(), &syscall.EpollEvent{}) // it was added
}

// open makes the kernel's list of sockets, which the runtime polls as it polls a connection.
func (l *loop) open() error {
	if l.epoll != nil {
		return nil
	}
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		_ = syscall.Close(fd) // nothing uses it
		return os.NewSyscallError("fcntl", err)
	}
	l.epoll, l.waiting = os.NewFile(uintptr(fd), "epoll"), map[int]waiting{}
	l.kernel, err = l.epoll.SyscallConn()
	return err
}

func (l *loop) control(operation, fd int, event *syscall.EpollEvent) (err error) {
	controlled := l.kernel.Control(func(epoll uintptr) { err = syscall.EpollCtl(int(epoll), operation, fd, event) })
	if err == nil {
		err = controlled
	}
	return os.NewSyscallError("epoll_ctl", err)
}

func (l *loop) run() {
	var events [maxEvents]syscall.EpollEvent
	n := 0
	anyReady := func(epoll uintptr) bool { // made once: a hit must not allocate
		n = look(epoll, events[:])
		return n > 0
	}
	for l.goesOn() {
		_ = l.kernel.Read(anyReady) // fails only if the file is closed, which nothing does
		before := l.left
		for _, e := range events[:n] {
			if w := l.at(int(e.Fd)); w != nil {
				w.Ready()
			}
		}
		if l.left != before {
			runtime.Gosched() // to the goroutines that connections have got: the loop may have more to do for long
		}
	}
}

// goesOn ends the loop when nothing waits.
func (l *loop) goesOn() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running = len(l.waiting) > 0; !l.running {
		l.late.Stop()
	}
	return l.running
}

// at returns who waits for a descriptor; nil if nobody does any more. It may be another connection than the one that was ready:
// that one then finds nothing to read.
func (l *loop) at(fd int) Waiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting[fd].waiter
}

// closeLate closes connections whose deadline has passed.
func (l *loop) closeLate() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for _, w := range l.waiting {
		if w.socket.Late(now) { //guard:idle-connection-in-the-loop-stays-open
			_ = w.socket.Close() // it is ready then, and ends
		}
	}
	if l.running {
		l.late.Reset(checkLate)
	}
}

// look returns how many sockets are ready, without waiting: the scheduler of the runtime need not know of the call.
func look(epoll uintptr, events []syscall.EpollEvent) int {
	n, _, err := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, epoll, uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	if err != 0 {
		return 0
	}
	return int(n)
}

// len returns how many connections wait.
func (l *loop) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting)
}
