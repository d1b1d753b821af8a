package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc/status"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

func TestReusedIdempotencyIDIsReported(t *testing.T) {
	s := localtest.StartWritable(t, local.Config{})
	c := localtest.Dial(t, "tcp", s.HTTP)
	c.Send(localtest.Put("/v1/rows/a", `{"value":1}`, "Idempotency-Key: w"))
	c.Response("PUT")
	c.Send(localtest.Put("/v1/rows/a", `{"value":2}`, "Idempotency-Key: w"))
	resp, body := c.Response("PUT")
	localtest.CheckProblem(t, resp, body, "invalid-value")
	if !strings.Contains(body, apierror.TypeOf(kv.KindIDReused).Title) {
		t.Errorf("%s", body)
	}
	_, err := localtest.Client(t, s.GRPC).Put(t.Context(), &ringsidev1.PutRequest{
		Dataset: "rows", Key: "a", Value: []byte(`{"value":3}`), IdempotencyId: "w",
	})
	if !strings.Contains(fmt.Sprint(status.Convert(err).Details()), `field:"idempotency_id"`) {
		t.Errorf("%v: %v", err, status.Convert(err).Details())
	}
}

func TestRawHTTPWrites(t *testing.T) {
	row := `{"value":1}`
	tests := []struct {
		name, request string
		status        int
		body          string // as in TestRawHTTP
		header        map[string]string
	}{
		{"row", localtest.Put("/v1/rows/x%2Fy", row, "Content-Type: application/json; charset=utf-8"), 200, row, map[string]string{
			"Content-Type": "application/json", "Content-Location": "/v1/rows/x%2Fy", "Ringside-Version": "2", "Age": "0",
			"Cache-Status": "ringside; fwd=method", "Ringside-Source": "", "Cache-Control": "max-age=3599"}},
		{"curl's default type", localtest.Put("/v1/rows/new1", row, "Content-Type: application/x-www-form-urlencoded"), 200, row, nil},
		{"no type", localtest.Put("/v1/rows/new2", row), 200, row, nil},
		{"absolute form", localtest.Put("http://localhost/v1/rows/new3", row), 200, row,
			map[string]string{"Content-Location": "/v1/rows/new3"}},
		{"another type", localtest.Put("/v1/rows/new4", row, "Content-Type: text/csv"), 415, "unsupported-media-type", nil},
		{"no type at all", localtest.Put("/v1/rows/new4", row, "Content-Type: ;"), 415, "unsupported-media-type", nil},
		{"any type of bytes", localtest.Put("/v1/raw/new", "a,b", "Content-Type: text/csv"), 200, "a,b",
			map[string]string{"Content-Type": "application/octet-stream"}},
		{"packed", localtest.Put("/v1/raw/new4", "x", "Content-Encoding: gzip"), 415, "unsupported-media-type", nil},
		{"not packed", localtest.Put("/v1/raw/new5", "x", "Content-Encoding: identity"), 200, "x", nil},
		{"a part", localtest.Put("/v1/raw/new6", "x", "Content-Range: bytes 0-0/2"), 400, "malformed-request", nil},
		{"empty bytes", localtest.Put("/v1/raw/new7", ""), 200, "", nil},
		{"in chunks", "PUT /v1/raw/new8 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"1\r\nx\r\n0\r\n\r\n", 200, "x", nil},
		{"largest value", localtest.Put("/v1/raw/new9", strings.Repeat("x", kv.MaxValueBytes)), 200, strings.Repeat("x",
			kv.MaxValueBytes), nil},
		// The body is not sent: the server closes the connection, and a reset could overtake the response.
		{"larger value", strings.TrimRight(localtest.Put("/v1/raw/new10", strings.Repeat("x", kv.MaxValueBytes+1)), "x"), 413,
			"body-too-large", nil},
		{"create", localtest.Put("/v1/rows/c1", row, "If-None-Match: *"), 201, row, map[string]string{"Ringside-Version": "1"}},
		{"create what is there", localtest.Put("/v1/rows/a", row, "If-None-Match: *"), 412, "precondition-failed", nil},
		{"change what is not there", localtest.Put("/v1/rows/none", row, "If-Match: *"), 412, "precondition-failed", nil},
		{"change another value", localtest.Put("/v1/rows/b", row, `If-Match: "other"`), 412, "precondition-failed", nil},
		{"change another version", localtest.Put("/v1/rows/b", row, "Ringside-If-Version: 9"), 409, "conflict", nil},
		{"change this version", localtest.Put("/v1/rows/b", row, "Ringside-If-Version:  1 "), 200, row,
			map[string]string{"Ringside-Version": "2"}},
		{"weak condition", localtest.Put("/v1/rows/b", row, `If-Match: W/"x"`), 400, "malformed-request", nil},
		{"list of conditions", localtest.Put("/v1/rows/b", row, `If-Match: "x"`, `If-Match: "y"`), 400, "malformed-request", nil},
		{"two conditions", localtest.Put("/v1/rows/b", row, `If-Match: *`, `Ringside-If-Version: 1`), 400, "malformed-request", nil},
		{"condition without a value", localtest.Put("/v1/rows/b", row, `If-Match:`), 400, "malformed-request", nil},
		{"version 0", localtest.Put("/v1/rows/b", row, "Ringside-If-Version: 0"), 400, "malformed-request", nil},
		{"named", localtest.Put("/v1/rows/n1", row, `Idempotency-Key: "k1"`), 200, row, map[string]string{"Ringside-Version": "1"}},
		{"named, again", localtest.Put("/v1/rows/n1", row, `Idempotency-Key: k1`), 200, row,
			map[string]string{"Ringside-Version": "1"}},
		{"named, another", localtest.Put("/v1/rows/n1", "{}", `Idempotency-Key: k1`), 422, "invalid-value", nil},
		{"name without a value", localtest.Put("/v1/rows/n1", row, `Idempotency-Key:`), 400, "malformed-request", nil},
		{"name in half a quote", localtest.Put("/v1/rows/n1", row, `Idempotency-Key: "k1`), 400, "malformed-request", nil},
		{"read only", localtest.Put("/v1/blobs/a", "x"), 405, "read-only", map[string]string{"Allow": "GET, HEAD"}},
		{"unknown dataset", localtest.Put("/v1/row/a", row), 404, "unknown-dataset", nil},
		{"no key", localtest.Put("/v1/rows/", row), 400, "invalid-key", nil},
		{"collection", localtest.Put("/v1/rows", row), 405, "method-not-allowed", map[string]string{"Allow": "POST"}},
		{"read of a collection", localtest.Get("/v1/rows"), 405, "method-not-allowed", map[string]string{"Allow": "POST"}},
		{"unknown collection", localtest.Get("/v1/row"), 404, "unknown-dataset", nil},
		{"append", localtest.Post("/v1/rows", row, "Content-Type: application/json", "Idempotency-Key: app1"), 201, row, map[string]string{
			"Location": "/v1/rows/row-1", "Content-Location": "/v1/rows/row-1", "Ringside-Version": "1", "Content-Type": "application/json",
			"Cache-Status": "ringside; fwd=method"}},
		{"append again", localtest.Post("/v1/rows", row, "Idempotency-Key: app1"), 201, row, map[string]string{"Location": "/v1/rows/row-1"}},
		{"append with the id of another", localtest.Post("/v1/rows", "{}", "Idempotency-Key: app1"), 422, "invalid-value", nil},
		{"append with curl's default type", localtest.Post("/v1/rows", row, "Content-Type: application/x-www-form-urlencoded"), 201, row,
			map[string]string{"Location": "/v1/rows/row-2"}},
		{"append, minimal", localtest.Post("/v1/raw", "x", "Prefer: return=minimal"), 201, "", map[string]string{
			"Location": "/v1/raw/row-1", "Preference-Applied": "return=minimal", "Ringside-Version": "1", "Etag": "", "Content-Location": ""}},
		{"append of an escaped key", localtest.Post("http://localhost/v1/s%70oiled", row), 201, row,
			map[string]string{"Location": "/v1/s%70oiled/appended/100%25"}},
		{"append by override", localtest.Post("/v1/rows", row, "X-HTTP-Method-Override: PUT"), 400, "malformed-request", nil},
		{"append if it exists", localtest.Post("/v1/rows", row, "If-Match: *"), 400, "malformed-request", nil},
		{"append if it does not", localtest.Post("/v1/rows", row, "If-None-Match: *"), 400, "malformed-request", nil},
		{"append if version", localtest.Post("/v1/rows", row, "Ringside-If-Version: 1"), 400, "malformed-request", nil},
		{"append of another type", localtest.Post("/v1/rows", row, "Content-Type: text/csv"), 415, "unsupported-media-type", nil},
		{"append of a part", localtest.Post("/v1/rows", row, "Content-Range: bytes 0-0/2"), 400, "malformed-request", nil},
		{"append, named badly", localtest.Post("/v1/rows", row, `Idempotency-Key: "k1`), 400, "malformed-request", nil},
		{"append from another site", localtest.Post("/v1/rows", row, "Sec-Fetch-Site: same-site"), 403, "cross-site", nil},
		{"append by a form of another site", localtest.Post("/v1/raw", "a=b", "Origin: http://evil.example"), 403, "cross-site", nil},
		{"append of unknown outcome", localtest.Post("/v1/spoiled", "unknown"), 500, "outcome-unknown", map[string]string{"Retry-After": "1"}},
		{"append without a generated key", localtest.Post("/v1/spoiled", "keyless"), 405, "append-unsupported", map[string]string{"Allow": ""}},
		{"append of a bad column", localtest.Post("/v1/spoiled", "column"), 422, "invalid-value", nil},
		{"append, read only", localtest.Post("/v1/blobs", "x"), 405, "read-only", map[string]string{"Allow": ""}},
		{"append to an unknown dataset", localtest.Post("/v1/row", row), 404, "unknown-dataset", nil},
		{"query", localtest.Put("/v1/rows/a?x", row), 400, "malformed-request", nil},
		{"unknown outcome", localtest.Put("/v1/spoiled/unknown", row), 500, "outcome-unknown", map[string]string{"Retry-After": "1"}},
		{"bad column", localtest.Put("/v1/spoiled/column", row), 422, "invalid-value", nil},
		{"conflict without a condition", localtest.Put("/v1/spoiled/conflict", row), 409, "conflict", nil},
		{"defect", localtest.Put("/v1/spoiled/internal", row), 500, "internal", nil},
		{"panic", localtest.Put("/v1/spoiled/panic", row), 500, "internal", nil},
		{"delete", localtest.Delete("/v1/rows/empty"), 204, "", map[string]string{"Ringside-Version": "2", "Content-Type": "",
			"Content-Length": ""}},
		{"delete what is not there", localtest.Delete("/v1/rows/none"), 204, "", map[string]string{"Ringside-Version": ""}},
		{"delete, but only if", localtest.Delete("/v1/rows/none", "If-Match: *"), 412, "precondition-failed", nil},
		{"delete what must not be there", localtest.Delete("/v1/rows/none", "If-None-Match: *"), 400, "malformed-request", nil},
		{"delete another version", localtest.Delete("/v1/rows/a", "Ringside-If-Version: 7"), 409, "conflict", nil},
		{"invalidate keys", localtest.Post("/v1/rows:invalidate", `{"keys":["a"]}`), 200, `{"members":1,"unreached":[]}` + "\n",
			map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store"}},
		{"invalidate a prefix of a dataset that takes no writes", localtest.Post("/v1/blobs:invalidate", `{"prefix":"x/"}`),
			200, `{"members":1,"unreached":[]}` + "\n", nil},
		{"invalidate all", localtest.Post("/v1/rows:invalidate", `{"all":true}`), 200, `{"members":1,"unreached":[]}` + "\n", nil},
		{"invalidate, not everywhere", localtest.Post("/v1/spoiled:invalidate", `{"keys":["a"]}`),
			200, `{"members":2,"unreached":["n3"]}` + "\n", nil},
		{"invalidate, refused", localtest.Post("/v1/spoiled:invalidate", `{"all":true}`), 429, "overloaded", nil},
		{"invalidate nothing", localtest.Post("/v1/rows:invalidate", `{"keys":[]}`), 400, "malformed-request", nil},
		{"invalidate in an unknown dataset", localtest.Post("/v1/row:invalidate", `{"all":true}`), 404, "unknown-dataset", nil},
		{"a version that is not reached", localtest.Get("/v1/spoiled/a", "Ringside-Min-Version: 4"), 412, "version-not-reached",
			map[string]string{"Retry-After": "1"}},
		{"a version that is", localtest.Get("/v1/raw/x/y", "Ringside-Min-Version: 1"), 200, "slash", nil},
		{"no version", localtest.Get("/v1/raw/x/y", "Ringside-Min-Version: x"), 400, "malformed-request", nil},
		{"empty version", localtest.Get("/v1/raw/x/y", "Ringside-Min-Version:"), 400, "malformed-request", nil},
		{"two versions", localtest.Get("/v1/raw/x/y", "Ringside-Min-Version: 1", "Ringside-Min-Version: 1"), 400,
			"malformed-request", nil},
		{"version of a batch", localtest.Post("/v1/raw:batchGet", `{"keys":["a"]}`, "Ringside-Min-Version: -1"), 400,
			"malformed-request", nil},
	}
	s := localtest.StartWritable(t, local.Config{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := localtest.Dial(t, "tcp", s.HTTP)
			c.Send(tt.request)
			resp, body := c.Response(strings.Fields(tt.request)[0])
			if resp.StatusCode != tt.status {
				t.Fatalf("status %d, want %d: %.200s", resp.StatusCode, tt.status, body)
			}
			problem := ""
			if tt.status >= 400 {
				problem = apierror.BaseURI + tt.body
				localtest.CheckProblem(t, resp, body, tt.body)
			} else if body != tt.body {
				t.Errorf("body %.200q, want %.200q", body, tt.body)
			}
			checkDocumented(t, tt.request, resp, problem)
			for name, want := range tt.header {
				if got := resp.Header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

// PUT accepts the ETags and versions that GET returns, and GET those that PUT returns.
func TestWriteIsReadBack(t *testing.T) {
	c := localtest.Dial(t, "tcp", localtest.StartWritable(t, local.Config{}).HTTP)
	ask := func(request string, status int) (*http.Response, string) {
		t.Helper()
		c.Send(request)
		resp, body := c.Response(strings.Fields(request)[0])
		if resp.StatusCode != status {
			t.Fatalf("%.60q: %d %s", request, resp.StatusCode, body)
		}
		return resp, body
	}
	first, body := ask(localtest.Get("/v1/raw/x/y"), 200)
	put1, _ := ask(localtest.Put("/v1/raw/x/y", body+"2", "If-Match: "+first.Header.Get("ETag")), 200)
	ask(localtest.Put("/v1/raw/x/y", "lost update", "If-Match: "+first.Header.Get("ETag")), 412)
	read, body := ask(localtest.Get("/v1/raw/x/y", "Ringside-Min-Version: "+put1.Header.Get("Ringside-Version")), 200)
	if body != "slash2" || read.Header.Get("ETag") != put1.Header.Get("ETag") || put1.Header.Get("ETag") == "" {
		t.Errorf("%s %v, after %v", body, read.Header, put1.Header)
	}
	ask(localtest.Put("/v1/raw/x/y", "3", "Ringside-If-Version: "+read.Header.Get("Ringside-Version")), 200)
	ask(localtest.Delete("/v1/raw/x/y", "If-Match: *"), 204)
	ask(localtest.Get("/v1/raw/x/y"), 404)
}

func TestWrongColumnIsNamed(t *testing.T) {
	c := localtest.Dial(t, "tcp", localtest.StartWritable(t, local.Config{}).HTTP)
	for key, want := range map[string]string{"column": "unit", "value": ""} {
		c.Send(localtest.Put("/v1/spoiled/"+key, "{}"))
		_, body := c.Response("PUT")
		var d apierror.Problem
		if err := json.Unmarshal([]byte(body), &d); err != nil || (len(d.Errors) == 1) != (want != "") ||
			want != "" && (d.Errors[0].Column != want || d.Errors[0].Detail != "too long") {
			t.Errorf("%v: %s", err, body)
		}
	}
}

// A page of another origin must not write, whatever it can make the browser send.
func TestPageOfAnotherOriginCannotWrite(t *testing.T) {
	s := localtest.StartWritable(t, local.Config{Hosts: []string{"ui.example"}})
	routed := s.Listen(t, "tcp", func(ln net.Listener) error { return s.ServeRouted(ln, nil) })
	requests := map[string]string{
		"PUT": localtest.Put("/v1/raw/p", "x", "@"), "DELETE": localtest.Delete("/v1/raw/p", "@"),
		"APPEND": localtest.Post("/v1/raw", "x", "@"),
		"POST":   localtest.Post("/v1/raw:invalidate", `{"all":true}`, "@"), "GET": localtest.Get("/v1/raw:watch?key=p", "@"),
	}
	for _, tt := range []struct {
		field string
		ok    bool
	}{
		{"X: y", true}, {"Sec-Fetch-Site: same-origin", true}, {"Sec-Fetch-Site: none", true},
		{"Sec-Fetch-Site: cross-site", false}, {"Sec-Fetch-Site: same-site", false}, {"Sec-Fetch-Site: x", false},
		{"Sec-Fetch-Site: same-origin\r\nSec-Fetch-Site: same-site", false},
		{"Origin: http://localhost", true}, {"Origin: HTTP://LOCALHOST", true}, {"Origin: https://ui.example:8443", true},
		{"Origin: http://localhost:8000", false}, {"Origin: http://127.0.0.1", false}, {"Origin: null", false},
		{"Origin: http://evil.example", false}, {"Origin:", false}, {"Origin: localhost", false},
		{"Origin: http://localhost, http://localhost", false}, {"Origin: http://ui.example.evil", false},
		{"Origin: http://evil.example\r\nSec-Fetch-Site: same-origin", false},
	} {
		for method, request := range requests {
			if method == "GET" && tt.ok {
				continue // a watch does not end
			}
			request = strings.Replace(strings.Replace(request, "@", tt.field, 1), "localhost:7070", "localhost", 1)
			for network, address := range map[string]string{"tcp": s.HTTP, "unix": s.Unix, "routed": routed} {
				if network == "routed" && method == "GET" {
					continue
				}
				c := localtest.Dial(t, strings.Replace(network, "routed", "tcp", 1), address)
				c.Send(request)
				if resp, body := c.Response(method); (resp.StatusCode < 300) != tt.ok || !tt.ok && resp.StatusCode != 403 {
					t.Errorf("%s, %s, %s: %d %s", network, method, tt.field, resp.StatusCode, body)
				}
			}
		}
	}
	c := localtest.Dial(t, "tcp", s.HTTP)
	c.Send(localtest.Get("/v1/raw/x/y", "Sec-Fetch-Site: same-site", "Origin: http://localhost:8000"))
	if resp, _ := c.Response("GET"); resp.StatusCode != 200 {
		t.Errorf("a read from the same site: %d", resp.StatusCode)
	}
}

// A page that resolves its own name to a pod reaches listeners that know no Host.
func TestReboundNameCannotWriteWhereAnyHostIsAccepted(t *testing.T) {
	s := localtest.StartWritable(t, local.Config{})
	routed := s.Listen(t, "tcp", func(ln net.Listener) error { return s.ServeRouted(ln, nil) })
	c := localtest.Dial(t, "tcp", routed)
	c.Send("DELETE /v1/raw/a HTTP/1.1\r\nHost: evil.example:7072\r\nOrigin: http://evil.example:7072\r\n\r\n")
	if resp, body := c.Response("DELETE"); resp.StatusCode != 403 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestResponseWithoutTheRow(t *testing.T) {
	s := localtest.StartWritable(t, local.Config{})
	c := localtest.Dial(t, "tcp", s.HTTP)
	row := `{"value":1}`
	for _, tt := range []struct {
		request string
		status  int
		applied bool
	}{
		{localtest.Put("/v1/rows/a", row, "Prefer: return=minimal"), 204, true},
		{localtest.Put("/v1/rows/p1", row, "If-None-Match: *", `Prefer: respond-async, Return="minimal"; x=y`), 201, true},
		{localtest.Put("/v1/rows/a", row, "Prefer: return=representation, return=minimal"), 200, false},
		{localtest.Put("/v1/rows/a", row, "Prefer: handling=strict"), 200, false},
		{localtest.Put("/v1/rows/a", row, "Prefer: return=minimal", "Ringside-If-Version: 99"), 409, false},
		{localtest.Post("/v1/rows/a", row, "X-HTTP-Method-Override: PUT", "Prefer: return=minimal"), 204, true},
		{localtest.Delete("/v1/rows/a", "Prefer: return=minimal"), 204, true},
		{localtest.Delete("/v1/rows/a"), 204, false},
	} {
		c.Send(tt.request)
		method, _, _ := strings.Cut(tt.request, " ")
		resp, body := c.Response(method)
		h := resp.Header
		if resp.StatusCode != tt.status || (h.Get("Preference-Applied") == "return=minimal") != tt.applied {
			t.Errorf("%s: got %d %v %s", tt.request, resp.StatusCode, h, body)
		}
		if tt.applied && (body != "" || h.Get("ETag") != "" || h.Get("Content-Location") != "" || h.Get("Cache-Control") != "no-store") {
			t.Errorf("%s: got %q with %v, want no row and nothing that describes one", tt.request, body, h)
		}
		checkDocumented(t, tt.request, resp, "")
	}
}

// A client without PUT and DELETE, such as Kamailio, writes by POST.
func TestMethodOverride(t *testing.T) {
	s := localtest.StartWritable(t, local.Config{})
	c := localtest.Dial(t, "tcp", s.HTTP)
	const put, del = "X-HTTP-Method-Override: PUT", "X-HTTP-Method-Override: DELETE"
	for _, tt := range []struct {
		request string
		status  int
		problem string
	}{
		{localtest.Post("/v1/rows/o1", `{"value":1}`, put, "If-None-Match: *"), 201, ""},
		{localtest.Post("/v1/rows/o1", `{"value":2}`, put, "Content-Type: application/x-www-form-urlencoded"), 200, ""},
		{localtest.Post("/v1/rows/o1", `{"value":2}`, put, `If-Match: "x"`), 412, "precondition-failed"},
		{localtest.Post("/v1/rows/o1", "", del), 204, ""},
		{localtest.Get("/v1/rows/o1"), 404, "not-found"},
		{localtest.Post("/v1/blobs/a", "x", put), 405, "read-only"},
		{localtest.Post("/v1/rows/a", "{}"), 400, "malformed-request"},
		{localtest.Post("/v1/rows/a", "{}", "X-HTTP-Method-Override: GET"), 400, "malformed-request"},
		{localtest.Post("/v1/rows/a", "{}", "X-HTTP-Method-Override: put"), 400, "malformed-request"},
		{localtest.Post("/v1/rows/a", "{}", put, del), 400, "malformed-request"},
		{localtest.Post("/v1/rows/a", "{}", put, "Sec-Fetch-Site: same-site"), 403, "cross-site"},
		{localtest.Post("/v1/rows/a", "", del, "Origin: http://evil.example"), 403, "cross-site"},
		// Only a POST has a method that is overridden.
		{localtest.Get("/v1/rows/a", del), 200, ""},
		{localtest.Put("/v1/rows/a", `{"value":3}`, del), 200, ""},
		{localtest.Post("/v1/rows:batchGet", `{"keys":["a"]}`, del), 200, ""},
	} {
		c.Send(tt.request)
		method, _, _ := strings.Cut(tt.request, " ")
		resp, body := c.Response(method)
		if resp.StatusCode != tt.status {
			t.Fatalf("%s: got %d %s, want %d", tt.request, resp.StatusCode, body, tt.status)
		}
		if tt.problem != "" {
			localtest.CheckProblem(t, resp, body, tt.problem)
		}
		problem := ""
		if tt.problem != "" {
			problem = apierror.BaseURI + tt.problem
		}
		checkDocumented(t, tt.request, resp, problem)
	}
	conn := localtest.Dial(t, "tcp", s.HTTP) // of a DELETE with content, which ends the connection
	conn.Send(localtest.Post("/v1/rows/a", "{}", del))
	if resp, body := conn.Response("POST"); resp.StatusCode != 400 {
		t.Errorf("a DELETE with content: got %d %s", resp.StatusCode, body)
	}
}
