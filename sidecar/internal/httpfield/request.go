// Package httpfield parses and writes the values of HTTP header fields. It is pure: it knows no server and no request.
package httpfield

import (
	"errors"
	"mime"
	"strconv"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

// MaxStaleness is the longest staleness that a request can accept: what larger numbers mean in RFC 9111, 1.2.2.
const MaxStaleness = 1 << 31 * time.Second

// ReadOptions returns the options that a Cache-Control field requests (RFC 9111, 5.2.1). As the RFC demands, it ignores
// other directives and malformed ones; of two max-stale directives the stricter one applies.
func ReadOptions(cacheControl string) (o kv.ReadOptions) {
	for cacheControl != "" {
		var directive string
		directive, cacheControl = nextElement(cacheControl)
		addDirective(&o, directive)
	}
	return o
}

func addDirective(o *kv.ReadOptions, directive string) {
	name, argument, hasArgument := strings.Cut(directive, "=")
	switch {
	case strings.EqualFold(directive, "no-cache"):
		o.NoCache = true
	case strings.EqualFold(directive, "only-if-cached"):
		o.OnlyIfCached = true
	case strings.EqualFold(name, "max-stale"):
		limit, ok := MaxStaleness, true
		if hasArgument {
			limit, ok = deltaSeconds(argument)
		}
		if ok && (!o.LimitStale || limit < o.MaxStale) {
			o.LimitStale, o.MaxStale = true, limit
		}
	}
}

// PrefersMinimal reports whether a Prefer field has return=minimal (RFC 7240, 4.2). Of two values the first one counts.
func PrefersMinimal(prefer string) bool {
	for prefer != "" {
		var preference string
		preference, prefer = nextElement(prefer)
		preference, _, _ = strings.Cut(preference, ";")
		name, value, _ := strings.Cut(preference, "=")
		if strings.EqualFold(strings.Trim(name, " \t"), "return") {
			value = strings.Trim(value, " \t")
			return value == "minimal" || value == `"minimal"`
		}
	}
	return false
}

// deltaSeconds parses the argument of a directive, a token or a quoted string (RFC 9111, 5.2).
func deltaSeconds(s string) (time.Duration, bool) {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	if !isDigits(s) {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n > int64(MaxStaleness/time.Second) {
		return MaxStaleness, true
	}
	return time.Duration(n) * time.Second, true
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// nextElement cuts the first element, without the white space around it, off a comma-separated list. Commas in quotes do
// not separate.
func nextElement(list string) (element, rest string) {
	quoted := false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			return strings.Trim(list[:i], " \t"), list[i+1:]
		}
	}
	return strings.Trim(list, " \t"), ""
}

// Version parses the version of a row.
func Version(s string) (int64, error) {
	s = strings.Trim(s, " \t")
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || !isDigits(s) {
		return 0, errors.New("a version is a whole number from 0 to 9223372036854775807")
	}
	return n, nil
}

// NoneMatch evaluates If-None-Match (RFC 9110, 13.1.2) by weak comparison: it is false if the client has the value of the
// strong etag.
func NoneMatch(field, etag string) bool { return !lists(field, etag, true) }

// StrongMatch evaluates If-Match of a read (RFC 9110, 13.1.1): a weak tag never matches.
func StrongMatch(field, etag string) bool { return lists(field, etag, false) }

// lists reports whether a list of entity tags contains a strong one. In an entity tag a backslash is an ordinary byte
// (RFC 9110, 8.8.3), and commas are allowed.
func lists(field, etag string, weak bool) bool {
	field = strings.Trim(field, " \t")
	if field == "*" {
		return true
	}
	for {
		open := strings.IndexByte(field, '"')
		if open < 0 {
			return false
		}
		length := strings.IndexByte(field[open+1:], '"')
		if length < 0 {
			return false
		}
		end := open + 1 + length + 1
		if field[open:end] == etag && (weak || !strings.HasSuffix(field[:open], "W/")) {
			return true
		}
		field = field[end:]
	}
}

// Trim removes the white space around a field's value. It keeps a field without a value, which is not an absent one.
func Trim(value string) string {
	if trimmed := strings.Trim(value, " \t"); trimmed != "" {
		return trimmed
	}
	return value
}

// IdempotencyKey parses a string of structured fields (RFC 8941, 3.3.3), the format of
// draft-ietf-httpapi-idempotency-key-header, or the bare characters that most clients send.
func IdempotencyKey(field string) (string, error) {
	id := strings.Trim(field, " \t")
	if strings.HasPrefix(id, `"`) {
		unquoted, ok := unquote(id)
		if !ok {
			return "", errors.New(`the closing quote is missing or not at the end; in a string write \" and \\`)
		}
		return unquoted, nil
	}
	if strings.ContainsAny(id, " ,;\"\\") {
		return "", errors.New("send one string in quotes")
	}
	return strings.Clone(id), nil
}

// unquote parses s as one quoted string (RFC 8941, 3.3.3).
func unquote(s string) (string, bool) {
	b := make([]byte, 0, len(s))
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return string(b), i == len(s)-1
		case c == '\\' && (i+1 == len(s) || s[i+1] != '"' && s[i+1] != '\\'):
			return "", false
		case c == '\\':
			i++
			b = append(b, s[i])
		default:
			b = append(b, c)
		}
	}
	return "", false
}

// IsUncoded reports whether a Content-Encoding field leaves the content as it is.
func IsUncoded(contentEncoding string) bool {
	return contentEncoding == "" || strings.EqualFold(contentEncoding, "identity")
}

// AllowsJSON reports whether content with a Content-Type field can be JSON. It accepts what `curl -d` sends for data of
// any kind, and no field at all: parsing shows whether the content is JSON.
func AllowsJSON(contentType string) bool {
	if contentType == "" {
		return true
	}
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (media == "application/json" || media == "application/x-www-form-urlencoded")
}
