package loadgen

import (
	"bytes"
	"fmt"
	"strings"
)

// Fixed returns streams of a protocol whose responses all have the same size and begin in the same way, such as those of Redis.
func Fixed(requests [][]byte, prefix string, size int) func() Stream {
	return func() Stream { return &fixed{requests, []byte(prefix), size} }
}

type fixed struct {
	requests [][]byte
	prefix   []byte
	size     int
}

func (f *fixed) Append(b []byte, i int) []byte { return append(b, f.requests[i%len(f.requests)]...) }

func (f *fixed) Parse(b, out []byte) (n, responses int, _ []byte, err error) {
	for ; len(b)-n >= len(f.prefix); n += f.size {
		if !bytes.HasPrefix(b[n:], f.prefix) {
			return 0, 0, out, fmt.Errorf("got %.80q, want %q", b[n:], f.prefix)
		}
		if len(b)-n < f.size {
			break
		}
		responses++
	}
	return n, responses, out, nil
}

// HTTP returns streams of GET requests of HTTP/1.1 for paths, with header fields, whose responses are 200 and have a body of size bytes.
func HTTP(paths []string, size int, fields ...string) func() Stream {
	requests := make([][]byte, len(paths))
	for i, path := range paths {
		requests[i] = []byte("GET " + path + " HTTP/1.1\r\n" + strings.Join(append([]string{"Host: localhost"}, fields...), "\r\n") + "\r\n\r\n")
	}
	length := fmt.Appendf(nil, "ength: %d\r\n", size) // servers write Content-Length in two ways
	return func() Stream { return &http1{fixed: fixed{requests: requests, size: size}, length: length} }
}

// http1 looks first where the last head ended and had its length: to search for them takes longer than the rest of a response,
// which would make HTTP look slower than protocols that need no search.
type http1 struct {
	fixed
	length  []byte
	end, at int // of the last head: its size, and where length is
}

// head returns the size of the head at the start of b, or -1 if it is incomplete.
func (h *http1) head(b []byte) int {
	if h.end > 0 && len(b) >= h.end && bytes.HasSuffix(b[:h.end], headEnd) {
		return h.end
	}
	end := bytes.Index(b, headEnd)
	if end < 0 {
		return -1
	}
	h.end = end + len(headEnd)
	return h.end
}

func (h *http1) hasLength(head []byte) bool {
	if h.at < len(head) && bytes.HasPrefix(head[h.at:], h.length) {
		return true
	}
	h.at = max(bytes.Index(head, h.length), 0)
	return bytes.HasPrefix(head[h.at:], h.length)
}

var (
	ok      = []byte("HTTP/1.1 200 ")
	headEnd = []byte("\r\n\r\n")
)

func (h *http1) Parse(b, out []byte) (n, responses int, _ []byte, err error) {
	for {
		end := h.head(b[n:])
		if end < 0 {
			return n, responses, out, nil
		}
		if head := b[n : n+end]; !bytes.HasPrefix(head, ok) || !h.hasLength(head) { //guard:http-status
			return 0, 0, out, fmt.Errorf("got %q, want 200 and a body of %d bytes", head, h.size)
		}
		if len(b)-n < end+h.size {
			return n, responses, out, nil
		}
		n += end + h.size
		responses++
	}
}
