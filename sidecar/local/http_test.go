package local

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

func get(target string, fields ...string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: localhost:7070\r\n" + strings.Join(append(fields, "\r\n"), "\r\n")
}

func post(target, body string, fields ...string) string {
	return "POST " + target + " HTTP/1.1\r\nHost: localhost\r\n" + strings.Join(append(fields, ""), "\r\n") +
		fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
}

// batched is what the dataset "failing" answers to a batch of the key "a".
const batched = `{"results":[{"key":"a","valueBase64":"YQ==","age":0,"maxAge":1,"source":"hit"}]}` + "\n"

// TestRawHTTP sends bytes over TCP and reads bytes back: what the library makes of HTTP is part of what is tested.
func TestRawHTTP(t *testing.T) {
	s := start(t, Config{Hosts: []string{"metrics.Internal"}, RequestTimeout: 50 * time.Millisecond, MaxBodyBytes: 40000})
	longKey := strings.Repeat("k", 1024)
	tests := []struct {
		name, request string
		status        int
		body          string            // exact; for a problem: its type after the base
		header        map[string]string // "" means: not there
	}{
		{"value", get("/v1/cnf-metrics/a"), 200, `{"cnf_id":"a"}`, map[string]string{
			"Content-Type": typeJSON, "Content-Length": "14", "Age": "0", "Server": "", "Ringside-Source": "load"}},
		{"bytes", get("/v1/blobs/a"), 200, `{"cnf_id":"a"}`, map[string]string{"Content-Type": typeBytes}},
		{"empty value", get("/v1/blobs/empty"),
			200, "", map[string]string{"Content-Type": typeBytes, "Content-Length": "0"}},
		{"slash", get("/v1/blobs/x/y"), 200, "slash", nil},
		{"escaped slash", get("/v1/blobs/x%2fy"), 200, "slash", nil},
		{"path is not cleaned", get("/v1/blobs/x//../y"), 200, "dots", nil},
		{"dots escaped", get("/v1/blobs/x//%2e%2E/y"), 200, "dots", nil},
		{"odd bytes", get("/v1/blobs/50%25%20%c3%a9%3F%23"), 200, "odd", nil},
		{"raw UTF-8", get("/v1/blobs/50%25%20é%3f%23"), 200, "odd", nil},
		{"escaped dataset", get("/v1/%62lobs/x/y"), 200, "slash", nil},
		{"key of 1024 bytes", get("/v1/blobs/" + longKey), 200, "long", nil},
		{"key of 1024 bytes, escaped", get("/v1/blobs/" + strings.Repeat("%6b", 1024)), 200, "long", nil},
		{"key of 1025 bytes", get("/v1/blobs/k" + longKey), 414, "key-too-long", nil},
		{"absolute form", "GET http://localhost/v1/blobs/x//../y HTTP/1.1\r\nHost: evil.example\r\n\r\n",
			200, "dots", nil},
		{"absolute form, wrong host", "GET http://evil.example/v1/blobs/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
			421, "wrong-host", nil},
		{"absolute form without path", "GET http://localhost HTTP/1.1\r\nHost: localhost\r\n\r\n", 200, pointer, nil},
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
		{"cross site", get("/v1/blobs/a", "Sec-Fetch-Site: cross-site"), 403, "cross-site", nil},
		{"same origin", get("/v1/blobs/x/y", "Sec-Fetch-Site: same-origin"), 200, "slash", nil},
		{"no CORS", get("/v1/blobs/x/y", "Origin: https://evil.example"), 200, "slash",
			map[string]string{"Access-Control-Allow-Origin": ""}},
		{"bad escape", get("/v1/blobs/%zz"), 400, "invalid-key", nil},
		{"cut escape", get("/v1/blobs/%4"), 400, "invalid-key", nil},
		{"bad escape in dataset", get("/v1/%zz/a"), 400, "malformed-request", nil},
		{"not UTF-8", get("/v1/blobs/%ff"), 400, "invalid-key", nil},
		{"not UTF-8, whatever the dataset says", get("/v1/failing/%ff"), 400, "invalid-key", nil},
		{"empty key", get("/v1/blobs/"), 400, "invalid-key", nil},
		{"no key", get("/v1/blobs"), 404, "no-such-route", nil},
		{"query", get("/v1/blobs/a?b=c"), 400, "malformed-request", nil},
		{"no such route", get("/v2/blobs/a"), 404, "no-such-route", nil},
		{"outside", get("/../v1/blobs/a"), 404, "no-such-route", nil},
		{"unknown dataset", get("/v1/cnf-metric/a"),
			404, "unknown-dataset", map[string]string{"Cache-Control": "no-store"}},
		{"absent", get("/v1/blobs/none"), 404, "absent", map[string]string{"Cache-Status": "ringside; fwd=miss"}},
		{"PUT", "PUT /v1/blobs/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx", 405, "read-only",
			map[string]string{"Allow": "GET, HEAD"}},
		{"DELETE", "DELETE /v1/blobs/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "read-only",
			map[string]string{"Allow": "GET, HEAD"}},
		{"PATCH", "PATCH /v1/cnf-metrics/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "method-not-allowed",
			map[string]string{"Allow": "GET, HEAD, PUT, DELETE"}},
		{"PATCH, read only", "PATCH /v1/blobs/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "method-not-allowed",
			map[string]string{"Allow": "GET, HEAD, PUT, DELETE"}},
		{"OPTIONS of an unknown dataset", "OPTIONS /v1/nope/x HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "unknown-dataset",
			map[string]string{"Allow": ""}},
		{"OPTIONS of no route", "OPTIONS /nope HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "no-such-route",
			map[string]string{"Allow": ""}},
		{"DELETE of a dataset", "DELETE /v1/blobs HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "no-such-route", nil},
		{"verb in lower case", post("/v1/blobs:batchget", `{"keys":["a"]}`), 404, "no-such-route", nil},
		{"TRACE", "TRACE /v1/blobs/a HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "method-not-allowed", nil},
		{"CONNECT", "CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "method-not-allowed", nil},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "method-not-allowed", nil},
		{"GET invalidate", get("/v1/blobs:invalidate"), 405, "method-not-allowed", map[string]string{"Allow": "POST"}},
		{"GET batchGet", get("/v1/blobs:batchGet"), 405, "method-not-allowed", map[string]string{"Allow": "POST"}},
		{"root", get("/"), 200, pointer, map[string]string{"Content-Type": typeText}},
		{"datasets", get("/v1/datasets"),
			200, `{"datasets":[{"name":"blobs","contentType":"application/octet-stream"},` +
				`{"name":"cnf-metrics","contentType":"application/json"},` +
				`{"name":"failing","contentType":"application/octet-stream"}]}` + "\n", nil},
		{"openapi", get("/openapi.json"), 200, string(openAPI), map[string]string{"Content-Type": typeJSON}},
		{"only-if-cached", get("/v1/blobs/never-read", `Cache-Control: x="a,no-cache", ONLY-if-cached ,,=`),
			504, "not-cached", nil},
		{"only-if-cached on its second line",
			get("/v1/blobs/never-read", "Cache-Control: foo", "cache-control: only-if-cached"), 504, "not-cached", nil},
		{"no-cache", get("/v1/cnf-metrics/a", "Cache-Control: no-cache"), 200, `{"cnf_id":"a"}`,
			map[string]string{"Cache-Status": "ringside; fwd=request", "Ringside-Source": "load"}},
		{"overloaded", get("/v1/failing/overloaded"), 429, "overloaded", map[string]string{"Retry-After": "2"}},
		{"unavailable", get("/v1/failing/unavailable"),
			503, "origin-unavailable", map[string]string{"Retry-After": "1"}},
		{"invalid", get("/v1/failing/invalid"), 400, "invalid-key", nil},
		{"canceled", get("/v1/failing/canceled"), 503, "canceled", map[string]string{"Retry-After": "1"}},
		{"deadline", get("/v1/failing/wait"), 504, "deadline", map[string]string{"Cache-Control": "no-store"}},
		{"internal", get("/v1/failing/internal"), 500, "internal", nil},
		{"panic", get("/v1/failing/panic"), 500, "internal", nil},
		{"garbage", "\x16\x03\x01 hello\r\n\r\n", 400, "malformed-request", nil},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "malformed-request", nil},
		{"space in header name", get("/v1/blobs/a", "Content-Length : 0"), 400, "malformed-request", nil},
		{"two lengths", get("/v1/blobs/a", "Content-Length: 0", "Content-Length: 5"), 400, "malformed-request", nil},
		{"large header", get("/v1/blobs/a", "X: "+strings.Repeat("x", 20000)), 431, "header-too-large", nil},
		{"large target", get("/v1/blobs/" + strings.Repeat("x", 20000)), 431, "header-too-large", nil},
		{"large body", post("/v1/blobs:batchGet", strings.Repeat(" ", 40001)), 413, "body-too-large", nil},
		{"large chunked body", "POST /v1/blobs:batchGet HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"ffffff\r\n" + strings.Repeat(" ", 40001), 413, "body-too-large", nil},
		{"batch", post("/v1/failing:batchGet", `{"keys":["a"]}`), 200, batched, map[string]string{"Cache-Control": "no-store"}},
		{"chunked batch", "POST /v1/failing:batchGet HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"4\r\n{\"ke\r\na\r\nys\":[\"a\"]}\r\n0\r\n\r\n", 200, batched, nil},
		{"batch of no keys", post("/v1/failing:batchGet", `{"keys":[]}`), 400, "invalid-batch", nil},
		{"batch of an unknown dataset", post("/v1/nothing:batchGet", `{"keys":[]}`), 404, "unknown-dataset", nil},
		{"batch, bad body", post("/v1/failing:batchGet", `{"keys":["a"]} x`), 400, "invalid-batch", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, "tcp", s.http)
			c.send(tt.request)
			resp, body := c.answer("GET")
			if resp.StatusCode != tt.status {
				t.Fatalf("status %d, want %d: %s", resp.StatusCode, tt.status, body)
			}
			if tt.status >= 400 {
				checkProblem(t, resp, body, tt.body)
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

func checkProblem(t *testing.T, resp *http.Response, body, name string) {
	t.Helper()
	if got := resp.Header.Get("Content-Type"); got != apierror.ContentType {
		t.Errorf("Content-Type %q of a problem", got)
	}
	var d apierror.Problem
	if err := json.Unmarshal([]byte(body), &d); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if d.Type != apierror.BaseURI+name || d.Status != resp.StatusCode || d.Title == "" || d.Detail == "" {
		t.Errorf("problem %+v, want type %s", d, name)
	}
	if strings.Contains(body, "canary-secret") {
		t.Errorf("an unclassified error is shown: %s", body)
	}
}

func TestUnknownDatasetNamesTheNearOnes(t *testing.T) {
	c := dial(t, "tcp", start(t, Config{}).http)
	c.send(get("/v1/cnf_metrics/a"))
	_, body := c.answer("GET")
	var d apierror.Problem
	if err := json.Unmarshal([]byte(body), &d); err != nil || len(d.Datasets) != 1 || d.Datasets[0] != "cnf-metrics" {
		t.Errorf("%v: %s", err, body)
	}
}

func TestHeadAnswersAsGetWithoutTheBody(t *testing.T) {
	c := dial(t, "tcp", start(t, Config{}).http)
	for _, target := range []string{"/v1/cnf-metrics/a", "/v1/cnf-metrics/none", "/openapi.json"} {
		c.send(get(target))
		want, body := c.answer("GET")
		c.send(strings.Replace(get(target), "GET", "HEAD", 1))
		got, _ := c.answer("HEAD")
		if got.StatusCode != want.StatusCode || got.ContentLength != int64(len(body)) {
			t.Errorf("%s: HEAD %d with length %d, GET %d with %d",
				target, got.StatusCode, got.ContentLength, want.StatusCode, len(body))
		}
	}
	c.send(get("/"))
	if resp, body := c.answer("GET"); resp.StatusCode != 200 || body != pointer {
		t.Errorf("after HEAD the connection is out of step: %d %q", resp.StatusCode, body)
	}
}

func TestIfNoneMatch(t *testing.T) {
	c := dial(t, "tcp", start(t, Config{}).http)
	c.send(get("/v1/cnf-metrics/a"))
	first, _ := c.answer("GET")
	etag := first.Header.Get("ETag")
	if etag == "" {
		t.Fatal("no ETag")
	}
	c.send(get("/v1/cnf-metrics/a", `If-None-Match: "other"`, `If-None-Match: W/`+etag))
	resp, body := c.answer("GET")
	if resp.StatusCode != 304 || body != "" || resp.Header.Get("ETag") != etag || resp.Header.Get("Cache-Control") == "" {
		t.Errorf("%d %q %v", resp.StatusCode, body, resp.Header)
	}
	checkDocumented(t, "GET /v1/cnf-metrics/a", resp, "")
	c.send(get("/v1/cnf-metrics/a", `If-None-Match: "other"`))
	if resp, _ := c.answer("GET"); resp.StatusCode != 200 {
		t.Errorf("another etag: %d", resp.StatusCode)
	}
}

func TestIfMatchOfARead(t *testing.T) {
	c := dial(t, "tcp", start(t, Config{}).http)
	c.send(get("/v1/cnf-metrics/a"))
	first, _ := c.answer("GET")
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
			request := strings.Replace(get("/v1/cnf-metrics/"+test.target, "If-Match: "+test.ifMatch,
				"If-None-Match: "+test.ifNoneMatch), "GET", method, 1)
			c.send(request)
			resp, body := c.answer(method)
			if resp.StatusCode != test.status {
				t.Errorf("%s If-Match: %s, If-None-Match: %s: %d, want %d", method, test.ifMatch, test.ifNoneMatch,
					resp.StatusCode, test.status)
			}
			if test.status == 412 && method == "GET" {
				checkProblem(t, resp, body, "precondition-failed")
				checkDocumented(t, request, resp, apierror.BaseURI+"precondition-failed")
			}
		}
	}
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	c := dial(t, "tcp", start(t, Config{}).http)
	c.send(get("/v1/blobs/x/y") + get("/v1/blobs/none") + post("/v1/failing:batchGet", `{"keys":["a"]}`) +
		get("/v1/blobs/x//../y"))
	for i, want := range []int{200, 404, 200, 200} {
		if resp, body := c.answer("GET"); resp.StatusCode != want {
			t.Errorf("answer %d: %d %s", i, resp.StatusCode, body)
		}
	}
}

func TestExpectContinue(t *testing.T) {
	c := dial(t, "tcp", start(t, Config{}).http)
	head, body, _ := strings.Cut(post("/v1/failing:batchGet", `{"keys":["a"]}`, "Expect: 100-continue"), "\r\n\r\n")
	c.send(head + "\r\n\r\n")
	if line, err := c.r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100") {
		t.Fatalf("%q, %v", line, err)
	}
	if _, err := c.r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	c.send(body)
	if resp, got := c.answer("POST"); resp.StatusCode != 200 || got != batched {
		t.Errorf("%d %q", resp.StatusCode, got)
	}
}

func TestExpectContinueIsRefusedAtOnce(t *testing.T) {
	s := start(t, Config{MaxBodyBytes: 10})
	for name, test := range map[string]struct {
		request string // without its end
		status  int
		problem string
		allow   string
	}{
		"larger than the bound": {"PUT /v1/cnf-metrics/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11", 413, "body-too-large", ""},
		"read only":             {"PUT /v1/blobs/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9", 405, "read-only", "GET, HEAD"},
		"no such dataset":       {"PUT /v1/nope/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9", 404, "unknown-dataset", ""},
		"another site": {"PUT /v1/cnf-metrics/a HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil\r\nContent-Length: 9", 403,
			"cross-site", ""},
		"another host": {"POST /v1/blobs:batchGet HTTP/1.1\r\nHost: evil\r\nContent-Length: 9", 421, "wrong-host", ""},
	} {
		c := dial(t, "tcp", s.http)
		c.send(test.request + "\r\nExpect: 100-continue\r\n\r\n")
		resp, body := c.answer("PUT")
		if resp.StatusCode != test.status || resp.Header.Get("Allow") != test.allow || !resp.Close {
			t.Errorf("%s: %d %v %s", name, resp.StatusCode, resp.Header, body)
			continue
		}
		checkProblem(t, resp, body, test.problem)
		c.closed()
	}
}

// A request with both framings may be two requests to somebody else (RFC 9112, 6.3).
func TestSmuggledRequestIsNotAnswered(t *testing.T) {
	c := dial(t, "tcp", start(t, Config{}).http)
	c.send("POST /v1/failing:batchGet HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n" +
		"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + get("/v1/blobs/a"))
	c.answer("POST")
	c.closed()
}

func TestFoundHeaders(t *testing.T) {
	hit := cache.Answer{Value: []byte("v"), Version: 7, ETag: `"e"`, Age: 2900 * time.Millisecond,
		Fresh: 4900 * time.Millisecond, Source: cache.SourceHit}
	with := func(change func(*cache.Answer)) cache.Answer {
		a := hit
		change(&a)
		return a
	}
	tests := []struct {
		name   string
		answer cache.Answer
		o      cache.ReadOptions
		status string // Cache-Status
		maxAge string
	}{
		{"hit", hit, cache.ReadOptions{}, "ringside; hit; ttl=4", "max-age=4"},
		{"stale", with(func(a *cache.Answer) { a.Stale, a.Detail = true, "origin-error" }), cache.ReadOptions{},
			"ringside; hit; ttl=0; detail=origin-error", "max-age=0"},
		{"local copy", with(func(a *cache.Answer) { a.Source, a.Owner = cache.SourceLocalHit, "n2" }), cache.ReadOptions{},
			"ringside; hit; ttl=4", "max-age=4"},
		{"owner's memory", with(func(a *cache.Answer) { a.Source, a.Owner = cache.SourcePeerHit, `n"2\é` }),
			cache.ReadOptions{}, `"n\"2\\??"; hit; ttl=4, ringside; fwd=miss`, "max-age=4"},
		{"owner's load", with(func(a *cache.Answer) { a.Source, a.Owner = cache.SourceLoad, "n2" }), cache.ReadOptions{},
			`"n2"; fwd=miss, ringside; fwd=miss`, "max-age=4"},
		{"own load", with(func(a *cache.Answer) { a.Source = cache.SourceLoad }), cache.ReadOptions{},
			"ringside; fwd=miss", "max-age=4"},
		{"asked for a load", with(func(a *cache.Answer) { a.Source, a.Owner = cache.SourceLoad, "n2" }),
			cache.ReadOptions{NoCache: true}, `"n2"; fwd=request, ringside; fwd=request`, "max-age=4"},
		{"detour", with(func(a *cache.Answer) { a.Source, a.Owner, a.Detail = cache.SourcePeerHit, "n3", "owner away" }),
			cache.ReadOptions{}, `"n3"; hit; ttl=4, ringside; fwd=miss; detail="owner away"`, "max-age=4"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCall()
			c.found(&tt.answer, tt.o, typeJSON)
			got := map[string]string{}
			for _, f := range c.fields {
				got[f.name] = string(f.value)
			}
			want := map[string]string{"ETag": `"e"`, "Age": "2", "Cache-Control": tt.maxAge, "Cache-Status": tt.status,
				"Ringside-Version": "7", "Ringside-Source": tt.answer.Source.String(), "Ringside-Stale": ""}
			if tt.answer.Stale {
				want["Ringside-Stale"] = "true"
			}
			for name := range want {
				if got[name] != want[name] {
					t.Errorf("%s: %q, want %q", name, got[name], want[name])
				}
			}
			checkCacheStatus(t, got["Cache-Status"])
		})
	}
}
