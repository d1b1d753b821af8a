package loadgen

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	frameHeader = 9
	window      = 1 << 30 // of the connection, for responses; never used up between two updates
)

// GRPC returns streams of unary calls of a method (/package.Service/Method) with encoded messages. Each response must succeed
// and have at least size bytes. A stream does not wait for the server's windows: it has a few small requests in flight.
func GRPC(method string, messages [][]byte, size int) func() Stream {
	return func() Stream {
		g := &grpc{method: method, messages: messages, size: size, id: 1}
		g.encoder, g.decoder = hpack.NewEncoder(&g.encoded), hpack.NewDecoder(4096, g.field)
		return g
	}
}

type grpc struct {
	method   string
	messages [][]byte
	size     int

	opened  bool
	id      uint32 // of the next request
	encoder *hpack.Encoder
	encoded bytes.Buffer
	block   []byte // header block of a request, once it repeats
	repeats bool

	decoder   *hpack.Decoder
	blocks    [2]knownBlock // of headers and of trailers
	status    string        // grpc-status of the last block
	bytes     int           // in DATA frames
	ended     int           // responses
	unclaimed int           // bytes of the window that no update has returned
}

// Append sends a request as a HEADERS and a DATA frame.
func (g *grpc) Append(b []byte, i int) []byte {
	b = g.open(b)
	message, block := g.messages[i%len(g.messages)], g.headers()
	b = append(appendFrame(b, http2.FrameHeaders, http2.FlagHeadersEndHeaders, g.id, len(block)), block...)
	b = appendFrame(b, http2.FrameData, http2.FlagDataEndStream, g.id, 5+len(message))
	b = binary.BigEndian.AppendUint32(append(b, 0), uint32(len(message)))
	g.id += 2
	return append(b, message...)
}

// open begins a connection with its preface, once.
func (g *grpc) open(b []byte) []byte {
	if g.opened {
		return b
	}
	g.opened = true
	b = append(b, http2.ClientPreface...)
	b = appendFrame(b, http2.FrameSettings, 0, 0, 6)
	b = binary.BigEndian.AppendUint16(b, uint16(http2.SettingInitialWindowSize))
	b = binary.BigEndian.AppendUint32(b, window)
	return appendWindow(b, window)
}

// headers returns the header block of the next request. After the first ones, each field is in the dynamic table, and the block
// no longer changes.
func (g *grpc) headers() []byte {
	if g.repeats {
		return g.block
	}
	g.encoded.Reset()
	for _, field := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: g.method},
		{Name: ":authority", Value: "localhost"}, {Name: "content-type", Value: "application/grpc"},
		{Name: "user-agent", Value: "loadgen"}, {Name: "te", Value: "trailers"},
	} {
		_ = g.encoder.WriteField(field) // a bytes.Buffer does not fail
	}
	g.repeats = bytes.Equal(g.block, g.encoded.Bytes())
	g.block = bytes.Clone(g.encoded.Bytes())
	return g.block
}

// Parse reads frames. The responses of different streams may be interleaved.
func (g *grpc) Parse(b, out []byte) (n, responses int, _ []byte, err error) {
	for len(b)-n >= frameHeader {
		head := b[n:]
		length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
		if len(head) < frameHeader+length {
			break
		}
		payload, flags := head[frameHeader:frameHeader+length], http2.Flags(head[4])
		n += frameHeader + length
		switch kind := http2.FrameType(head[3]); kind {
		case http2.FrameData:
			g.bytes += length
			out = g.claim(out, length)
		case http2.FrameHeaders:
			ended, err := g.readHeaders(payload, flags)
			if err != nil {
				return 0, 0, out, err
			}
			responses += ended
		case http2.FrameSettings, http2.FramePing:
			out = g.acknowledge(out, kind, payload, flags)
		case http2.FrameWindowUpdate:
		default:
			if !endsRequest(kind, payload) {
				return 0, 0, out, fmt.Errorf("got the frame %v: %q", kind, payload)
			}
		}
	}
	return n, responses, out, nil
}

// endsRequest reports whether a frame follows a complete response whose request the server did not read to its end (RFC 9113, 8.1).
func endsRequest(kind http2.FrameType, payload []byte) bool {
	return kind == http2.FrameRSTStream && len(payload) == 4 && binary.BigEndian.Uint32(payload) == uint32(http2.ErrCodeNo)
}

// knownBlock is a header block that was decoded and found valid.
type knownBlock struct {
	bytes  []byte
	repeat int
}

// readHeaders checks headers or, at the end of a stream, trailers. It does not decode a block again that came three times in a
// row: had it added a field to the dynamic table, the server would have sent an index instead.
func (g *grpc) readHeaders(block []byte, flags http2.Flags) (ended int, err error) {
	if flags.Has(http2.FlagHeadersEndStream) {
		ended = 1
	}
	known := &g.blocks[ended]
	if !bytes.Equal(known.bytes, block) {
		*known = knownBlock{bytes: bytes.Clone(block)}
	}
	if known.repeat < 3 {
		known.repeat++
		if err := g.decode(block, flags, ended == 1); err != nil {
			return 0, err
		}
	}
	g.ended += ended
	if g.bytes < g.ended*g.size {
		return 0, fmt.Errorf("got %d bytes in %d responses, want at least %d each", g.bytes, g.ended, g.size)
	}
	return ended, nil
}

func (g *grpc) decode(block []byte, flags http2.Flags, trailers bool) error {
	if flags&^http2.FlagHeadersEndStream != http2.FlagHeadersEndHeaders {
		return errors.New("got a HEADERS frame with padding, a priority or a continuation")
	}
	g.status = ""
	if _, err := g.decoder.Write(block); err != nil {
		return err
	}
	if err := g.decoder.Close(); err != nil {
		return err
	}
	if trailers && g.status != "0" { //guard:failed-call
		return fmt.Errorf("got grpc-status %q, want 0", g.status)
	}
	return nil
}

func (g *grpc) field(f hpack.HeaderField) {
	if f.Name == "grpc-status" {
		g.status = f.Value
	}
}

// claim returns the window of n received bytes, now and then.
func (g *grpc) claim(out []byte, n int) []byte {
	if g.unclaimed += n; g.unclaimed < window/2 {
		return out
	}
	out = appendWindow(out, g.unclaimed)
	g.unclaimed = 0
	return out
}

func (g *grpc) acknowledge(out []byte, kind http2.FrameType, payload []byte, flags http2.Flags) []byte {
	if flags.Has(http2.FlagSettingsAck) {
		return out
	}
	out = g.open(out) // a server may send its settings before the first request //guard:preface-before-acknowledgement
	if kind == http2.FramePing {
		return append(appendFrame(out, kind, http2.FlagPingAck, 0, len(payload)), payload...)
	}
	for ; len(payload) >= 6; payload = payload[6:] {
		if http2.SettingID(binary.BigEndian.Uint16(payload)) == http2.SettingHeaderTableSize {
			g.encoder.SetMaxDynamicTableSizeLimit(binary.BigEndian.Uint32(payload[2:]))
			g.block, g.repeats = nil, false
		}
	}
	return appendFrame(out, kind, http2.FlagSettingsAck, 0, 0)
}

func appendFrame(b []byte, kind http2.FrameType, flags http2.Flags, stream uint32, length int) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), byte(kind), byte(flags))
	return binary.BigEndian.AppendUint32(b, stream)
}

func appendWindow(b []byte, n int) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, http2.FrameWindowUpdate, 0, 0, 4), uint32(n))
}
