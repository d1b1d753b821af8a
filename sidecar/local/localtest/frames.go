package localtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/http"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// Frames is a connection on which a test writes HTTP/2 frame by frame, also wrong ones. Responses are collected as frames are
// read, whatever the test waits for.
type Frames struct {
	*Conn
	*http2.Framer
	Streams map[uint32]*Response // :: stream id → what has arrived
	GoAway  *http2.GoAwayFrame
	Pings   int // acknowledgements
	block   bytes.Buffer
	encoder *hpack.Encoder
}

// Response is what has arrived on a stream.
type Response struct {
	Header http.Header // with the trailer and the pseudo-headers
	Body   []byte
	Ended  bool
	Reset  *http2.ErrCode
}

// DialFrames connects and sends the preface and settings.
func DialFrames(tb testing.TB, network, address string, settings ...http2.Setting) *Frames {
	tb.Helper()
	f := FramesOn(Dial(tb, network, address))
	f.Send(http2.ClientPreface)
	f.Try(f.WriteSettings(settings...))
	return f
}

// FramesOn returns the frames of a connection, on which the test itself sends the preface.
func FramesOn(c *Conn) *Frames {
	f := &Frames{Conn: c, Framer: http2.NewFramer(c, c.Reader), Streams: map[uint32]*Response{}}
	f.AllowIllegalWrites = true
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.encoder = hpack.NewEncoder(&f.block)
	return f
}

// Try fails the test if err is not nil.
func (f *Frames) Try(err error) {
	f.TB.Helper()
	if err != nil {
		f.TB.Fatal(err)
	}
}

// Block encodes header fields, which are pairs of name and value.
func (f *Frames) Block(fields ...string) []byte {
	f.block.Reset()
	for pair := range slices.Chunk(fields, 2) {
		_ = f.encoder.WriteField(hpack.HeaderField{Name: pair[0], Value: pair[1]}) // to memory
	}
	return slices.Clone(f.block.Bytes())
}

// CallHeader returns the fields of a gRPC request, and more.
func CallHeader(path string, more ...string) []string {
	return append([]string{":method", "POST", ":scheme", "http", ":path", path, ":authority", "localhost",
		"content-type", "application/grpc", "te", "trailers"}, more...)
}

// Begin sends the header of a gRPC request.
func (f *Frames) Begin(id uint32, path string, more ...string) {
	f.TB.Helper()
	f.Try(f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.Block(CallHeader(path, more...)...), EndHeaders: true}))
}

// Message returns m with the prefix of gRPC.
func Message(tb testing.TB, m proto.Message) []byte {
	tb.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...)
}

// Call sends a gRPC request.
func (f *Frames) Call(id uint32, path string, m proto.Message, more ...string) {
	f.TB.Helper()
	f.Begin(id, path, more...)
	f.Try(f.WriteData(id, true, Message(f.TB, m)))
}

// Stream returns what has arrived on a stream.
func (f *Frames) Stream(id uint32) *Response {
	if f.Streams[id] == nil {
		f.Streams[id] = &Response{Header: http.Header{}}
	}
	return f.Streams[id]
}

// Next reads one frame, and acknowledges settings and pings.
func (f *Frames) Next() error {
	frame, err := f.ReadFrame()
	if err != nil {
		return err
	}
	switch frame := frame.(type) {
	case *http2.SettingsFrame:
		if !frame.IsAck() {
			return f.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !frame.IsAck() {
			return f.WritePing(true, frame.Data)
		}
		f.Pings++
	case *http2.GoAwayFrame:
		copied := *frame
		f.GoAway = &copied
	case *http2.MetaHeadersFrame:
		r := f.Stream(frame.StreamID)
		for _, field := range frame.Fields {
			r.Header.Add(field.Name, field.Value)
		}
		r.Ended = frame.StreamEnded()
	case *http2.DataFrame:
		r := f.Stream(frame.StreamID)
		r.Body = append(r.Body, frame.Data()...)
		r.Ended = frame.StreamEnded()
	case *http2.RSTStreamFrame:
		code := frame.ErrCode
		f.Stream(frame.StreamID).Reset = &code
	}
	return nil
}

// Until reads frames until done returns true.
func (f *Frames) Until(what string, done func() bool) {
	f.TB.Helper()
	for !done() {
		if err := f.Next(); err != nil {
			f.TB.Fatalf("while waiting for %s: %v (GOAWAY: %v)", what, err, f.GoAway)
		}
	}
}

// Answer waits for the end of a stream, or for its reset.
func (f *Frames) Answer(id uint32) *Response {
	f.TB.Helper()
	r := f.Stream(id)
	f.Until("the response", func() bool { return r.Ended || r.Reset != nil })
	return r
}

// Sync waits until the server has handled what was sent before, and answered what it answers at once.
func (f *Frames) Sync() {
	f.TB.Helper()
	before := f.Pings
	f.Try(f.WritePing(false, [8]byte{}))
	f.Until("the acknowledgement of a PING", func() bool { return f.Pings > before })
}

// Ends waits until the server ends the connection, and returns the code of its GOAWAY; ok is false if there was none.
func (f *Frames) Ends() (code http2.ErrCode, ok bool) {
	f.TB.Helper()
	for {
		err := f.Next()
		switch {
		case err == nil:
		case isTimeout(err):
			f.TB.Fatalf("the connection is not closed within %v", timeout)
		case f.GoAway != nil:
			return f.GoAway.ErrCode, true
		default:
			return 0, false
		}
	}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// Flood writes b again and again until the server closes the connection or has taken n copies. It does not read.
func (f *Frames) Flood(b []byte, n int) {
	chunk := bytes.Repeat(b, max(1, 64<<10/len(b)))
	for sent := 0; sent < n; sent += len(chunk) / len(b) {
		_ = f.Conn.Conn.SetWriteDeadline(time.Now().Add(time.Second)) // the server need not take more
		if _, err := f.Conn.Conn.Write(chunk); err != nil {
			return
		}
	}
}
