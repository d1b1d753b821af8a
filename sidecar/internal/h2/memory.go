package h2

import (
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
)

// What a connection holds. ConnBytes is paid when it is accepted; everything beyond is taken from budget.Requests first.
const (
	// ConnBytes is what an open connection may hold without asking: what an idle one uses (measured: see DESIGN.md), one
	// running handler, and prepaidBytes.
	ConnBytes = idleBytes + handlerBytes + prepaidBytes
	// TLSBytes is what TLS adds to it.
	TLSBytes = 24 << 10

	idleBytes    = 20 << 10
	prepaidBytes = 16 << 10 // streams, their headers and small messages
	handlerBytes = 24 << 10 // the goroutines of a call to a grpc.Server, with their buffers
	streamBytes  = 1 << 10  // a stream without its header fields and messages
	quantum      = 4 << 10  // steps in which a connection takes from the budget

	narrowBytes = 4 << 10  // of each buffer of a connection
	wideBytes   = 32 << 10 // of each buffer while much is read or written

	// inflation is the most that a byte of gzip can become (RFC 1951: 258 bytes from 2 bits).
	inflation = 1032
)

// memory is what the streams and buffers of a connection hold. mu of the connection guards it.
type memory struct {
	used int64
	loan budget.Loan // what exceeds prepaidBytes
}

// take takes n bytes, or none and returns false.
func (m *memory) take(n int64) bool {
	need := (m.used + n - prepaidBytes + quantum - 1) / quantum * quantum
	if more := need - m.loan.Bytes(); more > 0 && !m.loan.Grow(more) { //guard:h2-request-is-not-charged
		return false
	}
	m.used += n
	return true
}

func (m *memory) release(n int64) {
	m.used -= n
	m.loan.Shrink(max(m.used-prepaidBytes+quantum-1, 0) / quantum * quantum)
}

// charge takes bytes for s.
func (c *conn) charge(s *stream, n int64) bool {
	if !c.memory.take(n) {
		return false
	}
	s.held += n
	return true
}

// lower returns what s holds above n bytes.
func (c *conn) lower(s *stream, n int64) {
	if s.held > n {
		c.memory.release(s.held - n)
		s.held = n
	}
}
