package split

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// Accept accepts a connection from ln. It outlives every failure that passes, such as a want of file descriptors: it
// calls failed, and tries again ever more slowly; once done is closed, at once.
func Accept(ln net.Listener, done <-chan struct{}, failed func()) (net.Conn, error) {
	const shortest, longest = 5 * time.Millisecond, time.Second
	for wait := shortest; ; wait = min(2*wait, longest) {
		c, err := ln.Accept()
		if err == nil || !passes(err) { //guard:listener-ends-passes
			return c, err
		}
		failed()
		pause(wait, done)
	}
}

func passes(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout() ||
		errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOBUFS) ||
		errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.ECONNABORTED)
}

func pause(d time.Duration, done <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
	}
}
