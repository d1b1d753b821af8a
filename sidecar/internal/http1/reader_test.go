package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

// request is a request line and a Host field, followed by lines.
func request(lines ...string) string {
	return "POST / HTTP/1.1\r\nHost: h\r\n" + strings.Join(append(lines, "", ""), "\r\n")
}

var limits = Limits{Head: 1024, Buffer: 64}

// read reads the first request of raw, in pieces of any size, and returns its content.
func read(source io.Reader, l Limits) (h Head, content []byte, err error) {
	r := NewReader(source, l)
	if err := r.ReadHead(&h); err != nil {
		return h, nil, err
	}
	c := r.Content(&h)
	content, err = io.ReadAll(&c)
	return h, content, err
}

func TestRequestsAreReadInPiecesOfAnySize(t *testing.T) {
	raw := request("X: y", "transfer-encoding: CHUNKED", "x:\tz ", "Expect: 100-Continue") +
		"5;ext=\"a b\"\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n00\r\nTrailer: x\r\n\r\n" + request("Content-Length: 3") + "abc"
	for name, source := range map[string]io.Reader{
		"at once": strings.NewReader(raw), "byte by byte": iotest.OneByteReader(strings.NewReader(raw)),
		"with the end": iotest.DataErrReader(strings.NewReader(raw)),
	} {
		r := NewReader(source, limits)
		var h Head
		for i, want := range []string{"hello world", "abc"} {
			if err := r.ReadHead(&h); err != nil {
				t.Fatalf("%s: head %d: %v", name, i, err)
			}
			if h.Method != "POST" || h.Target != "/" || h.Host != "h" || !h.HTTP11() || h.Close || h.Continue != (i == 0) {
				t.Errorf("%s: got head %d %+v", name, i, h)
			}
			if x := h.Joined("X"); i == 0 && x != "y, z" || i == 1 && x != "" {
				t.Errorf("%s: head %d has X %q", name, i, x)
			}
			content := r.Content(&h)
			if got, err := io.ReadAll(&content); err != nil || string(got) != want || !content.Ended() {
				t.Errorf("%s: content %d is %q, %v; want %q", name, i, got, err, want)
			}
			r.Release()
		}
		if err := r.ReadHead(&h); err != io.EOF {
			t.Errorf("%s: got %v after the last request, want EOF", name, err)
		}
	}
}

