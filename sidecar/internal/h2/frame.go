package h2

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Types of frames (RFC 9113, 6).
const (
	frameData = iota
	frameHeaders
	framePriority
	frameReset
	frameSettings
	framePushPromise
	framePing
	frameGoAway
	frameWindowUpdate
	frameContinuation
)

// Flags of frames.
const (
	flagAck, flagEndStream = 0x1, 0x1
	flagEndHeaders         = 0x4
	flagPadded             = 0x8
	flagPriority           = 0x20
)

// Settings (RFC 9113, 6.5.2).
const (
	settingTableSize     = 1
	settingEnablePush    = 2
	settingMaxStreams    = 3
	settingWindow        = 4
	settingFrameSize     = 5
	settingHeaderList    = 6
	frameHeaderBytes     = 9
	frameSize            = 16 << 10   // of the largest frame that either end sends; the least that RFC 9113 allows
	initialWindow        = 64<<10 - 1 // of the connection and of each stream, in both directions; the default of RFC 9113
	maxWindow            = 1<<31 - 1
	maxID                = 1<<31 - 1
	messagePrefixBytes   = 5 // gRPC: compressed, length
	defaultHPACKTable    = 4096
	maxContinuations     = 32       // frames of one header block; ParsedBytes need 8
	maxUseless           = 1000     // frames of no use per second, see conn.useless
	usefulRequest        = 8        // frames of no use that a request pays for
	writeUpdateThreshold = 16 << 10 // a WINDOW_UPDATE of the connection is worth a frame
)

// code is an error code of HTTP/2 (RFC 9113, 7). As an error it ends the connection.
type code uint32

const (
	codeNone code = iota
	codeProtocol
	codeInternal
	codeFlowControl
	codeSettingsTimeout
	codeStreamClosed
	codeFrameSize
	codeRefusedStream
	codeCancel
	codeCompression
	codeConnect
	codeEnhanceYourCalm
)

// Error implements error.
func (c code) Error() string { return fmt.Sprintf("HTTP/2 error code %d", uint32(c)) }

var (
	errStopped    = errors.New("the server has been stopped")
	errReset      = errors.New("the stream was reset")
	errGone       = errors.New("the connection has ended")
	errTooSlow    = errors.New("the client accepted nothing for too long")
	errBodyClosed = errors.New("body closed by handler") // a grpc.Server knows this text
	errFinished   = errors.New("the request has been answered")
)

type frame struct {
	length int
	kind   byte
	flags  byte
	id     uint32
}

func parseFrame(b []byte) frame {
	return frame{
		length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]), kind: b[3], flags: b[4],
		id: binary.BigEndian.Uint32(b[5:]) & maxID,
	}
}

func (f frame) has(flag byte) bool { return f.flags&flag != 0 }

// appendFrame appends the header of a frame.
func appendFrame(b []byte, length int, kind, flags byte, id uint32) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), kind, flags)
	return binary.BigEndian.AppendUint32(b, id)
}

func appendWindowUpdate(b []byte, id uint32, n int) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, 4, frameWindowUpdate, 0, id), uint32(n))
}

func appendReset(b []byte, id uint32, c code) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, 4, frameReset, 0, id), uint32(c))
}

func appendGoAway(b []byte, last uint32, c code) []byte {
	b = binary.BigEndian.AppendUint32(appendFrame(b, 8, frameGoAway, 0, 0), last)
	return binary.BigEndian.AppendUint32(b, uint32(c))
}

func appendSetting(b []byte, id uint16, value uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, id), value)
}

// appendHeaders appends a header block as HEADERS and, if it is large, CONTINUATION frames.
func appendHeaders(b []byte, id uint32, block []byte, end bool) []byte {
	kind, flags := byte(frameHeaders), byte(0)
	if end {
		flags = flagEndStream
	}
	for {
		part := block[:min(len(block), frameSize)]
		if block = block[len(part):]; len(block) == 0 {
			flags |= flagEndHeaders
		}
		b = append(appendFrame(b, len(part), kind, flags, id), part...)
		if len(block) == 0 {
			return b
		}
		kind, flags = frameContinuation, 0
	}
}

// framing follows the messages in the bytes of a gRPC stream, which have a prefix of 5 bytes each.
type framing struct {
	prefix   [messagePrefixBytes]byte
	have     int   // bytes of the prefix of the current message
	left     int64 // bytes of the current message that are missing
	complete int   // messages
}

// advance passes over the first bytes of p, at most to the end of a message, and returns how many.
func (f *framing) advance(p []byte) int {
	n := 0
	if f.have < messagePrefixBytes {
		n = copy(f.prefix[f.have:], p)
		if f.have += n; f.have < messagePrefixBytes {
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
