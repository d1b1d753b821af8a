package httpserver

import (
	"io"
	"net"
	"time"
)

// The limits of a lingering close. On loopback 64 MiB take less than a tenth of a second; a client that sends more, or more
// slowly, may see a reset instead of the response.
const (
	maxLingeringBytes = 64 << 20 // of a lingering close
	maxLingeringTime  = time.Second
)

// closeLingering closes the direction to the client, and reads what is in transit until the client closes, too (RFC 9112,
// 9.6): without it, the kernel answers input that nothing reads with a reset, which overtakes the response.
func closeLingering(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // reading shows whether the connection is still open
	}
	if c.SetReadDeadline(time.Now().Add(maxLingeringTime)) == nil { //guard:close-after-refusal-without-time-limit
		_, _ = io.CopyN(io.Discard, c, maxLingeringBytes) // ends with the client, or at a limit
	}
}
