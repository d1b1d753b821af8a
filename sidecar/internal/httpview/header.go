package httpview

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// column is a column of the row as a header field.
type column struct{ header, name string }

// The header fields that have a meaning for the connection, for caches, for browsers or for proxies, or that Ringside sends.
var (
	ownHeaders = []string{
		"Accept-Ranges", "Age", "Allow", "Alt-Svc", "Authorization", "Cache-Control", "Cache-Status", "Clear-Site-Data", "Connection",
		"Date", "Etag", "Expect", "Expires", "Host", "Keep-Alive", "Last-Modified", "Link", "Location", "Nel", "Pragma",
		"Preference-Applied", "Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Authorization", "Proxy-Connection", "Refresh",
		"Report-To", "Reporting-Endpoints", "Retry-After", "Server", "Set-Cookie", "Sourcemap", "Strict-Transport-Security", "Te",
		"Trailer", "Transfer-Encoding", "Upgrade", "Vary", "Via", "Warning", "Www-Authenticate", "X-Content-Type-Options",
		"X-Frame-Options", "X-Xss-Protection",
	}
	ownPrefixes = []string{
		"Access-Control-", "Content-", "Cross-Origin-", "Grpc-", "Origin-Agent-", "Permissions-", "Referrer-", "Ringside-", "Sec-", "X-Accel-",
		"X-Envoy-",
	}
)

func (c *compiler) headers() {
	for _, name := range slices.Sorted(maps.Keys(c.fields.Headers)) {
		canonical, field := http.CanonicalHeaderKey(name), "headers."+name
		reserved := slices.Contains(ownHeaders, canonical)
		for _, prefix := range ownPrefixes {
			reserved = reserved || strings.HasPrefix(canonical, prefix)
		}
		switch {
		case !isToken(name) || len(name) > 64:
			c.problem(field, "want the name of a header field: letters, digits and '-', at most 64; got %q", name)
		case reserved: //guard:column-becomes-a-field-of-the-connection
			c.problem(field, "HTTP or Ringside gives this field its meaning; want another name, such as X-Tenant")
		case c.fields.Headers[name] == "":
			c.problem(field, "is empty; want the name of a column")
		case slices.ContainsFunc(c.view.columns, func(o column) bool { return o.header == canonical }):
			c.problem(field, "names of header fields have no case: there is another one that differs in case only")
		}
		c.view.columns = append(c.view.columns, column{canonical, c.fields.Headers[name]})
	}
	if len(c.fields.Headers) > MaxHeaders {
		c.problem("headers", "at most %d fields; got %d", MaxHeaders, len(c.fields.Headers))
	}
}

// isToken reports whether s is a token of RFC 9110, 5.6.2, of letters, digits, '-' and '_'.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '-' && c != '_' && !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9') {
			return false
		}
	}
	return s != ""
}

// MaxHeaderBytes limits the value of one header field, and those of a row together: proxies accept little more of a response.
const MaxHeaderBytes = 4096

// ErrHeaders is the error of a row whose columns cannot be header fields. It must be an error for the client: a proxy may take the
// absence of a field for a decision, or pass on the one that its own client has sent.
var ErrHeaders = errors.New("the row cannot be sent as header fields")

// Headers returns how many header fields are columns.
func (v *View) Headers() int {
	if v == nil {
		return 0
	}
	return len(v.columns)
}

// HeaderName returns the name of the header field i, in canonical form.
func (v *View) HeaderName(i int) string { return v.columns[i].header }

// AppendHeader appends the value of the header field i for a row, which is a JSON object: a string as it is, any other value as JSON. It
// reports whether the row has one: a column that is null, or not in the row, has none.
//
// A control character and a blank at either end are percent-encoded, and so is a % before two hex digits, so that different values
// stay different, and percent-decoding returns each: nothing in a row ends a header field.
func (v *View) AppendHeader(b, row []byte, i int) (_ []byte, ok bool, err error) {
	r := members{rest: row}
	if !r.take('{') {
		return b, false, ErrHeaders
	}
	for !r.take('}') {
		name, value, ok := r.next()
		if !ok {
			return b, false, ErrHeaders
		}
		if isString(name, v.columns[i].name) {
			if string(value) == "null" {
				return b, false, nil
			}
			from := len(b)
			if b, err = appendField(b, value); err == nil && len(b)-from > MaxHeaderBytes {
				err = ErrHeaders
			}
			return b, err == nil, err
		}
	}
	return b, false, nil
}

// isString reports whether a JSON string, with its quotes, is s.
func isString(text []byte, s string) bool {
	if inner := text[1 : len(text)-1]; slices.Contains(inner, '\\') {
		decoded, err := decode(text)
		return err == nil && string(decoded) == s
	}
	return string(text[1:len(text)-1]) == s
}

// decode returns a JSON string with its escapes decoded.
func decode(text []byte) ([]byte, error) {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, ErrHeaders
	}
	return []byte(s), nil
}

// appendField appends a JSON value as that of a header field.
func appendField(b, value []byte) (_ []byte, err error) {
	if len(value) > 6*MaxHeaderBytes+2 { // an escape has at most 6 bytes
		return b, ErrHeaders
	}
	if value[0] == '"' {
		if slices.Contains(value, '\\') {
			if value, err = decode(value); err != nil {
				return b, err
			}
		} else {
			value = value[1 : len(value)-1]
		}
	}
	for i, c := range value {
		edge := c == ' ' && (i == 0 || i == len(value)-1)
		escape := c == '%' && i+2 < len(value) && isHex(value[i+1]) && isHex(value[i+2])
		if c < ' ' || c == 0x7f || edge || escape { //guard:column-ends-the-header-field
			const digits = "0123456789ABCDEF"
			b = append(b, '%', digits[c>>4], digits[c&15])
			continue
		}
		b = append(b, c)
	}
	return b, nil
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}
