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

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/httpapi"
	"github.com/ringside-cache/ringside/sidecar/local/watch"
)

// reconnectAfter tells browsers to reopen a watch that has ended after one second.
const reconnectAfter = "retry: 1000\n\n"

// serveWatch writes the whole response to a watch. The connection is closed after it.
func (c *conn) serveWatch(x *httpapi.RequestContext) {
	backend := c.server.backend
	if err := c.server.handler.Watches().Open(); err != nil {
		c.refuseWatch(x, backend.Error(err))
		return
	}
	defer c.server.handler.Watches().Close()
	if err := x.Watch.Reserve(); err != nil {
		c.refuseWatch(x, backend.Error(err))
		return
	}
	defer x.Watch.Release()
	if c.net.SetDeadline(time.Time{}) != nil {
		return // the client has gone
	}
	ctx, cancel := context.WithCancel(backend.Stopping())
	defer awaitClose(c.net, cancel)()
	to := newEventWriter(c, x.Watch.Dataset())
	err := to.begin(&x.Response)
	if err == nil {
		err = x.Watch.Run(ctx, to)
	}
	var ended *kv.Error
	var denied *apierror.Error
	switch {
	case err == nil:
		err = to.end()
	case errors.As(err, &denied):
		err = to.fail(denied)
	case errors.As(err, &ended): //guard:watch-ends-without-a-reason
		err = to.fail(backend.Error(err))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		backend.Stats().SlowWatchersClosed.Add(1)
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
func (c *conn) refuseWatch(x *httpapi.RequestContext, e *apierror.Error) {
	var r httpapi.Response
	r.Fail(e)
	_ = c.write(&r, false) // fails only if the client has gone
}

// eventWriter writes a watch as server-sent events (WHATWG HTML, 9.2). Every write has a deadline, so that a client that
// does not read is disconnected.
type eventWriter struct {
	conn    *conn
	timeout time.Duration
	dataset api.Served
	loan    budget.Loan // of the event that is being sent

	buffer *bufio.Writer
	body   io.Writer // buffer, in chunks unless the client uses HTTP/1.0
}

func newEventWriter(c *conn, d api.Served) *eventWriter {
	buffer := bufio.NewWriterSize(c.net, 1<<10)
	return &eventWriter{conn: c, timeout: c.server.config.WriteTimeout, dataset: d,
		loan: c.server.config.Budget.Loan(budget.Responses), buffer: buffer, body: buffer}
}

// begin sends the responses to earlier requests and writes the header.
func (w *eventWriter) begin(r *httpapi.Response) error {
	if err := w.conn.flush(); err != nil {
		return err
	}
	head := append(w.conn.appendFields(nil, r), "Connection: close\r\n"...)
	if w.conn.head.HTTP11() {
		head = append(head, "Transfer-Encoding: chunked\r\n"...)
		w.body = httputil.NewChunkedWriter(w.buffer)
	}
	_, _ = w.buffer.Write(append(head, "\r\n"...)) // Flush returns the error of earlier writes, here and below
	return w.write([]byte(reconnectAfter))
}

func (w *eventWriter) write(b []byte) error {
	if err := w.conn.net.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
		return err
	}
	if _, err := w.body.Write(b); err != nil {
		return err
	}
	return w.buffer.Flush()
}

// eventCost is how many bytes an event holds for each byte of its value: the value, its JSON, and the event.
const eventCost = 4

// Send implements watch.Sink. Without budget for a large value the watch ends; its client opens it again with the token.
func (w *eventWriter) Send(e watch.Event) error {
	switch e.Kind {
	case watch.Reset:
		return w.write(appendEvent(nil, "reset", e.Token, []byte("{}")))
	case watch.Current:
		return w.write(appendEvent(nil, "current", e.Token, []byte("{}")))
	}
	if size := len(e.Result.Answer.Value); size > api.PrepaidResponse && !w.loan.Grow(eventCost*int64(size)) { //guard:event-without-budget
		return kv.ErrNoMemory
	}
	defer w.loan.Close()
	data, err := w.conn.server.handler.MarshalEntry(w.dataset, e.Key, e.Result)
	if err != nil {
		return fmt.Errorf("write the state of a key: %w", err)
	}
	return w.write(appendEvent(nil, "state", e.Token, bytes.TrimSuffix(data, []byte("\n"))))
}

// Heartbeat implements watch.Sink.
func (w *eventWriter) Heartbeat() error { return w.write([]byte(":\n\n")) }

// fail says why the watch ends. The event is not named error, as browsers call a broken connection.
func (w *eventWriter) fail(e *apierror.Error) error {
	if err := w.write(appendEvent(nil, "end", "", bytes.TrimSuffix(e.JSON(), []byte("\n")))); err != nil {
		return err
	}
	return w.end()
}

// end marks the end of the response, which distinguishes it from a broken connection.
func (w *eventWriter) end() error {
	chunked, ok := w.body.(io.Closer)
	if !ok {
		return nil
	}
	if err := w.conn.net.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
		return err
	}
	_ = chunked.Close()                 // the last chunk
	_, _ = w.buffer.WriteString("\r\n") // no trailers
	return w.buffer.Flush()
}

// appendEvent appends one event. data is JSON on one line; browsers ignore events without data. An event without an id leaves
// browsers the one before, with which they continue.
func appendEvent(b []byte, name, id string, data []byte) []byte {
	b = append(append(b, "event: "...), name...)
	if id != "" {
		b = append(append(b, "\nid: "...), id...)
	}
	b = append(append(b, "\ndata: "...), data...)
	return append(b, "\n\n"...)
}
