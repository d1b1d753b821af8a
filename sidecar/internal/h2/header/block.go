package header

import (
	"encoding/binary"
	"errors"

	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
	"github.com/ringside-cache/ringside/sidecar/internal/headerlimit"
)

// Reasons why a Block does not keep what arrives. The connection cannot go on: the state of the compression would be lost.
var (
	ErrTooLarge = errors.New("the header block exceeds its limit")
	ErrMemory   = errors.New("there is no memory for the header block")
)

// Memory pays for blocks that do not arrive in one piece.
type Memory interface {
	// Take takes n bytes, or none and returns false.
	Take(n int64) bool
	Release(n int64)
}

// Block is a header block that arrives: the payloads of HEADERS and of its CONTINUATION frames.
type Block struct {
	decoder       Decoder
	memory        Memory
	frame         frame.Header
	start         int    // of the payload of frame in bytes
	bytes         []byte // what did not arrive in one piece
	charged       int64
	complete      bool
	selfDependent bool
}

// NewBlock returns an empty Block. It needs Close.
func NewBlock(d Decoder, m Memory) Block { return Block{decoder: d, memory: m} }

// Close returns the memory of the block.
func (b *Block) Close() { b.memory.Release(b.charged) }

// Complete reports whether the block has been decoded.
func (b *Block) Complete() bool { return b.complete }

// SelfDependent reports whether the stream has a priority that depends on itself, which is an error.
func (b *Block) SelfDependent() bool { return b.selfDependent }

// Begin begins the payload of the next frame.
func (b *Block) Begin(f frame.Header) { b.frame, b.start = f, len(b.bytes) }

// Add takes a part of the payload, and decodes the block when it is complete.
func (b *Block) Add(part []byte, last bool) error {
	end := last && b.frame.Has(frame.FlagEndHeaders)
	if end && len(b.bytes) == 0 {
		fragment, err := b.fragment(part)
		if err != nil {
			return err
		}
		return b.decode(fragment) // from the buffer of the connection, without a copy
	}
	if err := b.keep(part); err != nil || !last {
		return err
	}
	fragment, err := b.fragment(b.bytes[b.start:])
	if err != nil {
		return err
	}
	b.bytes = append(b.bytes[:b.start], fragment...)
	if end {
		return b.decode(b.bytes)
	}
	return nil
}

func (b *Block) decode(block []byte) error {
	b.complete = true
	return b.decoder.Decode(block)
}

// keep keeps a part of a block, which is charged before.
func (b *Block) keep(part []byte) error {
	n := len(b.bytes) + len(part)
	if n > headerlimit.ParsedBytes {
		return ErrTooLarge
	}
	if grown := max(n, 2*cap(b.bytes), 1<<10); n > cap(b.bytes) {
		if !b.memory.Take(int64(grown - cap(b.bytes))) {
			return ErrMemory
		}
		b.charged += int64(grown - cap(b.bytes))
		b.bytes = append(make([]byte, 0, grown), b.bytes...)
	}
	b.bytes = append(b.bytes, part...)
	return nil
}

// fragment returns the part of the payload that belongs to the block.
func (b *Block) fragment(payload []byte) ([]byte, error) {
	payload, err := b.frame.Unpad(payload)
	if err != nil || !b.frame.Has(frame.FlagPriority) {
		return payload, err
	}
	if len(payload) < 5 {
		return nil, frame.CodeFrameSize
	}
	b.selfDependent = binary.BigEndian.Uint32(payload)&frame.MaxID == b.frame.ID
	return payload[5:], nil
}
