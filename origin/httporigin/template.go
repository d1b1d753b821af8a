package httporigin

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/origin"
)

// maxTemplate limits a template in bytes: with keys of 1 KiB, of which each byte may become three, URLs stay below the 8 KiB that
// servers accept (RFC 9110, section 4.1).
const maxTemplate = 4 << 10

// template makes the path and query of a key. A component of the key fills one place, from which it cannot escape.
type template struct {
	columns []string
	path    [][]piece // the segments, without their slashes
	query   []piece
}

// piece is escaped text, or the component of a key.
type piece struct {
	text   string
	column int // -1 for text
}

// unknownVariable is what is taken for a misspelled variable. Other braces are text, as those of PromQL.
var unknownVariable = regexp.MustCompile(`\{[A-Za-z0-9_-]*\}`)

// parseTemplate parses a template for a key of these columns; none are one column, key.
func parseTemplate(text string, columns []string) (*template, error) {
	if len(columns) == 0 {
		columns = []string{"key"}
	}
	switch {
	case !strings.HasPrefix(text, "/") || strings.HasPrefix(text, "//"):
		return nil, errors.New("want a path that begins with one slash; scheme, host and port are in the dsn of the origin")
	case len(text) > maxTemplate:
		return nil, fmt.Errorf("has %d bytes; at most %d are allowed", len(text), maxTemplate)
	case !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\\' || r == '#' }):
		return nil, errors.New("has a control character, a backslash or a #; percent-encode them")
	}
	for _, c := range columns {
		if !strings.Contains(text, "{"+c+"}") {
			return nil, fmt.Errorf("does not contain {%s}, which stands for the key", c)
		}
	}
	path, query, _ := strings.Cut(text, "?")
	t := &template{columns: columns}
	if err := t.parsePath(path); err != nil {
		return nil, err
	}
	return t, t.parseQuery(query)
}

func (t *template) parsePath(path string) error {
	for segment := range strings.SplitSeq(path[1:], "/") {
		pieces, err := t.pieces(segment, ":@")
		if err != nil {
			return err
		}
		if decoded, err := url.PathUnescape(segment); err != nil || isDots(decoded) || strings.ContainsAny(decoded, `/\`) {
			return errors.New("has a segment . or .., or an encoded slash or backslash; write the path without them")
		}
		t.path = append(t.path, pieces)
	}
	return nil
}

func (t *template) parseQuery(query string) (err error) {
	for i, field := range strings.Split(query, "&") {
		name, _, _ := strings.Cut(field, "=")
		if slices.ContainsFunc(t.columns, func(c string) bool { return strings.Contains(name, "{"+c+"}") }) {
			return errors.New("has the key in the name of a parameter; want it in a value, as in ?name={key}")
		}
		pieces, err := t.pieces(field, ":@/?=")
		if err != nil {
			return err
		}
		if i > 0 {
			t.query = append(t.query, piece{"&", -1})
		}
		t.query = append(t.query, pieces...)
	}
	return nil
}

// pieces splits text at its variables. Characters that a URL cannot have there are percent-encoded.
func (t *template) pieces(text, allowed string) (list []piece, err error) {
	for text != "" {
		at, column := len(text), -1
		for i, c := range t.columns {
			if n := strings.Index(text, "{"+c+"}"); n >= 0 && n < at {
				at, column = n, i
			}
		}
		literal := text[:at]
		if unknown := unknownVariable.FindString(literal); unknown != "" {
			return nil, fmt.Errorf("has the unknown variable %s; want {%s}", unknown, strings.Join(t.columns, "}, {"))
		}
		if literal != "" {
			if _, err := url.PathUnescape(literal); err != nil {
				return nil, errors.New("has a % that begins no percent-encoding: write it as %25")
			}
			list = append(list, piece{escape(literal, "%+!$'()*,;"+allowed), -1})
		}
		if column < 0 {
			break
		}
		list = append(list, piece{"", column})
		text = text[at+len(t.columns[column])+2:]
	}
	return list, nil
}

// expand returns the path and query of a key. Its errors wrap origin.ErrInvalidKey.
func (t *template) expand(key string) (string, error) {
	if !utf8.ValidString(key) || strings.Contains(key, "\x00") {
		return "", invalidKey("want UTF-8 without NUL")
	}
	values, err := origin.SplitKey(key, t.columns)
	if err != nil {
		return "", invalidKey(err.Error())
	}
	var b strings.Builder
	for _, pieces := range t.path {
		segment, isFromKey, err := fill(pieces, values)
		if err != nil {
			return "", err
		}
		if isFromKey && (segment == "" || isDots(segment)) { //guard:key-leaves-its-path-segment
			return "", invalidKey("it would be an empty segment of the path, . or ..")
		}
		b.WriteString("/" + segment)
	}
	for i, p := range t.query {
		if i == 0 {
			b.WriteByte('?')
		}
		b.WriteString(p.text)
		if p.column >= 0 {
			b.WriteString(escape(values[p.column], ""))
		}
	}
	return b.String(), nil
}

// fill returns a segment of the path, escaped.
func fill(pieces []piece, values []string) (segment string, isFromKey bool, err error) {
	for _, p := range pieces {
		if segment += p.text; p.column < 0 {
			continue
		}
		// Proxies decode %2F and %0D, and then see other segments, or another header field.
		if strings.ContainsFunc(values[p.column], func(r rune) bool { return r < ' ' || r == 0x7f || r == '/' || r == '\\' }) { //guard:encoded-slash-of-a-key
			return "", true, invalidKey("it has a slash, a backslash or a control character, which a path cannot hold safely: put the key into a query parameter")
		}
		segment, isFromKey = segment+escape(values[p.column], ""), true
	}
	return segment, isFromKey, nil
}

func isDots(segment string) bool { return segment == "." || segment == ".." }

func invalidKey(why string) error { return fmt.Errorf("%w: %s", origin.ErrInvalidKey, why) }

// escape percent-encodes everything except the unreserved characters of RFC 3986 and those allowed.
func escape(s, allowed string) string {
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(s))
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("-._~"+allowed, c) >= 0:
			b = append(b, c)
		default:
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}
