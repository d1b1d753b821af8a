package httpserver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"os"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/local/httpapi"
	"github.com/ringside-cache/ringside/sidecar/local/watch"
)

// reconnectAfter tells browsers to reopen a watch that has ended after one second.
const reconnectAfter = "retry: 1000\n\n"

// watch passes the connection to w after fasthttp has finished the request.
func (s *Server) watch(x *fasthttp.RequestCtx, w *watch.Watch, http11 bool) {
	x.HijackSetNoResponse(true)
	x.Hijack(func(conn net.Conn) { s.serveWatch(x, conn, w, http11) })
}

// serveWatch writes the whole response to a watch. The connection is closed after it.
func (s *Server) serveWatch(x *fasthttp.RequestCtx, conn net.Conn, w *watch.Watch, http11 bool) {
	defer func() {
		if p := recover(); p != nil { //guard:panic-in-watch-ends-process
			s.backend.Panic("in a watch", p)
		}
	}()
	if err := s.handler.Watches().Open(); err != nil {
		s.refuseWatch(x, conn, s.backend.Error(err))
		return
	}
	defer s.handler.Watches().Close()
	if err := w.Reserve(); err != nil {
		s.refuseWatch(x, conn, s.backend.Error(err))
		return
	}
	defer w.Release()
	ctx, cancel := context.WithCancel(s.backend.Stopping())
	defer awaitClose(conn, cancel)()
	to := newEventWriter(conn, s.handler, w.JSON())
	err := to.begin(x, http11)
	if err == nil {
		err = w.Run(ctx, to)
	}
	if err == nil {
		err = to.end()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.backend.Stats().SlowWatchersClosed.Add(1)
	}
}

// awaitClose calls closed when the client disconnects: it sends nothing during a watch. stop ends the reading and waits
// for it.
func awaitClose(conn net.Conn, closed func()) (stop func()) {
	var reading sync.WaitGroup
	reading.Go(func() {
		defer closed() //guard:watch-outlives-client
		_, _ = io.Copy(io.Discard, conn)
	})
	return func() {
		_ = conn.SetReadDeadline(time.Unix(1, 0)) // fails only on a connection that has ended, and then the reading has, too
		reading.Wait()
	}
}

// refuseWatch writes an error instead of a watch.
func (s *Server) refuseWatch(x *fasthttp.RequestCtx, conn net.Conn, e *apierror.Error) {
	var r httpapi.Response
	r.Fail(e)
	x.Response.Reset()
	write(x, &r)
	x.Response.SetConnectionClose()
	if conn.SetWriteDeadline(time.Now().Add(s.fasthttp.WriteTimeout)) == nil {
		_, _ = x.Response.WriteTo(conn) // fails only if the client has gone
	}
}

// eventWriter writes a watch as server-sent events (WHATWG HTML, 9.2). Every write has a deadline, so that a client that
// does not read is disconnected.
type eventWriter struct {
	conn    net.Conn
	timeout time.Duration
	handler *httpapi.Handler
	json    bool // values are JSON

	buffer *bufio.Writer
	body   io.Writer // buffer, in chunks unless the client uses HTTP/1.0
}

func newEventWriter(conn net.Conn, h *httpapi.Handler, isJSON bool) *eventWriter {
	buffer := bufio.NewWriterSize(conn, 1<<10)
	return &eventWriter{conn: conn, timeout: h.Backend().Config().WriteTimeout, handler: h, json: isJSON,
		buffer: buffer, body: buffer}
}

// begin writes the header, whose fields are those of x.
func (w *eventWriter) begin(x *fasthttp.RequestCtx, http11 bool) error {
	x.Response.SetConnectionClose()
	if http11 {
		x.Response.Header.SetContentLength(-1)
		w.body = httputil.NewChunkedWriter(w.buffer)
	}
	_, _ = w.buffer.Write(x.Response.Header.Header()) // Flush returns the error of earlier writes, here and below
	return w.write([]byte(reconnectAfter))
}

func (w *eventWriter) write(b []byte) error {
	if err := w.conn.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
		return err
	}
	if _, err := w.body.Write(b); err != nil {
		return err
	}
	return w.buffer.Flush()
}

// Send implements watch.Sink.
func (w *eventWriter) Send(e watch.Event) error {
	switch e.Kind {
	case watch.Reset:
		return w.write(appendEvent(nil, "reset", e.Token, []byte("{}")))
	case watch.Current:
		return w.write(appendEvent(nil, "current", e.Token, []byte("{}")))
	}
	data, err := w.handler.MarshalEntry(e.Key, e.Result, w.json)
	if err != nil {
		return fmt.Errorf("write the state of a key: %w", err)
	}
	return w.write(appendEvent(nil, "state", e.Token, bytes.TrimSuffix(data, []byte("\n"))))
}

// Heartbeat implements watch.Sink.
func (w *eventWriter) Heartbeat() error { return w.write([]byte(":\n\n")) }

// end marks the end of the response, which distinguishes it from a broken connection.
func (w *eventWriter) end() error {
	chunked, ok := w.body.(io.Closer)
	if !ok {
		return nil
	}
	if err := w.conn.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
		return err
	}
	_ = chunked.Close()                 // the last chunk
	_, _ = w.buffer.WriteString("\r\n") // no trailers
	return w.buffer.Flush()
}

// appendEvent appends one event. data is JSON on one line; browsers ignore events without data.
func appendEvent(b []byte, name, id string, data []byte) []byte {
	b = append(append(b, "event: "...), name...)
	b = append(append(b, "\nid: "...), id...)
	b = append(append(b, "\ndata: "...), data...)
	return append(b, "\n\n"...)
}
