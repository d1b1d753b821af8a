package httporigin_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// raw starts a server that answers each request with what respond writes to the connection.
func raw(t *testing.T, respond func(w io.Writer)) origin.Origin {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					respond(conn)
				}
			}()
		}
	}()
	return open(t, origin.SourceConfig{DSN: "http://" + l.Addr().String(), MaxValueBytes: 1000}, origin.HTTPValues{URL: "/{key}"})
}

// forever writes text until the client is gone.
func forever(w io.Writer, text string) {
	for {
		if _, err := io.WriteString(w, text); err != nil {
			return
		}
	}
}

func TestHostileServers(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, _ = z.Write(make([]byte, 100_000))
	_ = z.Close()
	const ok = "HTTP/1.1 200 OK\r\n"
	for name, tt := range map[string]struct {
		respond func(w io.Writer)
		want    string
	}{
		"endless body": {func(w io.Writer) {
			_, _ = io.WriteString(w, ok+"\r\n")
			forever(w, strings.Repeat("x", 100))
		}, "more than 1000 bytes"},
		"endless chunks": {func(w io.Writer) {
			_, _ = io.WriteString(w, ok+"Transfer-Encoding: chunked\r\n\r\n")
			forever(w, "5\r\nhello\r\n")
		}, "more than 1000 bytes"},
		"large Content-Length": {func(w io.Writer) {
			_, _ = io.WriteString(w, ok+"Content-Length: 99999999999\r\n\r\n")
		}, "more than 1000 bytes"},
		"Content-Length beyond the body": {func(w io.Writer) {
			_, _ = io.WriteString(w, ok+"Content-Length: 10\r\n\r\nhello")
		}, "unexpected EOF"},
		"two lengths": {func(w io.Writer) {
			_, _ = io.WriteString(w, ok+"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!")
		}, "Content-Length"},
		"negative length": {func(w io.Writer) {
			_, _ = io.WriteString(w, ok+"Content-Length: -5\r\n\r\nhello")
		}, "Content-Length"},
		"bad chunk": {func(w io.Writer) {
			_, _ = io.WriteString(w, ok+"Transfer-Encoding: chunked\r\n\r\nzz\r\n")
		}, "read the body"},
		"gzip": {func(w io.Writer) {
			_, _ = fmt.Fprintf(w, ok+"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", bomb.Len(), bomb.String())
		}, "compressed"},
		"cut JSON": {func(w io.Writer) {
			_, _ = io.WriteString(w, ok+"Content-Type: application/json\r\n\r\n{\"a\": [1, 2")
		}, "not JSON"},
		"part of a body": {func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\n\r\nhello")
		}, "status 206"},
		"304 without a condition": {func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 304 Not Modified\r\n\r\n")
		}, "status 304"},
		"redirect": {func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest\r\nContent-Length: 0\r\n\r\n")
		}, "redirects are not followed"},
		"header line without end": {func(w io.Writer) {
			_, _ = io.WriteString(w, ok+"X: ")
			forever(w, strings.Repeat("x", 100))
		}, "exceeded"},
		"header fields without end": {func(w io.Writer) {
			_, _ = io.WriteString(w, ok)
			forever(w, strings.Repeat("X: y\r\n", 100))
		}, "exceeded"},
		"interim responses without end": {func(w io.Writer) {
			forever(w, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
		}, "exceeded"},
		"no HTTP":         {func(w io.Writer) { _, _ = io.WriteString(w, "\x1b[2J\x00\r\n\r\n") }, "malformed"},
		"invalid header":  {func(w io.Writer) { _, _ = io.WriteString(w, ok+"a\x1b b\r\n\r\n") }, "malformed"},
		"no answer":       {func(io.Writer) {}, "EOF"},
		"too many tries":  {func(w io.Writer) { _, _ = io.WriteString(w, "HTTP/1.1 429 X\r\nContent-Length: 0\r\n\r\n") }, "status 429"},
		"failure":         {func(w io.Writer) { _, _ = io.WriteString(w, "HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n") }, "status 503"},
		"no permission":   {func(w io.Writer) { _, _ = io.WriteString(w, "HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n") }, "check token_file"},
		"another version": {func(w io.Writer) { _, _ = io.WriteString(w, "HTTP/9.9 200 OK\r\n\r\nx") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := one(t, raw(t, tt.respond), "k").Err
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
			if err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) || err != nil && len(err.Error()) > 700 {
				t.Errorf("the error is no short line of text: %q", err)
			}
			isLarge := strings.Contains(tt.want, "more than")
			if errors.Is(err, origin.ErrNotFound) || errors.Is(err, origin.ErrInvalidKey) || (origin.CauseOf(err) == origin.TooLarge) != isLarge {
				t.Errorf("got the answer %v of a key; want a failure of the service", err)
			}
		})
	}
}

// A body that arrives slowly ends with the time of the load.
func TestSlowBody(t *testing.T) {
	stop := make(chan struct{})
	o := raw(t, func(w io.Writer) {
		_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
		<-stop
	})
	defer close(stop)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := o.Load(ctx, []string{"k", "l"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want a deadline exceeded", err)
	}
}

// A flood of trailers ends a body, and is not kept.
func TestTrailers(t *testing.T) {
	o := raw(t, func(w io.Writer) {
		_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n")
		forever(w, strings.Repeat("X: y\r\n", 100))
	})
	if r := one(t, o, "k"); r.Err == nil || !strings.Contains(r.Err.Error(), "trailer") {
		t.Errorf("got %q, %v; want an error", r.Value.Data, r.Err)
	}
}
