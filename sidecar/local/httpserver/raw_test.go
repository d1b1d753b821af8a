package httpserver_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

// batched is the response of the dataset "failing" to a batch of the key "a".
const batched = `{"results":[{"key":"a","valueBase64":"YQ==","age":0,"maxAge":1,"source":"hit"}]}` + "\n"

func TestPipelinedRequestsGetResponsesInOrder(t *testing.T) {
	c := localtest.Dial(t, "tcp", localtest.Start(t, local.Config{}).HTTP)
	c.Send(localtest.Get("/v1/blobs/x/y") + localtest.Get("/v1/blobs/none") + localtest.Post("/v1/failing:batchGet", `{"keys":["a"]}`) +
		localtest.Get("/v1/blobs/x//../y"))
	for i, want := range []int{200, 404, 200, 200} {
		if resp, body := c.Response("GET"); resp.StatusCode != want {
			t.Errorf("response %d: %d %s", i, resp.StatusCode, body)
		}
	}
}

func TestExpectContinue(t *testing.T) {
	c := localtest.Dial(t, "tcp", localtest.Start(t, local.Config{}).HTTP)
	head, body, _ := strings.Cut(localtest.Post("/v1/failing:batchGet", `{"keys":["a"]}`, "Expect: 100-continue"), "\r\n\r\n")
	c.Send(head + "\r\n\r\n")
	if line, err := c.Reader.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100") {
		t.Fatalf("%q, %v", line, err)
	}
	if _, err := c.Reader.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	c.Send(body)
	if resp, got := c.Response("POST"); resp.StatusCode != 200 || got != batched {
		t.Errorf("%d %q", resp.StatusCode, got)
	}
}

func TestExpectContinueGetsTheErrorImmediately(t *testing.T) {
	s := localtest.Start(t, local.Config{MaxBodyBytes: 10})
	for name, test := range map[string]struct {
		request string // without its end
		status  int
		problem string
		allow   string
	}{
		"larger than the limit": {"PUT /v1/cnf-metrics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11", 413, "body-too-large", ""},
		"read only":             {"PUT /v1/blobs/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9", 405, "read-only", "GET, HEAD"},
		"no such dataset":       {"PUT /v1/nope/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9", 404, "unknown-dataset", ""},
		"another site": {"PUT /v1/cnf-metrics/a HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil\r\nContent-Length: 9", 403,
			"cross-site", ""},
		"another host": {"POST /v1/blobs:batchGet HTTP/1.1\r\nHost: evil\r\nContent-Length: 9", 421, "wrong-host", ""},
	} {
		c := localtest.Dial(t, "tcp", s.HTTP)
		c.Send(test.request + "\r\nExpect: 100-continue\r\n\r\n")
		resp, body := c.Response("PUT")
		if resp.StatusCode != test.status || resp.Header.Get("Allow") != test.allow || !resp.Close {
			t.Errorf("%s: %d %v %s", name, resp.StatusCode, resp.Header, body)
			continue
		}
		localtest.CheckProblem(t, resp, body, test.problem)
		c.ExpectClosed()
	}
}

// A request with both framings may be two requests to a proxy (RFC 9112, 6.3).
func TestSmuggledRequestGetsNoResponse(t *testing.T) {
	c := localtest.Dial(t, "tcp", localtest.Start(t, local.Config{}).HTTP)
	c.Send("POST /v1/failing:batchGet HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n" +
		"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + localtest.Get("/v1/blobs/a"))
	c.Response("POST")
	c.ExpectClosed()
}

func putChunked(target, body, trailer string, fields ...string) string {
	return "PUT " + target + " HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n" +
		strings.Join(append(fields, ""), "\r\n") + fmt.Sprintf("\r\n%x\r\n%s\r\n0\r\n%s\r\n\r\n", len(body), body, trailer)
}

// A condition or an origin in a trailer has no effect; that in the header has, even if the trailer announces the field.
func TestTrailerFieldsAreIgnored(t *testing.T) {
	s := localtest.StartWritable(t, local.Config{})
	for _, c := range []struct {
		name, request string
		status        int
	}{
		{"condition", putChunked("/v1/rows/a", "{}", `If-Match: "nothing"`), 200},
		{"announced", putChunked("/v1/rows/a", "{}", `If-Match: "nothing"`, "Trailer: If-Match"), 200},
		{"version", putChunked("/v1/rows/a", "{}", "Ringside-If-Version: 99"), 200},
		{"id", putChunked("/v1/rows/a", "{}", "Idempotency-Key: \xff"), 200},
		{"origin", putChunked("/v1/rows/a", "{}", "Origin: http://evil.example"), 200},
		{"content type", putChunked("/v1/rows/a", "{}", "X: y", "Content-Type: text/plain"), 415},
		{"header beside a trailer", putChunked("/v1/rows/a", "{}", "X: y", `If-Match: "nothing"`), 412},
		{"header of an announced name", putChunked("/v1/rows/a", "{}", "X: y", "Trailer: If-Match", `If-Match: "nothing"`), 412},
		{"both", putChunked("/v1/rows/a", "{}", "If-Match: *", `If-Match: "nothing"`), 412},
		{"two lines", putChunked("/v1/rows/a", "{}", "X: y", `If-Match: "a"`, `If-Match: "b"`), 400},
		{"no value", putChunked("/v1/rows/a", "{}", "X: y", "If-Match:"), 400},
		{"origin in the header", putChunked("/v1/rows/a", "{}", "X: y", "Origin: http://evil.example"), 403},
	} {
		conn := localtest.Dial(t, "tcp", s.HTTP)
		conn.Send(c.request)
		if resp, body := conn.Response("PUT"); resp.StatusCode != c.status {
			t.Errorf("%s: %d, want %d: %s", c.name, resp.StatusCode, c.status, body)
		}
	}
}

// A client that sends "If-Match:" means a condition: a template left its value out.
func TestFieldWithoutValueIsNotAbsent(t *testing.T) {
	c := localtest.Dial(t, "tcp", localtest.StartWritable(t, local.Config{}).HTTP)
	c.Send(localtest.Put("/v1/rows/a", "{}", "If-Match:"))
	if resp, body := c.Response("PUT"); resp.StatusCode != 400 {
		t.Errorf("got %d %s, want 400", resp.StatusCode, body)
	}
}
