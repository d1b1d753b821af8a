package httpserver

import (
	"net/http"
	"strconv"
	"time"

	"github.com/ringside-cache/ringside/sidecar/local/httpapi"
)

// hasBody reports whether responses of a status have a body (RFC 9110, 6.4.1).
func hasBody(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}

// appendHead appends the status line and the header of a response to the current request.
func (c *conn) appendHead(b []byte, r *httpapi.Response, keep bool) []byte {
	b = c.appendFields(b, r)
	if hasBody(r.Status) && (len(r.Body) > 0 || c.head.Method != http.MethodHead) {
		b = strconv.AppendInt(append(b, "Content-Length: "...), int64(len(r.Body)), 10)
		b = append(b, "\r\n"...)
	}
	if !keep {
		b = append(b, "Connection: close\r\n"...)
	} else if c.head.KeepAlive() && !c.head.HTTP11() {
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	return append(b, "\r\n"...)
}

// appendFields appends the status line and the fields that do not depend on the form of the body.
func (c *conn) appendFields(b []byte, r *httpapi.Response) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = append(strconv.AppendInt(b, int64(r.Status), 10), ' ')
	b = append(append(b, http.StatusText(r.Status)...), "\r\n"...)
	b = append(append(append(b, "Date: "...), c.server.dateOf(time.Now())...), "\r\n"...)
	if r.ContentType != "" {
		b = append(append(append(b, "Content-Type: "...), r.ContentType...), "\r\n"...)
	}
	for _, f := range r.Fields {
		b = append(append(b, f.Name...), ": "...)
		b = append(appendValue(b, f.Value), "\r\n"...)
	}
	return b
}

// appendValue appends the value of a field. Control characters, which would end the field, become spaces.
func appendValue(b, value []byte) []byte {
	begin := len(b)
	b = append(b, value...)
	for i := begin; i < len(b); i++ {
		if b[i] < ' ' || b[i] == 0x7f {
			b[i] = ' '
		}
	}
	return b
}
