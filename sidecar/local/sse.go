package local

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

const typeEvents = "text/event-stream"

// reconnectAfter is when a browser opens a watch again that has ended, in milliseconds.
const reconnectAfter = "retry: 1000\n\n"

// watch answers GET /v1/{dataset}:watch?key=…
func (e *entrance) watch(c *call, path string) {
	if e.routed {
		c.fail(apierror.New(apierror.NoSuchRoute, "a watch has keys of many owners, and is not routed by the ring: open it at the pod's own sidecar"))
		return
	}
	name, query, _ := watchTarget(path)
	d, ok := e.dataset(c, name)
	if !ok {
		return
	}
	keys, err := parseWatchQuery(query)
	if err != nil {
		c.fail(invalidRequest(err))
		return
	}
	c.status, c.contentType = http.StatusOK, typeEvents
	c.setString("Cache-Control", noStore)
	c.setString("X-Accel-Buffering", "no") // nginx would keep events until it has many
	if c.method == http.MethodGet {
		c.watching = e.server.newWatch(d, keys, strings.Clone(trimField(c.lastEventID)))
	}
}

// watchTarget takes the name of the dataset and the query from the path of a watch.
func watchTarget(path string) (name, query string, ok bool) {
	rest, versioned := strings.CutPrefix(path, "/v1/")
	rest, query, _ = strings.Cut(rest, "?")
	name, isWatch := strings.CutSuffix(rest, ":watch")
	return name, query, versioned && isWatch && !strings.Contains(name, "/")
}

func isWatch(path string) bool {
	_, _, ok := watchTarget(path)
	return ok
}

// parseWatchQuery reads key=…&key=… as a browser's URLSearchParams writes it: a plus sign is a space.
func parseWatchQuery(query string) (keys []string, err error) {
	if strings.Contains(query, "#") {
		return nil, errors.New("a request has no fragment; in a key write # as %23")
	}
	values, err := url.ParseQuery(strings.Clone(query))
	if err != nil {
		return nil, errors.New("the query is not key=…&key=…, percent-encoded")
	}
	for name := range values {
		if name != "key" {
			return nil, errors.New("a watch takes the parameter key, once for each key, and no other")
		}
	}
	return checkWatchKeys(values["key"])
}

// watch hands the connection over to w once the server is done with the request.
func (s *httpServer) watch(x *fasthttp.RequestCtx, w *watch, http11 bool) {
	x.HijackSetNoResponse(true)
	x.Hijack(func(conn net.Conn) { s.serveWatch(x, conn, w, http11) })
}

// serveWatch is the whole answer to a watch. It owns conn, which is closed after it.
func (s *httpServer) serveWatch(x *fasthttp.RequestCtx, conn net.Conn, w *watch, http11 bool) {
	server := s.entrance.server
	defer func() {
		if p := recover(); p != nil { //guard:panic-watch-ends-process
			server.defect(fmt.Errorf("panic in a watch: %v\n%s", p, debug.Stack()))
		}
	}()
	if err := server.beginWatch(); err != nil {
		s.refuseWatch(x, conn, server.fail(err))
		return
	}
	defer server.endWatch()
	ctx, cancel := context.WithCancel(server.draining)
	defer awaitClose(conn, cancel)()
	to := newEventWriter(conn, s.entrance, w.dataset.JSON)
	err := to.head(x, http11)
	if err == nil {
		err = w.run(ctx, to)
	}
	if err == nil {
		err = to.end()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		server.stats.WatchesCut.Add(1)
	}
}

// awaitClose calls closed when the client has gone: one that watches says nothing more. It goes on until stop, which
// waits for it.
func awaitClose(conn net.Conn, closed func()) (stop func()) {
	var reading sync.WaitGroup
	reading.Go(func() {
		defer closed() //guard:watch-outlives-client
		_, _ = io.Copy(io.Discard, conn)
	})
	return func() {
		_ = conn.SetReadDeadline(time.Unix(1, 0)) // a connection that refuses has ended, and so has the reading
		reading.Wait()
	}
}

// refuseWatch answers instead of a watch.
func (s *httpServer) refuseWatch(x *fasthttp.RequestCtx, conn net.Conn, f *apierror.Error) {
	var r response
	r.fail(f)
	x.Response.Reset()
	write(x, &r)
	x.Response.SetConnectionClose()
	if conn.SetWriteDeadline(time.Now().Add(s.WriteTimeout)) == nil {
		_, _ = x.Response.WriteTo(conn) // whether the client still reads does not matter
	}
}

// eventWriter writes a watch as server-sent events (WHATWG HTML, 9.2). Every write has a deadline: a client that does
// not read is cut off.
type eventWriter struct {
	conn     net.Conn
	timeout  time.Duration
	entrance *entrance
	json     bool // the values are

	buffer *bufio.Writer
	body   io.Writer // buffer, in chunks unless the client speaks HTTP/1.0
}

func newEventWriter(conn net.Conn, e *entrance, isJSON bool) *eventWriter {
	buffer := bufio.NewWriterSize(conn, 1<<10)
	return &eventWriter{conn: conn, timeout: e.server.config.WriteTimeout, entrance: e, json: isJSON,
		buffer: buffer, body: buffer}
}

// head begins the answer, whose fields are those of x.
func (w *eventWriter) head(x *fasthttp.RequestCtx, http11 bool) error {
	x.Response.SetConnectionClose()
	if http11 {
		x.Response.Header.SetContentLength(-1)
		w.body = httputil.NewChunkedWriter(w.buffer)
	}
	_, _ = w.buffer.Write(x.Response.Header.Header()) // Flush returns what went wrong before it, here and below
	return w.send([]byte(reconnectAfter))
}

func (w *eventWriter) send(b []byte) error {
	if err := w.conn.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
		return err
	}
	if _, err := w.body.Write(b); err != nil {
		return err
	}
	return w.buffer.Flush()
}

func (w *eventWriter) tell(e event) error {
	switch e.kind {
	case eventReset:
		return w.send(appendEvent(nil, "reset", e.token, []byte("{}")))
	case eventCurrent:
		return w.send(appendEvent(nil, "current", e.token, []byte("{}")))
	}
	var data bytes.Buffer
	enc := json.NewEncoder(&data)
	enc.SetEscapeHTML(false) // a value leaves as it came
	if err := enc.Encode(w.entrance.entry(e.key, e.outcome, w.json)); err != nil {
		return fmt.Errorf("write the state of a key: %w", err)
	}
	return w.send(appendEvent(nil, "state", e.token, bytes.TrimSuffix(data.Bytes(), []byte("\n"))))
}

func (w *eventWriter) beat() error { return w.send([]byte(":\n\n")) }

// end says that there is no more, as opposed to a connection that breaks.
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

// appendEvent writes one event. data is JSON on one line; a browser drops events without any.
func appendEvent(b []byte, name, id string, data []byte) []byte {
	b = append(append(b, "event: "...), name...)
	b = append(append(b, "\nid: "...), id...)
	b = append(append(b, "\ndata: "...), data...)
	return append(b, "\n\n"...)
}