// Each of these is one request to some readers and another, or two, to others.
func TestMalformedRequestsAreRejected(t *testing.T) {
	chunked := request("Transfer-Encoding: chunked")
	for raw, want := range map[string]error{
		"GET / HTTP/1.1\nHost: h\n\n":                     errLineEnd,
		"GET / HTTP/1.1\r\nHost: h\n\r\n":                 errLineEnd,
		"GET / HTTP/1.1\r\nHost: h\r\n\n":                 errLineEnd,
		"\n":                                              errLineEnd,
		"\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n":       errRequestLine,
		"GET /\r\n":                                       errRequestLine,
		"GET / HTTP/1.1 \r\n":                             errVersion,
		"GET  / HTTP/1.1\r\n":                             errVersion,
		"GET /  HTTP/1.1\r\n":                             errVersion,
		"GET /a b HTTP/1.1\r\n":                           errVersion,
		"GET / HTTP/1\r\n":                                errVersion,
		"GET / http/1.1\r\n":                              errVersion,
		" GET / HTTP/1.1\r\n":                             errRequestLine,
		"G@T / HTTP/1.1\r\n":                              errRequestLine,
		"GET /\x00 HTTP/1.1\r\n":                          errTarget,
		"GET /\t HTTP/1.1\r\n":                            errTarget,
		"GET a HTTP/1.1\r\n":                              errTarget,
		"GET * HTTP/1.1\r\n":                              errTarget,
		"GET :// HTTP/1.1\r\n":                            errTarget,
		"GET / HTTP/1.1\r\n\r\n":                          errHost,
		"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n":    errHost,
		"GET / HTTP/1.1\r\nHost: a b\r\n\r\n":             errHost,
		"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n":             errHost,
		"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n":    errHost,
		request("X : y"):                                  errFieldName,
		request("X y: z"):                                 errFieldName,
		request("X\ty: z"):                                errFieldName,
		request("X\x00: z"):                               errFieldName,
		request(": z"):                                    errFieldName,
		request("X"):                                      errFieldName,
		request("X: y", " z"):                             errFieldName,
		request("X: y", "\tz: a"):                         errFieldName,
		request("X: a\x00b"):                              errFieldValue,
		request("X: a\rb"):                                errFieldValue,
		request("X: 12345678\x7f"):                        errFieldValue,
		request("X: a\r\r"):                               errFieldValue,
		request("Content-Length:"):                        errLength,
		request("Content-Length: +5"):                     errLength,
		request("Content-Length: -5"):                     errLength,
		request("Content-Length: 5 5"):                    errLength,
		request("Content-Length: 5, 5"):                   errLength,
		request("Content-Length: 0x5"):                    errLength,
		request("Content-Length: 9999999999999999999"):    errLength,
		request("Content-Length: 5", "Content-Length: 5"): errLength,
		request("Content-Length: 5", "Content-Length: 6"): errLength,
		request("Transfer-Encoding: identity"):            errCoding,
		request("Transfer-Encoding: gzip, chunked"):       errCoding,
		request("Transfer-Encoding: chunked, chunked"):    errCoding,
		request("Transfer-Encoding: chunked;q=1"):         errCoding,
		request("Transfer-Encoding:"):                     errCoding,
		request("Transfer-Encoding: \x0bchunked"):         errFieldValue,
		request("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"): errCoding,
		request("Transfer-Encoding: chunked", "Content-Length: 5"):          errCoding,
		request("Content-Length: 5", "Transfer-Encoding: chunked"):          errCoding,
		"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n":    errCoding,
		chunked + "\r\n": errChunk, chunked + "g\r\n": errChunk, chunked + "5 \r\n": errChunk, chunked + " 5\r\n": errChunk,
		chunked + "+5\r\n": errChunk, chunked + "0x5\r\n": errChunk, chunked + "5\n": errChunk, chunked + "123456789\r\n": errChunk,
		chunked + "5\r\nhellox\r\n": errChunk, chunked + "5\r\nhello\n": errChunk, chunked + "5 ;a\r\n": errChunk,
		chunked + "5;a\x00\r\n": errChunk, chunked + "5;" + strings.Repeat("x", 300) + "\r\n": errChunk,
		chunked + strings.Repeat("1;"+strings.Repeat("x", 200)+"\r\na\r\n", 30) + "0\r\n\r\n":  errChunk,
		chunked + "5;" + strings.Repeat("x", 3000):                                             errChunk,
		chunked + "0\r\nX : y\r\n\r\n":                                                         errTrailer,
		chunked + "0\r\n" + strings.Repeat("X: "+strings.Repeat("y", 500)+"\r\n", 10) + "\r\n": errTrailer,
		chunked + "0\r\nX: " + strings.Repeat("y", 2000):                                       errTrailer,
		chunked + "5\r\nhel":                                         errContentCutOff,
		request("Content-Length: 5") + "hel":                         errContentCutOff,
		"GET / HTTP/1.1\r\nHost: h":                                  io.ErrUnexpectedEOF,
		request(strings.Repeat("x", 2000)):                           ErrHeadTooLarge,
		request("X: " + strings.Repeat("x", 2000)):                   ErrHeadTooLarge,
		"GET /" + strings.Repeat("x", 2000):                          ErrHeadTooLarge,
		request(strings.Split(strings.Repeat("a:\n", 200), "\n")...): ErrHeadTooLarge,
	} {
		for _, source := range []io.Reader{strings.NewReader(raw), iotest.OneByteReader(strings.NewReader(raw))} {
			if h, content, err := read(source, limits); err != want {
				t.Errorf("%.80q: got %v, %q and %+v; want %v", raw, err, content, h, want)
			}
		}
	}
}

// A client that sends "If-Match:" means a condition.
func TestFieldWithoutValueIsNotAbsent(t *testing.T) {
	h, _, err := read(strings.NewReader(request("X:", "Y: ", "Y: a")), limits)
	if err != nil || h.Joined("x") != " " || h.Joined("y") != ", a" || h.Joined("z") != "" {
		t.Errorf("got %q, %q and %q, %v", h.Joined("x"), h.Joined("y"), h.Joined("z"), err)
	}
}

func TestConnectionOptions(t *testing.T) {
	for raw, want := range map[string][2]bool{ // close, keep alive
		"GET / HTTP/1.1\r\nHost: h\r\n\r\n":                                        {false, false},
		"GET / HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n\r\n":                {true, false},
		"GET / HTTP/1.1\r\nHost: h\r\nConnection: enclose\r\n\r\n":                 {false, false},
		"GET / HTTP/1.0\r\n\r\n":                                                   {true, false},
		"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n":                         {false, true},
		"GET / HTTP/1.0\r\nExpect: 100-continue\r\nConnection: keep-alive\r\n\r\n": {false, true},
	} {
		h, _, err := read(strings.NewReader(raw), limits)
		if err != nil || h.Close != want[0] || h.KeepAlive() != want[1] || h.Continue {
			t.Errorf("%q: got close %t, keep alive %t, continue %t, %v; want %v", raw, h.Close, h.KeepAlive(), h.Continue, err, want)
		}
	}
}

