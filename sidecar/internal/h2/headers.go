package h2

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"

	"github.com/ringside-cache/ringside/sidecar/internal/headerlimit"
)

// head is the header of a request, or its trailer, while it is decoded and afterwards.
type head struct {
	fields  []hpack.HeaderField // regular ones
	limit   int
	size    int // RFC 9113, 6.5.2
	method  string
	path    string
	scheme  string
	host    string // :authority, otherwise host
	content string // content-type
	length  int64  // content-length; -1 if there is none
	regular bool   // a regular field was seen
	plain   bool   // it has only fields that do not change the answer of Fast
	wrong   bool   // malformed (RFC 9113, 8.1.1)
	expect  bool   // 100-continue
}

func (h *head) reset(limit int) {
	clear(h.fields)
	*h = head{fields: h.fields[:0], limit: limit, length: -1, plain: true}
}

func (h *head) grpc() bool     { return strings.HasPrefix(h.content, grpcContentType) }
func (h *head) tooLarge() bool { return h.size > h.limit }

// add takes the next field.
func (h *head) add(f hpack.HeaderField) {
	if h.size += int(f.Size()); h.tooLarge() {
		if f.Name == "content-type" && len(f.Value) < 64 {
			h.content = f.Value // it decides how the request is refused; nothing else is kept
		}
		return
	}
	if !httpguts.ValidHeaderFieldValue(f.Value) {
		h.wrong = true
		return
	}
	if f.IsPseudo() {
		h.addPseudo(f)
		return
	}
	h.regular = true
	h.addRegular(f)
	h.fields = append(h.fields, f)
}

func (h *head) addPseudo(f hpack.HeaderField) {
	var field *string
	switch f.Name {
	case ":method":
		field = &h.method
	case ":path":
		field = &h.path
	case ":scheme":
		field = &h.scheme
	case ":authority":
		field = &h.host
	}
	if field == nil || *field != "" || f.Value == "" || h.regular {
		h.wrong = true
		return
	}
	*field = f.Value
}

func (h *head) addRegular(f hpack.HeaderField) {
	switch f.Name {
	case "te":
		h.wrong = h.wrong || f.Value != "trailers"
	case "content-type":
		h.plain = h.plain && h.content == ""
		h.content = f.Value
	case "grpc-encoding":
		h.plain = h.plain && f.Value == "identity"
	case "grpc-timeout":
		h.plain = h.plain && validTimeout(f.Value)
	case "user-agent", "grpc-accept-encoding", "accept-encoding":
	default:
		h.plain = h.plain && ignorable(f.Name)
		h.addUnusual(f)
	}
}

// ignorable reports whether a field is metadata, such as a trace id, that only a handler might look at. Fast has no
// permissions to give: it leaves requests with credentials to the handler, and so what may be malformed.
func ignorable(name string) bool {
	switch name {
	case "authorization", "content-length", "host", "expect", "cookie": //guard:h2-fast-answer-ignores-credentials
		return false
	}
	return !strings.HasPrefix(name, "grpc-") && !strings.HasSuffix(name, "-bin") && !strings.HasPrefix(name, "content-")
}

// validTimeout reports whether the value of grpc-timeout is one: digits and a unit.
func validTimeout(value string) bool {
	digits := strings.TrimRight(value, "HMSmun")
	if len(digits)+1 != len(value) || len(digits) == 0 || len(digits) > 8 {
		return false
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return false
		}
	}
	return true
}

func (h *head) addUnusual(f hpack.HeaderField) {
	switch f.Name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		h.wrong = true
	case "content-length":
		n, err := strconv.ParseUint(f.Value, 10, 62)
		h.wrong = h.wrong || err != nil || h.length >= 0 && h.length != int64(n)
		h.length = int64(n)
	case "host":
		h.wrong = h.wrong || h.host != "" && !strings.EqualFold(h.host, f.Value)
		h.host = f.Value
	case "expect":
		h.expect = strings.EqualFold(f.Value, "100-continue")
	default:
		h.wrong = h.wrong || !validName(f.Name)
	}
}

