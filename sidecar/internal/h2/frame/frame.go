// Package frame has the frames, settings and error codes of HTTP/2 (RFC 9113).
package frame

import (
	"encoding/binary"
	"fmt"
)

// Types of frames (RFC 9113, 6).
const (
	Data = iota
	Headers
	Priority
	Reset
	Settings
	PushPromise
	Ping
	GoAway
	WindowUpdate
	Continuation
)

// Flags of frames.
const (
	FlagAck, FlagEndStream = 0x1, 0x1
	FlagEndHeaders         = 0x4
	FlagPadded             = 0x8
	FlagPriority           = 0x20
)

// Settings (RFC 9113, 6.5.2).
const (
	SettingTableSize  = 1
	SettingEnablePush = 2
	SettingMaxStreams = 3
	SettingWindow     = 4
	SettingFrameSize  = 5
	SettingHeaderList = 6
	HeaderBytes       = 9
	MaxSize           = 16 << 10   // of the largest frame that either end sends; the least that RFC 9113 allows
	InitialWindow     = 64<<10 - 1 // of the connection and of each stream, in both directions; the default of RFC 9113
	MaxWindow         = 1<<31 - 1
	MaxID             = 1<<31 - 1
)

// Code is an error code of HTTP/2 (RFC 9113, 7). As an error it ends the connection.
type Code uint32

const (
	CodeNone Code = iota
	CodeProtocol
	CodeInternal
	CodeFlowControl
	CodeSettingsTimeout
	CodeStreamClosed
	CodeFrameSize
	CodeRefusedStream
	CodeCancel
	CodeCompression
	CodeConnect
	CodeEnhanceYourCalm
)

// Error implements error.
func (c Code) Error() string { return fmt.Sprintf("HTTP/2 error code %d", uint32(c)) }

// Header is the header of a frame.
type Header struct {
	Length int // of the payload
	Kind   byte
	Flags  byte
	ID     uint32
}

// Parse returns the header at the begin of b.
func Parse(b []byte) Header {
	return Header{
		Length: int(b[0])<<16 | int(b[1])<<8 | int(b[2]), Kind: b[3], Flags: b[4],
		ID: binary.BigEndian.Uint32(b[5:]) & MaxID,
	}
}

// Has reports whether a flag is set.
func (f Header) Has(flag byte) bool { return f.Flags&flag != 0 }

// Append appends the header of a frame.
func Append(b []byte, length int, kind, flags byte, id uint32) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), kind, flags)
	return binary.BigEndian.AppendUint32(b, id)
}

// AppendWindowUpdate appends WINDOW_UPDATE, of the connection if id is 0.
func AppendWindowUpdate(b []byte, id uint32, n int) []byte {
	return binary.BigEndian.AppendUint32(Append(b, 4, WindowUpdate, 0, id), uint32(n))
}

// AppendReset appends RST_STREAM.
func AppendReset(b []byte, id uint32, c Code) []byte {
	return binary.BigEndian.AppendUint32(Append(b, 4, Reset, 0, id), uint32(c))
}

// AppendGoAway appends GOAWAY.
func AppendGoAway(b []byte, last uint32, c Code) []byte {
	b = binary.BigEndian.AppendUint32(Append(b, 8, GoAway, 0, 0), last)
	return binary.BigEndian.AppendUint32(b, uint32(c))
}

// AppendSetting appends one setting to a SETTINGS frame.
func AppendSetting(b []byte, id uint16, value uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, id), value)
}

// AppendHeaders appends a header block as HEADERS and, if it is large, CONTINUATION frames.
func AppendHeaders(b []byte, id uint32, block []byte, end bool) []byte {
	kind, flags := byte(Headers), byte(0)
	if end {
		flags = FlagEndStream
	}
	for {
		part := block[:min(len(block), MaxSize)]
		if block = block[len(part):]; len(block) == 0 {
			flags |= FlagEndHeaders
		}
		b = append(Append(b, len(part), kind, flags, id), part...)
		if len(block) == 0 {
			return b
		}
		kind, flags = Continuation, 0
	}
}

// Put puts the header of a frame before its payload, which is the rest of b.
func Put(b []byte, kind, flags byte, id uint32) {
	n := len(b) - HeaderBytes
	b[0], b[1], b[2], b[3], b[4] = byte(n>>16), byte(n>>8), byte(n), kind, flags
	binary.BigEndian.PutUint32(b[5:], id)
}

// Unpad removes the padding of DATA or HEADERS.
func (f Header) Unpad(payload []byte) ([]byte, error) {
	if !f.Has(FlagPadded) {
		return payload, nil
	}
	if len(payload) == 0 {
		return nil, CodeFrameSize
	}
	padding := int(payload[0])
	if padding >= len(payload) {
		return nil, CodeProtocol
	}
	return payload[1 : len(payload)-padding], nil
}
