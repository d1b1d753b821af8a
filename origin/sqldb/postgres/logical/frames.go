package logical

import (
	"encoding/binary"
	"fmt"
	"io"
)

// maxMessage limits one message of the server, which has a row and perhaps the previous one. Those of rows that a cache can hold
// are far smaller (origin.DefaultMaxValueBytes).
const maxMessage = 64 << 20

// errTooLarge breaks the feed; it begins again after the change.
var errTooLarge = fmt.Errorf("a changed row has more than %d MiB: changes may be missed", maxMessage>>20)

// frames is the stream of a server's messages, each a byte for its type and the length of the rest with its own four bytes
// (PostgreSQL, 55.7). It fails at a message that is too large, which pgproto3 would hold in memory.
type frames struct {
	io.Reader
	limit int64
	head  []byte // of the next message, as far as it has arrived
	rest  int64  // bytes of the present message
}

const frameHead = 5

func (f *frames) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	for data := p[:n]; len(data) > 0; {
		if f.rest > 0 {
			skipped := min(f.rest, int64(len(data)))
			f.rest, data = f.rest-skipped, data[skipped:]
			continue
		}
		taken := min(frameHead-len(f.head), len(data))
		f.head, data = append(f.head, data[:taken]...), data[taken:]
		if len(f.head) < frameHead {
			continue
		}
		f.rest = int64(binary.BigEndian.Uint32(f.head[1:])) - (frameHead - 1)
		f.head = f.head[:0]
		switch {
		case f.rest < 0:
			return 0, errMalformed
		case f.rest > f.limit: //guard:large-row-fills-memory
			return 0, errTooLarge
		}
	}
	return n, err
}
