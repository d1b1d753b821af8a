package body

import "encoding/binary"

// PrefixBytes is the length of the prefix of a gRPC message: one byte that says whether it is compressed, four of its length.
const PrefixBytes = 5

// framing follows the messages in the bytes of a gRPC stream, which have a prefix of 5 bytes each.
type framing struct {
	prefix   [PrefixBytes]byte
	have     int   // bytes of the prefix of the current message
	left     int64 // bytes of the current message that are missing
	complete int   // messages
}

// advance passes over the first bytes of p, at most to the end of a message, and returns how many.
func (f *framing) advance(p []byte) int {
	n := 0
	if f.have < PrefixBytes {
		n = copy(f.prefix[f.have:], p)
		if f.have += n; f.have < PrefixBytes {
			return n
		}
		f.left = f.length()
	}
	body := min(int64(len(p)-n), f.left)
	if f.left -= body; f.left == 0 {
		f.have = 0
		f.complete++
	}
	return n + int(body)
}

// between reports whether no byte of the next message was seen.
func (f *framing) between() bool { return f.have == 0 }

// length is that of the current or the last message.
func (f *framing) length() int64    { return int64(binary.BigEndian.Uint32(f.prefix[1:])) }
func (f *framing) compressed() bool { return f.prefix[0] == 1 }
