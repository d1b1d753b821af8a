package local

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/ringside-cache/ringside/sidecar/cache"
)

var errEscape = errors.New("a % is not followed by two hex digits; write a percent sign as %25")

// originForm takes scheme and authority off an absolute-form request target (RFC 9112, 3.2.2), which then stands in for
// the Host header.
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

// cutVerb takes the custom verb (":batchGet") off a collection's name; verb is empty where there is none.
func cutVerb(path string) (collection, verb string) {
	i := strings.LastIndexByte(path, ':')
	if i < 0 {
		return path, ""
	}
	return path[:i], path[i:]
}

// unescape percent-decodes s (RFC 3986, 2.1) into scratch, or returns s itself when nothing is escaped. The path is not
// cleaned: "//", "." and ".." are bytes of a key like any other.
func unescape(s string, scratch []byte) (string, []byte, error) {
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
		scratch = append(scratch, hi<<4|lo)
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

// checkKey says what is wrong with a decoded key, if anything.
func checkKey(key string) error {
	switch {
	case key == "":
		return errors.New("the key is empty")
	case len(key) > cache.MaxKeyBytes:
		return fmt.Errorf("the key has %d bytes; at most %d are allowed", len(key), cache.MaxKeyBytes)
	case !utf8.ValidString(key):
		return errors.New("the key is not valid UTF-8")
	}
	return nil
}

// nearNames returns the names that somebody who wrote name may have meant, at most three.
func nearNames(name string, all []Served) []string {
	near := []string{}
	for _, s := range all {
		if len(near) < 3 && isNear(name, s.Name()) {
			near = append(near, s.Name())
		}
	}
	return near
}

func isNear(asked, name string) bool {
	const longest = 64 // keeps the comparison of absurd names cheap
	if asked == "" || len(asked) > longest || len(name) > longest {
		return false
	}
	asked, name = strings.ToLower(asked), strings.ToLower(name)
	return strings.HasPrefix(name, asked) || editDistance(asked, name) <= 1+len(name)/4
}

// editDistance counts the bytes to insert, delete or replace to make b out of a (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
