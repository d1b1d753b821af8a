package respserver_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
	"github.com/ringside-cache/ringside/sidecar/local/respserver"
	"github.com/ringside-cache/ringside/sidecar/local/watch"
)

// sent is a connection whose client has sent some bytes and closed its side.
type sent struct {
	in io.Reader

	mu  sync.Mutex // guards out
	out bytes.Buffer
}

func (c *sent) Read(b []byte) (int, error) { return c.in.Read(b) }

func (c *sent) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Write(b)
}

func (c *sent) Close() error                     { return nil }
func (c *sent) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (c *sent) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (c *sent) SetDeadline(time.Time) error      { return nil }
func (c *sent) SetReadDeadline(time.Time) error  { return nil }
func (c *sent) SetWriteDeadline(time.Time) error { return nil }

// cutReply returns what follows a well-formed reply of the protocol.
func cutReply(b []byte) (rest []byte, err error) {
	line, rest, ok := bytes.Cut(b, []byte("\r\n"))
	if !ok || len(line) == 0 {
		return nil, fmt.Errorf("no line: %.80q", b)
	}
	text := string(line[1:])
	switch line[0] {
	case '+', '-':
		if strings.ContainsAny(text, "\r\n") {
			return nil, fmt.Errorf("a line break in %q", line)
		}
		return rest, nil
	case '_':
		if text != "" {
			return nil, fmt.Errorf("null with %q", text)
		}
		return rest, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("%.80q: %w", line, err)
	}
	switch line[0] {
	case ':':
		return rest, nil
	case '$':
		if n < 0 {
			return rest, nil
		}
		if len(rest) < n+2 || string(rest[n:n+2]) != "\r\n" {
			return nil, fmt.Errorf("a string of %d bytes is cut off", n)
		}
		return rest[n+2:], nil
	case '%':
		n *= 2
	case '*', '>':
	default:
		return nil, fmt.Errorf("an unknown type: %.80q", line)
	}
	for ; n > 0 && err == nil; n-- {
		rest, err = cutReply(rest)
	}
	return rest, err
}

// FuzzConnection sends any bytes over one connection: the server ends it in time, without a defect, its replies are well-formed, and it
// returns all memory.
func FuzzConnection(f *testing.F) {
	for _, s := range []string{
		pack("GET", "rows:a") + pack("MGET", "rows:a", "rows:none", "x"), pack("HELLO", "3") + pack("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "rows:"),
		pack("SETNX", "rows:a", "v") + pack("MSET", "rows:a", "1", "rows:c", "2", "rows:", "3") + pack("SET", "rows:a", "v", "NX") + pack("SET", "rows:a", "w", "IFEQ", "v") + pack("DEL", "rows:a", "rows:b") + pack("EXISTS", "rows:a"),
		pack("MULTI") + pack("GET", "rows:a") + pack("EXEC") + pack("DISCARD"), pack("SCAN", "0", "MATCH", "rows:*", "COUNT", "10"),
		pack("HELLO", "3", "AUTH", "u", "p", "SETNAME", "n") + pack("INFO") + pack("COMMAND", "INFO", "get", "nope"), "PING\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
		pack("CLIENT", "TRACKING", "ON", "OPTIN") + pack("CLIENT", "CACHING", "YES") + pack("GET", "rows:a") + pack("SET", "rows:a", "2"),
		"*1\r\n$-1\r\n", "*2\r\n$3\r\nGET\r\n$99999999999\r\n", "*1000000\r\n", "*-1\r\n", "\r\n\r\n", "*1\r\n$4\r\nPI", "\xff\x00", pack("ECHO", "\r\n+OK\r\n"),
		pack("TTL", "rows:a") + pack("PTTL", "rows:") + pack("STRLEN", "rows:a") + pack("SELECT", "1") + pack("RESET") + pack("QUIT") + pack("PING"),
	} {
		f.Add([]byte(s))
	}
	const memory = 8 << 20
	limits := budget.New(memory)
	backend := api.NewBackend(context.Background(), api.Config{Budget: limits, MaxBodyBytes: 4096, RequestTimeout: time.Minute},
		api.NewCatalog(api.Served{Dataset: localtest.NewWritable(f, "rows", origintest.New(map[string]string{"a": "1", "b": "2"}))}))
	server := respserver.New(context.Background(), backend, watch.NewEngine(backend), &backend.Stats().Redis)
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &sent{in: bytes.NewReader(data)}
		server.ServeConn(c)
		for rest := c.out.Bytes(); len(rest) > 0; {
			var err error
			if rest, err = cutReply(rest); err != nil {
				t.Fatalf("%q: got %.200q: %v", data, c.out.Bytes(), err)
			}
		}
		if n := backend.Config().Errors.Defects(); n != 0 {
			t.Fatalf("%q: %d defects", data, n)
		}
		for kind, s := range limits.Stats() {
			if s.Used != 0 {
				t.Fatalf("%q: %d bytes of kind %d are not returned", data, s.Used, kind)
			}
		}
	})
}
