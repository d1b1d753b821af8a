package httpserver

import (
	"errors"
	"io"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/http1"
)

// contentStep is the size of content that a connection has paid for. A larger one is taken from the budget before the
// buffer grows, together with as much for what is decoded or copied from it.
const (
	contentStep = 4 << 10
	contentCost = 2 // bytes for each byte of the buffer
)

var errTooLarge = errors.New("the content is larger than the limit")

// readContent reads all of the content of a request into a buffer that grows with what has arrived: a client that only
// announces much makes the process hold nothing. The length is negative if it is unknown.
func readContent(from io.Reader, length, most int, loan *budget.Loan) ([]byte, error) {
	if length < 0 {
		length = most + 1 // one byte more shows that it is too large
	}
	b := make([]byte, 0, min(length, contentStep))
	for {
		n, err := from.Read(b[len(b):cap(b)])
		switch b = b[:len(b)+n]; {
		case err == io.EOF:
			return b, nil
		case err != nil:
			return nil, err
		case len(b) > most:
			return nil, errTooLarge
		case len(b) == cap(b) && len(b) < length:
			if b = grow(b, min(2*cap(b), length), loan); b == nil {
				return nil, http1.ErrNoMemory
			}
		case len(b) == length:
			return b, nil
		}
	}
}

// grow returns b with more room, or nil if the budget has no bytes for it.
func grow(b []byte, size int, loan *budget.Loan) []byte {
	if !loan.Grow(int64(contentCost*size) - loan.Bytes()) { //guard:content-without-budget
		return nil
	}
	return append(make([]byte, 0, size), b...)
}
