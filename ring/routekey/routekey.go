// Package routekey writes and reads route keys: the text that the ring hashes for a key of a dataset, which is also its URL
// path.
package routekey

import (
	"fmt"
	"net/url"
	"strings"
)

// Format returns the printable string that the ring hashes for a key of a dataset: "dataset/key", with each byte other
// than an RFC 3986 pchar (unreserved, sub-delims, ":", "@") and the slashes of the key percent-encoded in upper-case hex.
// The escapes of a composite key, %25 and %2F (origin.JoinKey), stay as they are. So it is the canonical URL path after /v1/, except
// for a key of one column that contains these texts (Path), and the value of the header ringside-key.
func Format(dataset, key string) string {
	return string(Append(make([]byte, 0, len(dataset)+1+len(key)), dataset, key))
}

// Path returns the canonical URL path after /v1/ of a key of one column.
func Path(dataset, key string) string {
	dst := append(appendEscaped(make([]byte, 0, len(dataset)+1+len(key)), dataset, segment), '/')
	return string(appendEscaped(dst, key, slashes))
}

// Append appends Format(dataset, key) to dst. It allocates only when dst has to grow.
func Append(dst []byte, dataset, key string) []byte {
	dst = appendEscaped(dst, dataset, segment)
	dst = append(dst, '/')
	return appendEscaped(dst, key, composite)
}

// Parse is the inverse of Path. It also accepts other spellings of the same path (lower-case hex, unnecessary
// escapes): they have another hash but mean the same key. The error names the wrong byte.
func Parse(routeKey string) (dataset, key string, err error) {
	if err := checkBytes(routeKey); err != nil {
		return "", "", err
	}
	dataset, key, found := strings.Cut(routeKey, "/")
	if !found {
		return "", "", fmt.Errorf("route key %q has no slash: want dataset/key", routeKey)
	}
	if dataset, err = url.PathUnescape(dataset); err != nil {
		return "", "", fmt.Errorf("dataset of route key %q: %w", routeKey, err)
	}
	if key, err = url.PathUnescape(key); err != nil {
		return "", "", fmt.Errorf("key of route key %q: %w", routeKey, err)
	}
	return dataset, key, nil
}

func checkBytes(routeKey string) error {
	for i := range len(routeKey) {
		if c := routeKey[i]; !pchar(c) && c != '/' && c != '%' {
			return fmt.Errorf("byte %d of route key %q must be escaped as %%%02X", i, routeKey, c)
		}
	}
	return nil
}

// form says which bytes need no escape, in addition to a pchar.
type form int

const (
	segment   form = iota // none
	slashes               // slashes
	composite             // slashes, and the escapes of a composite key
)

func appendEscaped(dst []byte, s string, f form) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		if c := s[i]; pchar(c) || c == '/' && f >= slashes || c == '%' && f == composite && isEscape(s[i:]) { //guard:composite-key-has-another-route
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		}
	}
	return dst
}

// isEscape reports whether s begins with an escape of a composite key.
func isEscape(s string) bool { return strings.HasPrefix(s, "%25") || strings.HasPrefix(s, "%2F") }

// pchar reports whether c needs no escape in a path segment (RFC 3986, 3.3).
func pchar(c byte) bool {
	switch c {
	case '-', '.', '_', '~', // unreserved, with letters and digits
		'!', '$', '&', '\'', '(', ')', '*', '+', ',', ';', '=', // sub-delims
		':', '@':
		return true
	}
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
