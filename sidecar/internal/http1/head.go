package http1

import (
	"bytes"
	"encoding/binary"
	"strings"
	"unsafe"
)

// maxFields is how many fields one header may have: clients send less than fifty.
const maxFields = 128

// Chunked is the Length of content in chunks.
const Chunked = -1

// Head is the request line and the header of a request. Its strings lie in the buffer of its Reader: they are valid until
// the next head is read.
type Head struct {
	Method, Target, Version string
	Host                    string
	// Length is that of the content in bytes, or Chunked.
	Length int64
	// Close reports whether the client wants the connection to be closed after the response.
	Close bool
	// Continue reports whether the client sends the content only after the response 100 (RFC 9110, 10.1.1).
	Continue bool

	fields []field
	seen   framing
}

// field is one line of a header.
type field struct{ name, value string }

// framing is what the fields that decide where the request ends have shown so far.
type framing struct{ host, length, coding, keepAlive bool }

// HTTP11 reports whether the version is HTTP/1.1.
func (h *Head) HTTP11() bool { return h.Version == version11 }

// KeepAlive reports whether a client of HTTP/1.0 has asked for the connection to stay open.
func (h *Head) KeepAlive() bool { return h.seen.keepAlive }

// Joined returns the value of a field; several lines are joined with commas (RFC 9110, 5.3). It is empty if the field is
// absent, and one space if it has no value: a client that sends "If-Match:" means a condition.
func (h *Head) Joined(name string) string {
	value, found := "", false
	for _, f := range h.fields {
		switch {
		case len(f.name) != len(name) || !strings.EqualFold(f.name, name):
		case found:
			value += ", " + f.value
		default:
			value, found = f.value, true
		}
	}
	if found && value == "" {
		return " " //guard:empty-if-match-writes-unconditionally
	}
	return value
}

const version11, version10 = "HTTP/1.1", "HTTP/1.0"

// Faults of a request. Their texts are shown to clients.
const (
	errRequestLine   = Malformed("the request line is not a method, a target and a version with one space between them")
	errVersion       = Malformed("the version of the protocol is missing or malformed")
	errTarget        = Malformed("the request target is neither a path, nor a URL, nor * of OPTIONS")
	errLineEnd       = Malformed("a line does not end in CR LF")
	errFieldName     = Malformed("the name of a header field is not a token, or a space is beside it; a value has only one line")
	errFieldValue    = Malformed("the value of a header field has a control character")
	errLength        = Malformed("Content-Length is not one number")
	errCoding        = Malformed("the only Transfer-Encoding is one chunked, in HTTP/1.1 and without Content-Length")
	errHost          = Malformed("the Host header is missing, repeated or malformed (RFC 9112, 3.2)")
	errChunk         = Malformed("a chunk of the content is malformed")
	errTrailer       = Malformed("the trailer section of the content is malformed or too large")
	errContentCutOff = Malformed("the connection ended before the content")
)

func (h *Head) reset() {
	clear(h.fields) // the strings keep buffers alive
	*h = Head{fields: h.fields[:0]}
}

// parseRequestLine parses a line without its end.
func (h *Head) parseRequestLine(line []byte) error {
	method, rest, ok := bytes.Cut(line, space)
	target, version, ok2 := bytes.Cut(rest, space)
	switch {
	case !ok || !ok2 || !isToken(method):
		return errRequestLine
	case !isVersion(version):
		return errVersion
	}
	h.Method, h.Target, h.Version = view(method), view(target), view(version)
	return h.checkTarget()
}

var space = []byte{' '}

func isVersion(b []byte) bool {
	return len(b) == len(version11) && string(b[:5]) == "HTTP/" && isDigit(b[5]) && b[6] == '.' && isDigit(b[7])
}

// checkTarget accepts the four forms of RFC 9112, 3.2. Bytes beyond ASCII are allowed: users write them into URLs.
func (h *Head) checkTarget() error {
	t := h.Target
	scheme, _, absolute := strings.Cut(t, "://")
	switch {
	case t == "" || !isText(t) || strings.IndexByte(t, '\t') >= 0:
	case t[0] == '/', t == "*" && h.Method == "OPTIONS", h.Method == "CONNECT", absolute && isScheme(scheme):
		return nil
	}
	return errTarget
}

func isScheme(s string) bool {
	for i := range len(s) {
		c := s[i] | 0x20
		if !('a' <= c && c <= 'z') && (i == 0 || !isDigit(s[i]) && s[i] != '+' && s[i] != '-' && s[i] != '.') {
			return false
		}
	}
	return s != ""
}

