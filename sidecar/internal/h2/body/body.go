// Package body holds what has arrived of the body of a request and was not read by its handler. It charges bytes before it
// keeps them, and gives a grpc.Server only the messages that its handler has asked for.
package body

import (
	"errors"
	"io"
)

// Reasons why Add does not keep bytes.
var (
	ErrTooLarge = errors.New("the message or body exceeds its limit")
	ErrMemory   = errors.New("there is no memory for the body")
)

var errClosed = errors.New("body closed by handler") // a grpc.Server knows this text

// Sizes of the chunks that hold a body.
const ChunkBytes, leastChunk = 16 << 10, 256

// inflation is the most that a byte of gzip can become (RFC 1951: 258 bytes from 2 bits).
const inflation = 1032

// Memory pays for what a body holds.
type Memory interface {
	// Charge takes n bytes, or none and returns false.
	Charge(n int64) bool
}

// Body is the body of a request. The mutex of its connection guards it.
type Body struct {
	memory     Memory
	grpc       bool
	limit      int64    // of a message, or of a body that is not gRPC
	chunks     [][]byte // the first one from off
	off        int
	buffered   int   // bytes in chunks
	chunkBytes int64 // capacity of chunks
	delivered  int64 // bytes that were read and that a grpc.Server may still hold
	inflated   int64 // charged for messages that become larger when they are decompressed
	total      int64
	ended      bool
	err        error
	arriving   framing
	reading    framing
	allowed    int      // messages that may be read: one more than the handler has asked for
	sizes      [2]int64 // of the last messages that were read, by their number
}

// Init prepares an empty Body. limit is that of a message, or of a body that is not gRPC.
func (b *Body) Init(m Memory, grpc bool, limit int64) {
	b.memory, b.grpc, b.limit, b.allowed = m, grpc, limit, 1
}

// GRPC reports whether the body is a sequence of gRPC messages.
func (b *Body) GRPC() bool { return b.grpc }

// Total is how many bytes have arrived.
func (b *Body) Total() int64 { return b.total }

// Held is how much memory is charged for it now.
func (b *Body) Held() int64 { return b.inflated + b.chunkBytes + b.delivered }

// End says that nothing follows.
func (b *Body) End() { b.ended = true }

// Ended reports whether nothing follows.
func (b *Body) Ended() bool { return b.ended }

// Close lets reads fail because the handler wants no more.
func (b *Body) Close() { b.err = errClosed }

// Fail drops what was not read. Reads fail with err.
func (b *Body) Fail(err error) {
	if b.err == nil {
		b.err = err
	}
	b.chunks, b.chunkBytes, b.buffered, b.off = nil, 0, 0, 0
}

// HasMessage reports whether a whole message has arrived.
func (b *Body) HasMessage() bool { return b.arriving.complete > 0 }

// InMessage reports whether a part of a message is missing.
func (b *Body) InMessage() bool { return !b.arriving.between() }

// Wanted reports whether the handler wants a message that has not arrived completely.
func (b *Body) Wanted() bool { return b.grpc && b.arriving.complete < b.allowed }

// Whole returns all bytes that arrived if they are in one piece.
func (b *Body) Whole() (p []byte, ok bool) {
	if len(b.chunks) != 1 {
		return nil, false
	}
	return b.chunks[0], true
}

// Add keeps a copy of p.
func (b *Body) Add(p []byte) error {
	b.total += int64(len(p))
	if !b.grpc {
		if b.total > b.limit {
			return ErrTooLarge
		}
		return b.store(p)
	}
	for rest := p; len(rest) > 0; {
		before := b.arriving.complete
		rest = rest[b.arriving.advance(rest):]
		complete := b.arriving.complete > before
		known := complete || b.arriving.have == PrefixBytes
		if known && b.arriving.length() > b.limit { //guard:h2-message-without-limit
			return ErrTooLarge
		}
		if complete && b.arriving.compressed() && !b.chargeInflated() {
			return ErrMemory
		}
	}
	return b.store(p)
}

// chargeInflated charges what the message that is complete may become when it is decompressed.
func (b *Body) chargeInflated() bool {
	n := min(b.limit, inflation*b.arriving.length()) - b.inflated
	if n <= 0 {
		return true
	}
	if !b.memory.Charge(n) { //guard:h2-decompressed-message-is-not-charged
		return false
	}
	b.inflated += n
	return true
}

// store copies p into chunks, which are charged before they are allocated.
func (b *Body) store(p []byte) error {
	for len(p) > 0 {
		last := len(b.chunks) - 1
		if last < 0 || len(b.chunks[last]) == cap(b.chunks[last]) {
			n := min(max(int64(len(p))+b.missing(), leastChunk), ChunkBytes)
			if !b.memory.Charge(n) { //guard:h2-message-is-not-charged
				return ErrMemory
			}
			b.chunks = append(b.chunks, make([]byte, 0, n))
			b.chunkBytes += n
			last++
		}
		chunk := b.chunks[last]
		n := copy(chunk[len(chunk):cap(chunk)], p)
		b.chunks[last] = chunk[:len(chunk)+n]
		b.buffered += n
		p = p[n:]
	}
	return nil
}

// missing is how much is known to follow.
func (b *Body) missing() int64 {
	if !b.grpc {
		return 0
	}
	return b.arriving.left
}

// Ready reports whether a handler that has room for some bytes must not wait. A grpc.Server keeps a buffer of that size for
// each read, so that it gets no small parts of a message.
func (b *Body) Ready(room int) bool {
	switch {
	case b.err != nil:
		return true
	case b.buffered > 0 && !b.mayRead():
		return false
	case b.ended:
		return true
	case !b.grpc:
		return b.buffered > 0
	}
	return b.buffered >= room || b.arriving.complete > b.reading.complete
}

// mayRead reports whether the next byte belongs to a message that the handler has asked for, or the one after that.
func (b *Body) mayRead() bool {
	return !b.grpc || !b.reading.between() || b.reading.complete < b.allowed //guard:h2-messages-pile-up-in-grpc
}

// Read moves bytes to p after Ready.
func (b *Body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n := b.moveTo(p)
	if b.grpc {
		b.delivered += int64(n) // it is held until the handler has got the message
	}
	if b.ended && b.buffered == 0 {
		return n, io.EOF
	}
	return n, nil
}

func (b *Body) moveTo(p []byte) (n int) {
	for n < len(p) && b.buffered > 0 && b.mayRead() {
		part := b.chunks[0][b.off:]
		part = part[:min(len(part), len(p)-n)]
		if b.grpc {
			part = part[:b.reading.advance(part)]
			if b.reading.between() {
				b.sizes[b.reading.complete%2] = b.reading.length() + PrefixBytes
			}
		}
		n += copy(p[n:], part)
		b.buffered -= len(part)
		if b.off += len(part); b.off == len(b.chunks[0]) {
			b.chunkBytes -= int64(cap(b.chunks[0]))
			b.chunks[0] = nil
			b.chunks, b.off = b.chunks[1:], 0
		}
	}
	return n
}

// Next lets a grpc.Server read one more message, as the handler is done with all before.
func (b *Body) Next() {
	b.delivered -= b.sizes[(b.allowed-1)%2]
	b.sizes[(b.allowed-1)%2] = 0
	b.allowed++
}
