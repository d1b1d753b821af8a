// Package header decodes and checks the headers and trailers of HTTP/2 requests, and encodes those of responses.
package header

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"
)

// Head is the header of a request, or its trailer, while it is decoded and afterwards.
type Head struct {
	Fields      []hpack.HeaderField // regular ones
	limit       int
	Size        int // RFC 9113, 6.5.2
	Method      string
	Path        string
	scheme      string
	Host        string // :authority, otherwise host
	ContentType string // content-type
	Length      int64  // content-length; -1 if there is none
	regular     bool   // a regular field was seen
	plain       bool   // it has only fields that do not change the answer of Fast
	Wrong       bool   // malformed (RFC 9113, 8.1.1)
	Expect      bool   // 100-continue
}

// Reset prepares h for the next header, whose list has at most limit bytes.
func (h *Head) Reset(limit int) {
	clear(h.Fields)
	*h = Head{Fields: h.Fields[:0], limit: limit, Length: -1, plain: true}
}

// GRPC reports whether it is one of a gRPC call.
func (h *Head) GRPC() bool { return strings.HasPrefix(h.ContentType, ContentTypeGRPC) }

// TooLarge reports whether it exceeds its limit. Then it has no fields.
func (h *Head) TooLarge() bool { return h.Size > h.limit }

// add takes the next field.
func (h *Head) add(f hpack.HeaderField) {
	if h.Size += int(f.Size()); h.TooLarge() {
		if f.Name == "content-type" && len(f.Value) < 64 {
			h.ContentType = f.Value // it decides how the request is refused; nothing else is kept
		}
		return
	}
	if !httpguts.ValidHeaderFieldValue(f.Value) {
		h.Wrong = true
		return
	}
	if f.IsPseudo() {
		h.addPseudo(f)
		return
	}
	h.regular = true
	h.addRegular(f)
	h.Fields = append(h.Fields, f)
}

func (h *Head) addPseudo(f hpack.HeaderField) {
	var field *string
	switch f.Name {
	case ":method":
		field = &h.Method
	case ":path":
		field = &h.Path
	case ":scheme":
		field = &h.scheme
	case ":authority":
		field = &h.Host
	}
	if field == nil || *field != "" || f.Value == "" || h.regular {
		h.Wrong = true
		return
	}
	*field = f.Value
}

func (h *Head) addRegular(f hpack.HeaderField) {
	switch f.Name {
	case "te":
		h.Wrong = h.Wrong || f.Value != "trailers"
	case "content-type":
		h.plain = h.plain && h.ContentType == ""
		h.ContentType = f.Value
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

func (h *Head) addUnusual(f hpack.HeaderField) {
	switch f.Name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		h.Wrong = true
	case "content-length":
		n, err := strconv.ParseUint(f.Value, 10, 62)
		h.Wrong = h.Wrong || err != nil || h.Length >= 0 && h.Length != int64(n)
		h.Length = int64(n)
	case "host":
		h.Wrong = h.Wrong || h.Host != "" && !strings.EqualFold(h.Host, f.Value)
		h.Host = f.Value
	case "expect":
		h.Expect = strings.EqualFold(f.Value, "100-continue")
	default:
		h.Wrong = h.Wrong || !validName(f.Name)
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

// CheckRequest checks what only the whole header shows.
func (h *Head) CheckRequest() {
	if h.TooLarge() {
		return
	}
	target := strings.HasPrefix(h.Path, "/") || h.Path == "*" && h.Method == http.MethodOptions
	if !httpguts.ValidHeaderFieldName(h.Method) || h.scheme != "http" && h.scheme != "https" || !target {
		h.Wrong = true
	}
}

// IsTrailer reports whether it has no pseudo-header fields.
func (h *Head) IsTrailer() bool {
	return h.Method == "" && h.Path == "" && h.scheme == "" && h.Host == ""
}

// Plain reports whether a Fast may answer the request.
func (h *Head) Plain() bool {
	return h.plain && h.Method == http.MethodPost &&
		(h.ContentType == ContentTypeGRPC || h.ContentType == ContentTypeGRPC+"+proto")
}

// Joined returns the value of a field; several are joined with commas (RFC 9110, 5.3). It is empty if there is none.
func (h *Head) Joined(name string) (value string) {
	for _, f := range h.Fields {
		switch {
		case f.Name != name:
		case value != "":
			value += "," + f.Value
		default:
			value = f.Value
		}
	}
	return value
}

// HTTP returns the fields as net/http has them.
func (h *Head) HTTP() http.Header {
	header := make(http.Header, len(h.Fields))
	values := make([]string, len(h.Fields)) // of all fields, with one allocation
	for i, f := range h.Fields {
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

// Target returns the path as net/http has it.
func (h *Head) Target() (*url.URL, error) {
	if h.Path == "*" {
		return &url.URL{Path: "*"}, nil
	}
	return url.ParseRequestURI(h.Path)
}