// validName reports whether a field name is valid; HTTP/2 allows no capital letters.
func validName(name string) bool {
	for i := range len(name) {
		if c := name[i]; 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return httpguts.ValidHeaderFieldName(name)
}

// checkRequest checks what only the whole header shows.
func (h *head) checkRequest() {
	if h.tooLarge() {
		return
	}
	target := strings.HasPrefix(h.path, "/") || h.path == "*" && h.method == http.MethodOptions
	if !httpguts.ValidHeaderFieldName(h.method) || h.scheme != "http" && h.scheme != "https" || !target {
		h.wrong = true
	}
}

func (h *head) isTrailer() bool {
	return h.method == "" && h.path == "" && h.scheme == "" && h.host == ""
}

// fast reports whether Fast may answer.
func (h *head) fast() bool {
	return h.plain && h.method == http.MethodPost &&
		(h.content == grpcContentType || h.content == grpcContentType+"+proto")
}

// header returns the fields as net/http has them.
func (h *head) header() http.Header {
	header := make(http.Header, len(h.fields))
	values := make([]string, len(h.fields)) // of all fields, with one allocation
	for i, f := range h.fields {
		name := canonical(f.Name)
		if old, ok := header[name]; !ok {
			values[i] = f.Value
			header[name] = values[i : i+1 : i+1]
		} else if name == "Cookie" {
			old[0] += "; " + f.Value // RFC 9113, 8.2.3
		} else {
			header[name] = append(old, f.Value)
		}
	}
	delete(header, "Host")
	return header
}

// canonical is http.CanonicalHeaderKey without an allocation for the fields of gRPC.
func canonical(name string) string {
	switch name {
	case "te":
		return "Te"
	case "grpc-timeout":
		return "Grpc-Timeout"
	case "grpc-encoding":
		return "Grpc-Encoding"
	case "grpc-accept-encoding":
		return "Grpc-Accept-Encoding"
	}
	return http.CanonicalHeaderKey(name)
}

// readHeaders reads a header block: HEADERS and its CONTINUATION frames, between which no other frame is allowed.
func (c *conn) readHeaders(f frame) error {
	if f.id%2 == 0 {
		return codeProtocol
	}
	c.in.head.reset(c.server.config.MaxHeaderBytes)
	block := block{conn: c}
	defer block.close()
	err := block.read(f)
	for n := 0; err == nil && !block.complete; n++ {
		if n == maxContinuations { //guard:h2-continuation-flood
			c.server.stats.Floods.Add(1)
			return codeEnhanceYourCalm
		}
		err = block.readContinuation(f.id)
	}
	if err != nil {
		return err
	}
	if block.selfDependent {
		c.last = max(c.last, f.id)
		return c.resetID(f.id, codeProtocol)
	}
	return c.onHeaders(f)
}

// block is a header block that is being read.
type block struct {
	conn          *conn
	bytes         []byte // what did not arrive in one piece
	charged       int64
	complete      bool
	selfDependent bool
}

func (b *block) close() { b.conn.memory.release(b.charged) }

func (b *block) readContinuation(id uint32) error {
	c := b.conn
	if err := c.need(frameHeaderBytes); err != nil {
		return err
	}
	f := parseFrame(c.in.buf[c.in.r:])
	switch {
	case f.kind != frameContinuation || f.id != id:
		return codeProtocol
	case f.length > frameSize:
		return codeFrameSize
	}
	c.in.r += frameHeaderBytes
	f.flags &= flagEndHeaders
	return b.read(f)
}

func (b *block) read(f frame) error {
	whole := len(b.bytes) == 0 && f.has(flagEndHeaders)
	start := len(b.bytes)
	if err := b.conn.eachPart(f.length, func(part []byte, last bool) error {
		if whole && last && len(b.bytes) == 0 {
			return b.decode(f, part) // from the buffer of the connection, without a copy
		}
		whole = false
		return b.keep(part)
	}); err != nil || whole {
		b.complete = true
		return err
	}
	fragment, err := b.fragment(f, b.bytes[start:])
	if err != nil {
		return err
	}
	b.bytes = append(b.bytes[:start], fragment...)
	if f.has(flagEndHeaders) {
		b.complete = true
		return b.write(b.bytes)
	}
	return nil
}

// keep keeps a part of a block. Its memory is charged like that of a message.
func (b *block) keep(part []byte) error {
	n := len(b.bytes) + len(part)
	if n > headerlimit.ParsedBytes {
		b.conn.server.stats.TooLarge.Add(1)
		return codeEnhanceYourCalm
	}
	if grown := max(n, 2*cap(b.bytes), 1<<10); n > cap(b.bytes) {
		if !b.conn.memory.take(int64(grown - cap(b.bytes))) {
			b.conn.server.stats.Refused.Add(1)
			return codeEnhanceYourCalm // the state of the compression would be lost
		}
		b.charged += int64(grown - cap(b.bytes))
		b.bytes = append(make([]byte, 0, grown), b.bytes...)
	}
	b.bytes = append(b.bytes, part...)
	return nil
}

func (b *block) decode(f frame, payload []byte) error {
	fragment, err := b.fragment(f, payload)
	if err != nil {
		return err
	}
	return b.write(fragment)
}

// fragment returns the part of the payload that belongs to the block.
func (b *block) fragment(f frame, payload []byte) ([]byte, error) {
	payload, err := unpad(f, payload)
	if err != nil || !f.has(flagPriority) {
		return payload, err
	}
	if len(payload) < 5 {
		return nil, codeFrameSize
	}
	b.selfDependent = parseFrame(append([]byte{0, 0, 0, 0, 0}, payload[:4]...)).id == f.id
	return payload[5:], nil
}

// unpad removes the padding of DATA or HEADERS.
func unpad(f frame, payload []byte) ([]byte, error) {
	if !f.has(flagPadded) {
		return payload, nil
	}
	if len(payload) == 0 {
		return nil, codeFrameSize
	}
	padding := int(payload[0])
	if padding >= len(payload) {
		return nil, codeProtocol
	}
	return payload[1 : len(payload)-padding], nil
}

func (b *block) write(bytes []byte) error {
	decoder := b.conn.in.decoder
	if _, err := decoder.Write(bytes); err != nil {
		return codeCompression
	}
	if decoder.Close() != nil {
		return codeCompression // it ends within a field
	}
	return nil
}

// request returns the request of a stream as net/http has it. Called without mu; the header does not change any more.
func (s *stream) request(ctx context.Context) (*http.Request, error) {
	h := &s.head
	target, err := h.target()
	if err != nil {
		return nil, err
	}
	b := &body{stream: s, announced: h.expect}
	b.request = (&http.Request{
		Method: h.method, URL: target, Host: h.host, RequestURI: h.path, Header: h.header(), ContentLength: h.length, Body: b,
		Proto: "HTTP/2.0", ProtoMajor: 2, RemoteAddr: s.conn.nc.RemoteAddr().String(), TLS: s.conn.tls,
	}).WithContext(ctx)
	if s.empty {
		b.request.ContentLength, b.request.Body = 0, http.NoBody
	}
	return b.request, nil
}

func (h *head) target() (*url.URL, error) {
	if h.path == "*" {
		return &url.URL{Path: "*"}, nil
	}
	return url.ParseRequestURI(h.path)
}
