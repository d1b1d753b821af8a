// Package response has the http.ResponseWriter of an HTTP/2 stream.
package response

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/h2/header"
)

// bufferBytes joins small writes of a handler to one frame; larger ones are not copied here.
const bufferBytes = 2 << 10

// Stream sends a response. Its methods wait while the client accepts nothing.
type Stream interface {
	// SendInformation sends a header of status 1xx without fields, unless the response has begun.
	SendInformation(status int)
	SendHeader(status int, fields []byte, end bool) error
	SendData(p []byte, end bool) error
	// SendTrailer sends the trailer, or the end of the stream where it was not sent.
	SendTrailer(fields []byte) error
	SetReadDeadline(at time.Time) error
	SetWriteDeadline(at time.Time) error
}

// Writer is the http.ResponseWriter of a stream. Only the goroutine of the handler uses it.
type Writer struct {
	stream   Stream
	method   string
	header   http.Header
	status   int
	trailers []string // announced with the header
	buf      []byte
	begun    bool // the header was sent
	length   int64
	err      error
}

var _ interface {
	http.ResponseWriter
	http.Flusher
	FlushError() error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
	EnableFullDuplex() error
} = (*Writer)(nil)

// New returns the Writer of the response to a request.
func New(s Stream, method string) *Writer {
	return &Writer{stream: s, method: method, header: http.Header{}}
}

// Header implements http.ResponseWriter.
func (w *Writer) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *Writer) WriteHeader(status int) {
	if status >= 100 && status < 200 {
		w.stream.SendInformation(status)
		return
	}
	if w.status == 0 {
		w.status = status
		for _, line := range w.header["Trailer"] {
			for name := range strings.SplitSeq(line, ",") {
				w.trailers = append(w.trailers, http.CanonicalHeaderKey(strings.TrimSpace(name)))
			}
		}
	}
}

func (w *Writer) hasBody() bool {
	return w.status != http.StatusNoContent && w.status != http.StatusNotModified && w.method != http.MethodHead
}

// Write implements http.ResponseWriter. It waits while the client accepts nothing.
func (w *Writer) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if !w.hasBody() {
		if w.method != http.MethodHead {
			return 0, http.ErrBodyNotAllowed
		}
		w.length += int64(len(p))
		return len(p), nil
	}
	w.length += int64(len(p))
	if len(w.buf)+len(p) <= bufferBytes {
		w.buf = append(w.buf, p...)
		return len(p), nil
	}
	if err := w.FlushError(); err != nil {
		return 0, err
	}
	if w.err = w.stream.SendData(p, false); w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// Flush implements http.Flusher.
func (w *Writer) Flush() { _ = w.FlushError() }

// FlushError sends what was written. http.ResponseController calls it.
func (w *Writer) FlushError() error {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.begin(false)
	if w.err == nil && len(w.buf) > 0 {
		w.err = w.stream.SendData(w.buf, false)
		w.buf = w.buf[:0]
	}
	return w.err
}

// begin sends the header.
func (w *Writer) begin(end bool) {
	if w.begun || w.err != nil {
		return
	}
	w.begun = true
	fields := make([]byte, 0, 128)
	for name, values := range w.header {
		if !strings.HasPrefix(name, http.TrailerPrefix) && !slices.Contains(w.trailers, name) {
			fields = header.AppendValues(fields, name, values)
		}
	}
	if _, ok := w.header["Date"]; !ok {
		fields = header.AppendField(fields, "date", time.Now().UTC().Format(http.TimeFormat))
	}
	w.err = w.stream.SendHeader(w.status, fields, end)
}

// Finish sends the rest after the handler has returned.
func (w *Writer) Finish() {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	trailer := w.trailer()
	if !w.begun && w.header.Get("Content-Length") == "" && (w.hasBody() || w.length > 0) && len(trailer) == 0 {
		w.header.Set("Content-Length", strconv.FormatInt(w.length, 10)) // it is known because nothing was flushed
	}
	end := len(trailer) == 0
	w.begin(end && len(w.buf) == 0)
	if w.err == nil && len(w.buf) > 0 {
		w.err = w.stream.SendData(w.buf, end)
	}
	if w.err == nil {
		w.err = w.stream.SendTrailer(trailer)
	}
}

// SetReadDeadline implements the method that http.ResponseController calls.
func (w *Writer) SetReadDeadline(at time.Time) error { return w.stream.SetReadDeadline(at) }

// SetWriteDeadline implements the method that http.ResponseController calls.
func (w *Writer) SetWriteDeadline(at time.Time) error { return w.stream.SetWriteDeadline(at) }

// EnableFullDuplex implements the method that http.ResponseController calls: HTTP/2 always is.
func (w *Writer) EnableFullDuplex() error { return nil }

// trailer returns the block of the trailer; empty if there is none.
func (w *Writer) trailer() (block []byte) {
	for _, name := range w.trailers {
		block = header.AppendValues(block, name, w.header[name])
	}
	for name, values := range w.header {
		if name, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			block = header.AppendValues(block, name, values)
		}
	}
	return block
}
