package client

import (
	"context"
	"strconv"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/header"
)

// maxEntries limits the fields in the HPACK table of the server: they take less than its default size, so that none is ever
// evicted.
const maxEntries = 20

// field is a field of a request.
type field struct{ name, value string }

// requestEncoder encodes the header blocks of requests. It knows what the HPACK table of the server has.
type requestEncoder struct {
	scheme  byte
	common  []field       // of every request
	entries map[field]int // :: field in the table → number of those that were added before it
	off     bool          // the server has asked for a smaller table
	smaller bool          // the server was not told yet that none is used
	timeout []byte
	// propagate is that of the Config.
	propagate func(context.Context) (parent, state string)
}

// Indices of the static table (RFC 7541, appendix A); the dynamic table begins at indexDynamic with the latest entry.
const indexPOST, indexHTTP, indexHTTPS, indexDynamic = 3, 6, 7, 62

func (e *requestEncoder) init(authority string, secure bool) {
	e.scheme = indexHTTP
	if secure {
		e.scheme = indexHTTPS
	}
	e.common = []field{
		{":authority", authority}, {"content-type", header.ContentTypeGRPC}, {"te", "trailers"}, {"user-agent", "ringside"},
	}
	e.entries = map[field]int{}
}

// limit takes SETTINGS_HEADER_TABLE_SIZE. A table that is smaller than the default is not used.
func (e *requestEncoder) limit(size uint32) {
	if size < header.TableBytes && !e.off {
		e.off, e.smaller = true, true
	}
}

// append appends the HEADERS of a request.
func (e *requestEncoder) append(ctx context.Context, b []byte, id uint32, method string) []byte {
	start := len(b)
	b = frame.Append(b, 0, frame.Headers, 0, 0)
	if e.smaller {
		e.smaller = false
		b = append(b, 0x20) // the size of the table is 0 (RFC 7541, 6.3)
	}
	b = append(b, 0x80|indexPOST, 0x80|e.scheme)
	b = e.appendField(b, field{":path", method})
	for _, f := range e.common {
		b = e.appendField(b, f)
	}
	if at, ok := ctx.Deadline(); ok {
		e.timeout = appendTimeout(e.timeout[:0], time.Until(at))
		b = header.AppendField(b, "grpc-timeout", string(e.timeout))
	}
	if e.propagate != nil {
		b = e.appendTrace(ctx, b)
	}
	frame.Put(b[start:], frame.Headers, frame.FlagEndHeaders, id)
	return b
}

// appendTrace appends the fields of W3C Trace Context. They differ in each request: the table has no use for them.
func (e *requestEncoder) appendTrace(ctx context.Context, b []byte) []byte {
	parent, state := e.propagate(ctx)
	if parent == "" {
		return b
	}
	b = header.AppendField(b, "traceparent", parent)
	if state != "" {
		b = header.AppendField(b, "tracestate", state)
	}
	return b
}

// appendField appends a field, and adds it to the table if there is room.
func (e *requestEncoder) appendField(b []byte, f field) []byte {
	before, ok := e.entries[f]
	switch {
	case e.off, !ok && len(e.entries) == maxEntries:
		return header.AppendField(b, f.name, f.value)
	case ok:
		return append(b, 0x80|byte(indexDynamic+len(e.entries)-1-before))
	}
	e.entries[f] = len(e.entries)
	return header.AppendNewField(b, f.name, f.value)
}

// appendTimeout appends the value of grpc-timeout: at most eight digits and a unit. A timeout that has passed is the least.
func appendTimeout(b []byte, d time.Duration) []byte {
	const most = 1e8 - 1
	d = max(d, 1)
	for _, unit := range []struct {
		name byte
		size time.Duration
	}{{'n', 1}, {'u', time.Microsecond}, {'m', time.Millisecond}} {
		if d/unit.size <= most {
			return append(strconv.AppendInt(b, int64(d/unit.size), 10), unit.name)
		}
	}
	return append(strconv.AppendInt(b, min(int64(d/time.Second), most), 10), 'S')
}
