package loadgen

import (
	"bytes"
	"fmt"
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

// HTTP returns streams of GET requests of HTTP/1.1 for paths, whose responses are 200 and have a body of size bytes.
func HTTP(paths []string, size int) func() Stream {
	requests := make([][]byte, len(paths))
	for i, path := range paths {
		requests[i] = []byte("GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	length := fmt.Appendf(nil, "ength: %d\r\n", size) // servers write Content-Length in two ways
	return func() Stream { return &http1{fixed{requests: requests, size: size}, length} }
}

type http1 struct {
	fixed
	length []byte
}

var (
	ok      = []byte("HTTP/1.1 200 ")
	headEnd = []byte("\r\n\r\n")
)

func (h *http1) Parse(b, out []byte) (n, responses int, _ []byte, err error) {
	for {
		end := bytes.Index(b[n:], headEnd)
		if end < 0 {
			return n, responses, out, nil
		}
		end += len(headEnd)
		if head := b[n : n+end]; !bytes.HasPrefix(head, ok) || !bytes.Contains(head, h.length) { //guard:http-status
			return 0, 0, out, fmt.Errorf("got %q, want 200 and a body of %d bytes", head, h.size)
		}
		if len(b)-n < end+h.size {
			return n, responses, out, nil
		}
		n += end + h.size
		responses++
	}
}
