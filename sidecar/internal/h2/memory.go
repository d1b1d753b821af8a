package h2

import (
	"errors"
	"net"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
)

// What a connection holds. The listener has taken listen.HTTP2Bytes for it, and the server takes moreBytes before it reads:
// together the connection may hold idleBytes, prepaidBytes and one handler. What is beyond is taken from budget.Requests first.
const (
	moreBytes    = idleBytes + prepaidBytes + handlerBytes - listen.HTTP2Bytes
	idleBytes    = 18 << 10 // measured: 16 KiB, and 2 KiB of the kernel
	prepaidBytes = 16 << 10 // streams, their headers and small messages
	handlerBytes = 24 << 10 // measured: 22 KiB for a call of a grpc.Server
	streamBytes  = 1 << 10  // a stream without its header fields and messages
	quantum      = 4 << 10  // steps in which a connection takes from the budget

	narrowBytes = 4 << 10  // of each buffer of a connection
	wideBytes   = 32 << 10 // of each buffer while much is read or written
)

// prepay takes what the listener has not taken for a connection.
func prepay(nc net.Conn) bool {
	p, ok := listen.As[interface{ Prepay(n int64) bool }](nc)
	return !ok || p.Prepay(moreBytes) //guard:h2-connection-is-not-charged
}

// closeWrite closes the sending half of a connection.
func closeWrite(nc net.Conn) error {
	if half, ok := listen.As[interface{ CloseWrite() error }](nc); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// memory is what the streams and buffers of a connection hold. mu of the connection guards it.
type memory struct {
	used int64
	loan budget.Loan // what exceeds prepaidBytes
}

// Take takes n bytes, or none and returns false.
func (m *memory) Take(n int64) bool {
	need := (m.used + n - prepaidBytes + quantum - 1) / quantum * quantum
	if more := need - m.loan.Bytes(); more > 0 && !m.loan.Grow(more) { //guard:h2-request-is-not-charged
		return false
	}
	m.used += n
	return true
}

// Release returns n bytes.
func (m *memory) Release(n int64) {
	m.used -= n
	m.loan.Shrink(max(m.used-prepaidBytes+quantum-1, 0) / quantum * quantum)
}

// Charge implements body.Memory.
func (s *stream) Charge(n int64) bool {
	c := s.conn
	if !c.memory.Take(n) {
		return false
	}
	s.held += n
	return true
}

// lower returns what s holds above n bytes.
func (s *stream) lower(n int64) {
	c := s.conn
	if s.held > n {
		c.memory.Release(s.held - n)
		s.held = n
	}
}
