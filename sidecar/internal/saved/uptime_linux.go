package saved

import "golang.org/x/sys/unix"

// Uptime returns nanoseconds on the monotonic clock that all processes of this host share: time.Now reads it as well. It is 0 if
// there is none; then the times of another process mean nothing here.
func Uptime() int64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		return 0
	}
	return t.Nano()
}