func TestBufferGrowsOnlyWithConsentAndShrinks(t *testing.T) {
	var asked []int
	allowed := true
	l := Limits{Head: 1024, Buffer: 64, Grow: func(size int) bool { asked = append(asked, size); return allowed }}
	large, small := request("X: "+strings.Repeat("x", 300)), request()
	r := NewReader(io.MultiReader(strings.NewReader(large), strings.NewReader(small), strings.NewReader(large)), l)
	var h Head
	for i, shrinks := range []bool{true, false, true} {
		if err := r.ReadHead(&h); err != nil {
			t.Fatal(err)
		}
		if x := h.Joined("X"); len(x) > 0 != shrinks {
			t.Errorf("request %d: X has %d bytes", i, len(x))
		}
		if got := r.Release(); got != shrinks || len(r.buf) != 64 {
			t.Errorf("request %d: Release returned %t and left a buffer of %d bytes; want %t and 64", i, got, len(r.buf), shrinks)
		}
	}
	if want := "[128 256 512]"; fmt.Sprint(asked[:3]) != want {
		t.Errorf("asked for %v, want first %s", asked, want)
	}
	allowed = false
	if _, _, err := read(strings.NewReader(large), l); err != ErrNoMemory {
		t.Errorf("got %v without consent, want ErrNoMemory", err)
	}
}

// A source that returns neither bytes nor an error must not occupy the processor.
func TestSourceWithoutProgressEnds(t *testing.T) {
	if _, _, err := read(stuck{}, limits); err != io.ErrNoProgress {
		t.Errorf("got %v, want io.ErrNoProgress", err)
	}
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

// FuzzRead compares with net/http: what is accepted is the same request there, and ends at the same byte.
func FuzzRead(f *testing.F) {
	for _, s := range []string{
		request(), request("Content-Length: 3") + "abc" + request(), request("Transfer-Encoding: chunked") + "3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n",
		"GET http://h/a?b HTTP/1.1\r\nHost: h\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
		"\r\nGET / HTTP/1.0\r\n\r\n", request("X: y", " z"), request("X: \xff\t\"", "x:"), request("Connection: close, keep-alive"),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, content, err := read(bytes.NewReader(raw), limits)
		slowly, again, errAgain := read(iotest.OneByteReader(bytes.NewReader(raw)), limits)
		if fmt.Sprint(err) != fmt.Sprint(errAgain) || err == nil && (!bytes.Equal(content, again) || h.Target != slowly.Target) {
			t.Fatalf("%q: got %q, %v at once, and %q, %v byte by byte", raw, content, err, again, errAgain)
		}
		var malformed Malformed
		if err != nil || h.Version != version11 || h.Method == "CONNECT" || errors.As(err, &malformed) {
			return
		}
		raw = bytes.TrimPrefix(raw, []byte("\r\n"))
		theirs, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			if strings.Contains(err.Error(), "invalid URL") || strings.Contains(err.Error(), "parse") || strings.Contains(err.Error(), "malformed Host") {
				return // net/http parses the target
			}
			t.Fatalf("%q: accepted here, but net/http: %v", raw, err)
		}
		body, err := io.ReadAll(theirs.Body)
		if err != nil || !bytes.Equal(body, content) || theirs.Method != h.Method || theirs.RequestURI != h.Target {
			t.Fatalf("%q: got %s %s %q; net/http: %s %s %q, %v", raw, h.Method, h.Target, content, theirs.Method, theirs.RequestURI, body, err)
		}
		for name, values := range theirs.Header {
			if want := strings.Join(values, ", "); name != "Host" && name != "Transfer-Encoding" && strings.Trim(h.Joined(name), " ") != strings.Trim(want, " ") {
				t.Errorf("%q: %s is %q; net/http: %q", raw, name, h.Joined(name), want)
			}
		}
	})
}

func BenchmarkReadHead(b *testing.B) {
	for name, raw := range map[string]string{
		"curl": "GET /v1/cnf-metrics/CNF-001 HTTP/1.1\r\nHost: localhost:7070\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n",
		"browser": "GET /v1/cnf-metrics/CNF-001 HTTP/1.1\r\nHost: localhost:7070\r\nUser-Agent: " + strings.Repeat("Mozilla/5.0 ", 10) +
			"\r\nAccept: text/html,application/xhtml+xml\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n" +
			"Connection: keep-alive\r\nCookie: " + strings.Repeat("a=b; ", 50) + "\r\nSec-Fetch-Mode: navigate\r\n\r\n",
	} {
		b.Run(name, func(b *testing.B) {
			source := strings.NewReader(raw)
			r := NewReader(source, Limits{Head: 16 << 10, Buffer: 4 << 10})
			var h Head
			for b.ReportAllocs(); b.Loop(); {
				source.Reset(raw)
				if err := r.ReadHead(&h); err != nil {
					b.Fatal(err)
				}
				r.Release()
			}
		})
	}
}
