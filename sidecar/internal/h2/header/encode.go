package header

import (
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Encoder encodes responses. It knows what the client's HPACK table has: nothing, or the two fields of every gRPC response.
type Encoder struct {
	size    uint32 // of the client's table, at most the default
	smaller bool   // the client has asked for a smaller size and was not told yet that it is used
	filled  bool   // it has the fields of AppendGRPCHeader and AppendGRPCTrailer
}

// NewEncoder returns the Encoder of a connection whose client has sent no SETTINGS.
func NewEncoder() Encoder { return Encoder{size: TableBytes} }

// Limit takes SETTINGS_HEADER_TABLE_SIZE. A table that is smaller than the default is not used.
func (t *Encoder) Limit(size uint32) {
	if size < t.size {
		t.size, t.smaller, t.filled = 0, true, false
	}
}

// Begin appends what must precede the fields of a block.
func (t *Encoder) Begin(b []byte) []byte {
	if t.smaller {
		t.smaller = false
		b = append(b, 0x20) // the size of the table is 0 (RFC 7541, 6.3)
	}
	return b
}

// Indices of the HPACK tables (RFC 7541, appendix A). The dynamic table begins at 62 with the field that was added last.
const (
	indexStatus200, indexContentType, indexFirstDynamic = 8, 31, 62
)

// ContentTypeGRPC is the content type of a gRPC call, to which a format such as +proto can be added.
const ContentTypeGRPC = "application/grpc"

// TableBytes is the size of an HPACK table (RFC 9113, 6.5.2).
const TableBytes = 4096

// AppendGRPCHeader appends the header of a successful gRPC response.
func (t *Encoder) AppendGRPCHeader(b []byte, contentType string) []byte {
	b = append(t.Begin(b), 0x80|indexStatus200)
	switch {
	case t.filled && contentType == ContentTypeGRPC:
		return append(b, 0x80|(indexFirstDynamic+1))
	case t.size > 0 && !t.filled && contentType == ContentTypeGRPC:
		return appendString(append(b, 0x40|indexContentType), contentType) // adds it to the table
	}
	return AppendField(b, "content-type", contentType)
}

// AppendGRPCTrailer appends the trailer of a successful gRPC response, after its header.
func (t *Encoder) AppendGRPCTrailer(b []byte, contentType string) []byte {
	switch {
	case t.filled:
		return append(b, 0x80|indexFirstDynamic)
	case t.size > 0 && contentType == ContentTypeGRPC:
		t.filled = true
		return appendString(appendString(append(b, 0x40), "grpc-status"), "0")
	}
	return AppendField(b, "grpc-status", "0")
}

// AppendField appends a field that is not added to the table (RFC 7541, 6.2.2).
func AppendField(b []byte, name, value string) []byte {
	return appendString(appendString(append(b, 0), name), value)
}

// AppendNewField appends a field that is added to the table (RFC 7541, 6.2.1).
func AppendNewField(b []byte, name, value string) []byte {
	return appendString(appendString(append(b, 0x40), name), value)
}

// AppendStatus appends :status, which comes first in a block.
func (t *Encoder) AppendStatus(b []byte, status int) []byte {
	b = t.Begin(b)
	if status == 200 {
		return append(b, 0x80|indexStatus200)
	}
	return append(b, indexStatus200, 3, byte('0'+status/100), byte('0'+status/10%10), byte('0'+status%10))
}

// appendString appends a string literal without Huffman coding (RFC 7541, 5.2).
func appendString(b []byte, s string) []byte {
	n := len(s)
	if n < 127 {
		return append(append(b, byte(n)), s...)
	}
	b = append(b, 127)
	for n -= 127; n >= 128; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(append(b, byte(n)), s...)
}

// AppendValues appends the values of a field, unless HTTP/2 forbids it or it is invalid.
func AppendValues(block []byte, name string, values []string) []byte {
	switch name = strings.ToLower(name); name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return block
	}
	if !httpguts.ValidHeaderFieldName(name) {
		return block
	}
	for _, value := range values {
		if httpguts.ValidHeaderFieldValue(value) {
			block = AppendField(block, name, value)
		}
	}
	return block
}
