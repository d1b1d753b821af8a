package httpapi

import (
	"errors"
	"strings"
	"unsafe"

	"github.com/ringside-cache/ringside/origin"
)

var errEscape = errors.New("a % is not followed by two hex digits; write a percent sign as %25")

// view returns b as a string without a copy: valid as long as b is not modified.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// keyPath returns the dataset and the key of a path, both escaped.
func keyPath(path string) (name, key string, ok bool) {
	rest, versioned := strings.CutPrefix(path, "/v1/")
	name, key, keyed := strings.Cut(rest, "/")
	return name, key, versioned && keyed
}

// originForm removes scheme and authority from an absolute-form request target (RFC 9112, 3.2.2). The authority then
// replaces the Host header.
func originForm(target, host string) (path, authority string) {
	if strings.HasPrefix(target, "/") {
		return target, host
	}
	_, rest, ok := strings.Cut(target, "://")
	if !ok {
		return target, host
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		return "/", rest
	}
	if rest[end] != '/' {
		return "/" + rest[end:], rest[:end]
	}
	return rest[end:], rest[:end]
}

// cutVerb splits a custom verb (":batchGet") from the name of a collection; verb is empty if there is none.
func cutVerb(path string) (collection, verb string) {
	i := strings.LastIndexByte(path, ':')
	if i < 0 {
		return path, ""
	}
	return path[:i], path[i:]
}

// unescape percent-decodes s (RFC 3986, 2.1) into scratch, or returns s itself if nothing is escaped. Paths are not
// cleaned: "//", "." and ".." are ordinary bytes of a key. With composite, s has one segment for each component of a key, and the
// result is the key's text (origin.JoinKey).
func unescape(s string, scratch []byte, composite bool) (string, []byte, error) {
	i := strings.IndexByte(s, '%')
	if i < 0 {
		return s, scratch, nil
	}
	scratch = append(scratch[:0], s[:i]...)
	for ; i < len(s); i++ {
		if s[i] != '%' {
			scratch = append(scratch, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", scratch, errEscape
		}
		hi, lo := unhex(s[i+1]), unhex(s[i+2])
		if hi > 15 || lo > 15 {
			return "", scratch, errEscape
		}
		if c := hi<<4 | lo; composite { //guard:slash-of-a-component-separates
			scratch = origin.AppendKeyComponent(scratch, []byte{c})
		} else {
			scratch = append(scratch, c)
		}
		i += 2
	}
	return view(scratch), scratch, nil
}

// unhex returns the value of a hex digit, or 255.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}