// parseField parses a line of the header without its end.
func (h *Head) parseField(line []byte) error {
	f, err := cutField(line)
	if err != nil {
		return err
	}
	h.fields = append(h.fields, f)
	return h.parseFraming(f)
}

// cutField parses a line of a header or of a trailer section. A line that continues another (obs-fold) begins with a space,
// which no name has.
func cutField(line []byte) (field, error) {
	colon := bytes.IndexByte(line, ':')
	if colon < 0 || !isToken(line[:colon]) { //guard:space-in-field-name
		return field{}, errFieldName
	}
	value := view(trim(line[colon+1:]))
	if !isText(value) {
		return field{}, errFieldValue
	}
	return field{view(line[:colon]), value}, nil
}

func (h *Head) parseFraming(f field) (err error) {
	switch len(f.name) {
	case len("Host"):
		if strings.EqualFold(f.name, "Host") {
			h.Host, err = f.value, once(&h.seen.host, isHost(f.value), errHost)
		}
	case len("Expect"):
		if strings.EqualFold(f.name, "Expect") {
			h.Continue = strings.EqualFold(f.value, "100-continue")
		}
	case len("Connection"):
		if strings.EqualFold(f.name, "Connection") {
			h.Close = h.Close || hasOption(f.value, "close")
			h.seen.keepAlive = h.seen.keepAlive || hasOption(f.value, "keep-alive")
		}
	case len("Content-Length"):
		if strings.EqualFold(f.name, "Content-Length") {
			length, ok := parseLength(f.value)
			h.Length, err = length, once(&h.seen.length, ok, errLength)
		}
	case len("Transfer-Encoding"):
		if strings.EqualFold(f.name, "Transfer-Encoding") {
			err = once(&h.seen.coding, strings.EqualFold(f.value, "chunked"), errCoding)
		}
	}
	return err
}

// once returns fault unless a field is valid and the first of its name.
func once(seen *bool, valid bool, fault error) error {
	if *seen || !valid { //guard:repeated-framing-field
		return fault
	}
	*seen = true
	return nil
}

// finish checks what only the whole header shows.
func (h *Head) finish() error {
	switch {
	case h.HTTP11() && !h.seen.host:
		return errHost
	case h.seen.coding && (h.seen.length || !h.HTTP11()): //guard:two-framings
		return errCoding
	case h.seen.coding:
		h.Length = Chunked
	}
	if !h.HTTP11() {
		h.Continue = false // a client of HTTP/1.0 does not understand the response (RFC 9110, 10.1.1)
		h.Close = h.Close || !h.seen.keepAlive
	}
	return nil
}

// parseLength parses digits and nothing else: no sign, no space, no list.
func parseLength(s string) (n int64, ok bool) {
	if s == "" || len(s) > 18 {
		return 0, false
	}
	for i := range len(s) {
		if !isDigit(s[i]) {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}

// isHost reports whether s can be a host and a port (RFC 3986, 3.2.2). It may be empty.
func isHost(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || strings.IndexByte(`"/<>?@\^`+"`{|}#", s[i]) >= 0 {
			return false
		}
	}
	return true
}

// hasOption reports whether a comma-separated list has an option, in any case.
func hasOption(list, option string) bool {
	for len(list) >= len(option) {
		first, rest, _ := strings.Cut(list, ",")
		if strings.EqualFold(strings.Trim(first, " \t"), option) {
			return true
		}
		list = rest
	}
	return false
}

func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// tokenBytes are those of a token (RFC 9110, 5.6.2).
var tokenBytes = func() (is [256]bool) {
	for _, c := range []byte("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		is[c] = true
	}
	return is
}()

func isToken(b []byte) bool {
	for _, c := range b {
		if !tokenBytes[c] {
			return false
		}
	}
	return len(b) > 0
}

// isText reports whether s has no control character except tabs. It looks at eight bytes at a time.
func isText(s string) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	b := unsafe.Slice(unsafe.StringData(s), len(s))
	for ; len(b) >= 8; b = b[8:] {
		x := binary.LittleEndian.Uint64(b)
		low, del := (x-0x20*ones)&^x, ((x^0x7f*ones)-ones)&^(x^0x7f*ones) // a byte's top bit is set if it is below 0x20, or 0x7f
		if (low|del)&tops != 0 && !areText(b[:8]) {
			return false
		}
	}
	return areText(b)
}

func areText(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// view returns b as a string without a copy: valid as long as b is not modified.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
