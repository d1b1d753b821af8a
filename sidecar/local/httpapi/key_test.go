package httpapi_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

const greeting = "Ringside serves datasets: GET /v1/{dataset}/{key}. GET /openapi.json describes this API.\n"

// batched is the response of the dataset "failing" to a batch of the key "a".
const batched = `{"results":[{"key":"a","valueBase64":"YQ==","age":0,"maxAge":1,"source":"hit"}]}` + "\n"

// TestRawHTTP writes requests byte by byte to a TCP connection, so that it also tests the HTTP library.
func TestRawHTTP(t *testing.T) {
	s := localtest.Start(t, local.Config{Hosts: []string{"metrics.Internal"}, RequestTimeout: 2 * time.Second, MaxBodyBytes: 40000})
	longKey := strings.Repeat("k", 1024)
	tests := []struct {
		name, request string
		status        int
		body          string            // exact; of a problem its type, without the base
		header        map[string]string // "" means that the field is absent
	}{
		{"value", localtest.Get("/v1/cnf-metrics/a"), 200, `{"cnf_id":"a"}`, map[string]string{
			"Content-Type": "application/json", "Content-Length": "14", "Age": "0", "Server": "", "Ringside-Source": "load"}},
		{"bytes", localtest.Get("/v1/blobs/a"), 200, `{"cnf_id":"a"}`, map[string]string{"Content-Type": "application/octet-stream"}},
		{"empty value", localtest.Get("/v1/blobs/empty"),
			200, "", map[string]string{"Content-Type": "application/octet-stream", "Content-Length": "0"}},
		{"slash", localtest.Get("/v1/blobs/x/y"), 200, "slash", nil},
		{"escaped slash", localtest.Get("/v1/blobs/x%2fy"), 200, "slash", nil},
		{"path is not cleaned", localtest.Get("/v1/blobs/x//../y"), 200, "dots", nil},
		{"dots escaped", localtest.Get("/v1/blobs/x//%2e%2E/y"), 200, "dots", nil},
		{"odd bytes", localtest.Get("/v1/blobs/50%25%20%c3%a9%3F%23"), 200, "odd", nil},
		{"raw UTF-8", localtest.Get("/v1/blobs/50%25%20é%3f%23"), 200, "odd", nil},
		{"escaped dataset", localtest.Get("/v1/%62lobs/x/y"), 200, "slash", nil},
		{"key of 1024 bytes", localtest.Get("/v1/blobs/" + longKey), 200, "long", nil},
		{"key of 1024 bytes, escaped", localtest.Get("/v1/blobs/" + strings.Repeat("%6b", 1024)), 200, "long", nil},
		{"key of 1025 bytes", localtest.Get("/v1/blobs/k" + longKey), 414, "key-too-long", nil},
		{"absolute form", "GET http://localhost/v1/blobs/x//../y HTTP/1.1\r\nHost: evil.example\r\n\r\n",
			200, "dots", nil},
		{"absolute form, wrong host", "GET http://evil.example/v1/blobs/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
			421, "wrong-host", nil},
		{"absolute form without path", "GET http://localhost HTTP/1.1\r\nHost: localhost\r\n\r\n", 200, greeting, nil},
		{"HTTP/1.0 without Host", "GET /v1/blobs/x/y HTTP/1.0\r\n\r\n",
			200, "slash", map[string]string{"Connection": "close"}},
		{"HTTP/1.0 keep-alive", "GET /v1/blobs/x/y HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 200, "slash",
			map[string]string{"Connection": "keep-alive"}},
		{"HTTP/1.1 without Host", "GET /v1/blobs/a HTTP/1.1\r\n\r\n", 400, "malformed-request", nil},
		{"empty Host", "GET /v1/blobs/a HTTP/1.1\r\nHost:\r\n\r\n", 400, "malformed-request", nil},
		{"absolute form, empty host", "GET http:///v1/blobs/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
			400, "malformed-request", nil},
		{"two Hosts", "GET /v1/blobs/a HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
			400, "malformed-request", nil},
		{"HTTP/2.0 without preface", "GET /v1/blobs/a HTTP/2.0\r\nHost: localhost\r\n\r\n", 505, "http-version", nil},
		{"wrong Host", "GET /v1/blobs/a HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421, "wrong-host", nil},
		{"configured Host", "GET /v1/blobs/x/y HTTP/1.1\r\nhOsT: METRICS.internal:80\r\n\r\n", 200, "slash", nil},
		{"IPv6 Host", "GET /v1/blobs/x/y HTTP/1.1\r\nHost: [::1]:7070\r\n\r\n", 200, "slash", nil},
		{"cross site", localtest.Get("/v1/blobs/a", "Sec-Fetch-Site: cross-site"), 403, "cross-site", nil},
		{"same origin", localtest.Get("/v1/blobs/x/y", "Sec-Fetch-Site: same-origin"), 200, "slash", nil},
		{"no CORS", localtest.Get("/v1/blobs/x/y", "Origin: https://evil.example"), 200, "slash",
			map[string]string{"Access-Control-Allow-Origin": ""}},
		{"bad escape", localtest.Get("/v1/blobs/%zz"), 400, "invalid-key", nil},
		{"cut escape", localtest.Get("/v1/blobs/%4"), 400, "invalid-key", nil},
		{"bad escape in dataset", localtest.Get("/v1/%zz/a"), 400, "malformed-request", nil},
		{"not UTF-8", localtest.Get("/v1/blobs/%ff"), 400, "invalid-key", nil},
		{"not UTF-8, whatever the dataset says", localtest.Get("/v1/failing/%ff"), 400, "invalid-key", nil},
		{"empty key", localtest.Get("/v1/blobs/"), 400, "invalid-key", nil},
		{"no key", localtest.Get("/v1/blobs"), 405, "method-not-allowed", map[string]string{"Allow": "POST"}},
		{"query", localtest.Get("/v1/blobs/a?b=c"), 400, "malformed-request", nil},
		{"no such route", localtest.Get("/v2/blobs/a"), 404, "no-such-route", nil},
		{"outside", localtest.Get("/../v1/blobs/a"), 404, "no-such-route", nil},
		{"unknown dataset", localtest.Get("/v1/cnf-metric/a"),
			404, "unknown-dataset", map[string]string{"Cache-Control": "no-store"}},
		{"not found", localtest.Get("/v1/blobs/none"), 404, "not-found", map[string]string{"Cache-Status": "ringside; fwd=miss"}},
		{"PUT", "PUT /v1/blobs/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", 405, "read-only",
			map[string]string{"Allow": "GET, HEAD"}},
		{"DELETE", "DELETE /v1/blobs/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "read-only",
			map[string]string{"Allow": "GET, HEAD"}},
		{"PATCH", "PATCH /v1/cnf-metrics/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "method-not-allowed",
			map[string]string{"Allow": "GET, HEAD, PUT, DELETE, POST"}},
		{"PATCH, read only", "PATCH /v1/blobs/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "method-not-allowed",
			map[string]string{"Allow": "GET, HEAD, PUT, DELETE, POST"}},
		{"OPTIONS of an unknown dataset", "OPTIONS /v1/nope/x HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "unknown-dataset",
			map[string]string{"Allow": ""}},
		{"OPTIONS of no route", "OPTIONS /nope HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "no-such-route",
			map[string]string{"Allow": ""}},
		{"DELETE of a dataset", "DELETE /v1/blobs HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "method-not-allowed", nil},
		{"verb in lower case", localtest.Post("/v1/blobs:batchget", `{"keys":["a"]}`), 404, "no-such-route", nil},
		{"TRACE", "TRACE /v1/blobs/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "method-not-allowed", nil},
		{"CONNECT", "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "method-not-allowed", nil},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "method-not-allowed", nil},
		{"GET invalidate", localtest.Get("/v1/blobs:invalidate"), 405, "method-not-allowed", map[string]string{"Allow": "POST"}},
		{"GET batchGet", localtest.Get("/v1/blobs:batchGet"), 405, "method-not-allowed", map[string]string{"Allow": "POST"}},
		{"root", localtest.Get("/"), 200, greeting, map[string]string{"Content-Type": "text/plain; charset=utf-8"}},
		{"datasets", localtest.Get("/v1/datasets"),
			200, `{"datasets":[{"name":"blobs"},` +
				`{"name":"cnf-metrics","contentType":"application/json"},` +
				`{"name":"failing"}]}` + "\n", nil},
		{"openapi", localtest.Get("/openapi.json"), 200, description(t), map[string]string{"Content-Type": "application/json"}},
		{"only-if-cached", localtest.Get("/v1/blobs/never-read", `Cache-Control: x="a,no-cache", ONLY-if-cached ,,=`),
			504, "not-cached", nil},
		{"only-if-cached on its second line",
			localtest.Get("/v1/blobs/never-read", "Cache-Control: foo", "cache-control: only-if-cached"), 504, "not-cached", nil},
		{"no-cache", localtest.Get("/v1/cnf-metrics/a", "Cache-Control: no-cache"), 200, `{"cnf_id":"a"}`,
			map[string]string{"Cache-Status": "ringside; fwd=request", "Ringside-Source": "load"}},
		{"overloaded", localtest.Get("/v1/failing/overloaded"), 429, "overloaded", map[string]string{"Retry-After": "2"}},
		{"unavailable", localtest.Get("/v1/failing/unavailable"),
			503, "origin-unavailable", map[string]string{"Retry-After": "1"}},
		{"invalid", localtest.Get("/v1/failing/invalid"), 400, "invalid-key", nil},
		{"canceled", localtest.Get("/v1/failing/canceled"), 503, "canceled", map[string]string{"Retry-After": "1"}},
		{"deadline", localtest.Get("/v1/failing/wait"), 504, "deadline", map[string]string{"Cache-Control": "no-store"}},
		{"internal", localtest.Get("/v1/failing/internal"), 500, "internal", nil},
		{"panic", localtest.Get("/v1/failing/panic"), 500, "internal", nil},
		{"garbage", "\x16\x03\x01 hello\r\n\r\n", 400, "malformed-request", nil},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "malformed-request", nil},
		{"space in header name", localtest.Get("/v1/blobs/a", "Content-Length : 0"), 400, "malformed-request", nil},
		{"two lengths", localtest.Get("/v1/blobs/a", "Content-Length: 0", "Content-Length: 5"), 400, "malformed-request", nil},
		{"large header", localtest.Get("/v1/blobs/a", "X: "+strings.Repeat("x", 20000)), 431, "header-too-large", nil},
		{"large target", localtest.Get("/v1/blobs/" + strings.Repeat("x", 20000)), 431, "header-too-large", nil},
		{"large body", localtest.Post("/v1/blobs:batchGet", strings.Repeat(" ", 40001)), 413, "body-too-large", nil},
		{"large chunked body", "POST /v1/blobs:batchGet HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"ffffff\r\n" + strings.Repeat(" ", 40001), 413, "body-too-large", nil},
		{"batch", localtest.Post("/v1/failing:batchGet", `{"keys":["a"]}`), 200, batched, map[string]string{"Cache-Control": "no-store"}},
		{"chunked batch", "POST /v1/failing:batchGet HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"4\r\n{\"ke\r\na\r\nys\":[\"a\"]}\r\n0\r\n\r\n", 200, batched, nil},
		{"batch of no keys", localtest.Post("/v1/failing:batchGet", `{"keys":[]}`), 400, "invalid-batch", nil},
		{"batch of an unknown dataset", localtest.Post("/v1/nothing:batchGet", `{"keys":[]}`), 404, "unknown-dataset", nil},
		{"batch, bad body", localtest.Post("/v1/failing:batchGet", `{"keys":["a"]} x`), 400, "invalid-batch", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := localtest.Dial(t, "tcp", s.HTTP)
			c.Send(tt.request)
			resp, body := c.Response("GET")
			if resp.StatusCode != tt.status {
				t.Fatalf("status %d, want %d: %s", resp.StatusCode, tt.status, body)
			}
			if tt.status >= 400 {
				localtest.CheckProblem(t, resp, body, tt.body)
				checkDocumented(t, tt.request, resp, apierror.BaseURI+tt.body)
			} else {
				checkDocumented(t, tt.request, resp, "")
			}
			if tt.status < 400 && body != tt.body {
				t.Errorf("body %q, want %q", body, tt.body)
			}
			for name, want := range tt.header {
				if got := resp.Header.Get(name); got != want && !(name == "Connection" && resp.Close == (want == "close")) {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			if resp.Header.Get("Date") == "" {
				t.Error("no Date (RFC 9110, 6.6.1)")
			}
		})
	}
}

func TestUnknownDatasetSuggestsSimilarNames(t *testing.T) {
	c := localtest.Dial(t, "tcp", localtest.Start(t, local.Config{}).HTTP)
	c.Send(localtest.Get("/v1/cnf_metrics/a"))
	_, body := c.Response("GET")
	var d apierror.Problem
	if err := json.Unmarshal([]byte(body), &d); err != nil || len(d.Datasets) != 1 || d.Datasets[0] != "cnf-metrics" {
		t.Errorf("%v: %s", err, body)
	}
}

func TestHeadIsGetWithoutTheBody(t *testing.T) {
	c := localtest.Dial(t, "tcp", localtest.Start(t, local.Config{}).HTTP)
	for _, target := range []string{"/v1/cnf-metrics/a", "/v1/cnf-metrics/none", "/openapi.json"} {
		c.Send(localtest.Get(target))
		want, body := c.Response("GET")
		c.Send(strings.Replace(localtest.Get(target), "GET", "HEAD", 1))
		got, _ := c.Response("HEAD")
		if got.StatusCode != want.StatusCode || got.ContentLength != int64(len(body)) {
			t.Errorf("%s: HEAD %d with length %d, GET %d with %d",
				target, got.StatusCode, got.ContentLength, want.StatusCode, len(body))
		}
	}
	c.Send(localtest.Get("/"))
	if resp, body := c.Response("GET"); resp.StatusCode != 200 || body != greeting {
		t.Errorf("after HEAD: got %d %q", resp.StatusCode, body)
	}
}

func TestIfNoneMatch(t *testing.T) {
	c := localtest.Dial(t, "tcp", localtest.Start(t, local.Config{}).HTTP)
	c.Send(localtest.Get("/v1/cnf-metrics/a"))
	first, _ := c.Response("GET")
	etag := first.Header.Get("ETag")
	if etag == "" {
		t.Fatal("no ETag")
	}
	c.Send(localtest.Get("/v1/cnf-metrics/a", `If-None-Match: "other"`, `If-None-Match: W/`+etag))
	resp, body := c.Response("GET")
	if resp.StatusCode != 304 || body != "" || resp.Header.Get("ETag") != etag || resp.Header.Get("Cache-Control") == "" {
		t.Errorf("%d %q %v", resp.StatusCode, body, resp.Header)
	}
	checkDocumented(t, "GET /v1/cnf-metrics/a", resp, "")
	c.Send(localtest.Get("/v1/cnf-metrics/a", `If-None-Match: "other"`))
	if resp, _ := c.Response("GET"); resp.StatusCode != 200 {
		t.Errorf("another etag: %d", resp.StatusCode)
	}
}

func TestIfMatchOfARead(t *testing.T) {
	c := localtest.Dial(t, "tcp", localtest.Start(t, local.Config{}).HTTP)
	c.Send(localtest.Get("/v1/cnf-metrics/a"))
	first, _ := c.Response("GET")
	etag := first.Header.Get("ETag")
	for _, test := range []struct {
		target, ifMatch, ifNoneMatch string
		status                       int
	}{
		{"a", etag, `"other"`, 200}, {"a", `"other", ` + etag, `"other"`, 200}, {"a", "*", `"other"`, 200},
		{"a", `"other"`, `"other"`, 412}, {"a", "W/" + etag, `"other"`, 412}, {"a", "", `"other"`, 412},
		{"a", etag, etag, 304}, {"a", `"other"`, etag, 412}, {"none", `"other"`, `"other"`, 404},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			request := strings.Replace(localtest.Get("/v1/cnf-metrics/"+test.target, "If-Match: "+test.ifMatch,
				"If-None-Match: "+test.ifNoneMatch), "GET", method, 1)
			c.Send(request)
			resp, body := c.Response(method)
			if resp.StatusCode != test.status {
				t.Errorf("%s If-Match: %s, If-None-Match: %s: %d, want %d", method, test.ifMatch, test.ifNoneMatch,
					resp.StatusCode, test.status)
			}
			if test.status == 412 && method == "GET" {
				localtest.CheckProblem(t, resp, body, "precondition-failed")
				checkDocumented(t, request, resp, apierror.BaseURI+"precondition-failed")
			}
		}
	}
}

func TestReadDirectivesReachTheDataset(t *testing.T) {
	options := make(chan kv.ReadOptions, 1)
	d := localtest.Scripted{ItsName: "d", OnGet: func(_ context.Context, _ string, o kv.ReadOptions) (kv.Answer, error) {
		options <- o
		return kv.Answer{Value: []byte("v"), Source: kv.SourceHit}, nil
	}}
	s := localtest.Start(t, local.Config{}, local.Served{Dataset: d})
	want := kv.ReadOptions{NoCache: true, LimitStale: true, MaxStale: 3 * time.Second, MinVersion: 7}
	directives := []string{"Cache-Control: no-cache", "Cache-Control: max-stale=3", "Ringside-Min-Version: 7"}
	c := localtest.Dial(t, "tcp", s.HTTP)
	c.Send(localtest.Get("/v1/d/k", directives...))
	c.Response("GET")
	if got := <-options; got != want {
		t.Errorf("GET: %+v", got)
	}
	c.Send(localtest.Post("/v1/d:batchGet", `{"keys":["k"]}`, directives...))
	c.Response("POST")
	if got := <-options; got != want {
		t.Errorf("batchGet: %+v", got)
	}
	q := &ringsidev1.GetRequest{Dataset: "d", Key: "k", NoCache: true, MaxStale: durationpb.New(3 * time.Second),
		MinVersion: 7}
	if _, err := localtest.Client(t, s.GRPC).Get(t.Context(), q); err != nil {
		t.Error(err)
	}
	if got := <-options; got != want {
		t.Errorf("gRPC: %+v", got)
	}
}
