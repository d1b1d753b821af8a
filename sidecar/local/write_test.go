package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/origintest"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

// newWritable returns a real dataset that takes writes.
func newWritable(tb testing.TB, name string, fake *origintest.Fake) *cache.Dataset {
	tb.Helper()
	policy := cache.DefaultPolicy()
	policy.TTL, policy.TTLJitter = time.Hour, 0
	d, err := cache.New(cache.Config{Name: name, Policy: policy, Origin: fake, Writer: fake, MaxBytes: 16 << 20})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(d.Close)
	return d
}

// spoiled is a dataset whose key names how a write of it fails.
func spoiled() Dataset {
	errs := map[string]error{
		"unknown": &cache.Error{Kind: cache.KindUnknown, Err: errors.New("the owner was cut off")},
		"column": &cache.Error{Kind: cache.KindInvalidValue, Err: fmt.Errorf("%w", &origin.ValueError{Column: "unit",
			Reason: "too long"})},
		"value":    &cache.Error{Kind: cache.KindInvalidValue, Err: &origin.ValueError{Reason: "it is no JSON object"}},
		"conflict": &cache.Error{Kind: cache.KindConflict, Err: errors.New("another row has this unit")},
		"internal": errors.New("dsn postgres://canary-secret"),
	}
	return scripted{name: "spoiled",
		write: func(_ context.Context, c cache.Change) (cache.Answer, error) {
			if c.Key == "panic" {
				panic("canary-secret")
			}
			return cache.Answer{}, errs[c.Key]
		},
		get: func(context.Context, string, cache.ReadOptions) (cache.Answer, error) {
			return cache.Answer{}, &cache.Error{Kind: cache.KindVersion, RetryAfter: time.Second,
				Err: errors.New("version 3 is the latest")}
		},
		invalidate: func(_ context.Context, s cache.Scope) (cache.InvalidateResult, error) {
			if s.Prefix == "" && s.Keys == nil {
				return cache.InvalidateResult{}, &cache.Error{Kind: cache.KindOverloaded, Err: errors.New("too many")}
			}
			return cache.InvalidateResult{Members: 2, Unreached: []string{"n3"}}, nil
		},
	}
}

func startWritable(tb testing.TB, config Config) *started {
	return start(tb, config,
		Served{Dataset: newWritable(tb, "rows", origintest.New(rows())), JSON: true},
		Served{Dataset: newWritable(tb, "raw", origintest.New(rows()))},
		Served{Dataset: newDataset(tb, "blobs", origintest.New(rows()))},
		Served{Dataset: spoiled()})
}

func put(target, body string, fields ...string) string {
	return strings.Replace(post(target, body, fields...), "POST", "PUT", 1)
}

func putChunked(target, body, trailer string, fields ...string) string {
	return "PUT " + target + " HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n" +
		strings.Join(append(fields, ""), "\r\n") + fmt.Sprintf("\r\n%x\r\n%s\r\n0\r\n%s\r\n\r\n", len(body), body, trailer)
}

// A condition in a trailer is none, an origin there no page; what stands in the header counts, announced or not.
func TestTrailerFieldsMeanNothing(t *testing.T) {
	s := startWritable(t, Config{})
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
		conn := dial(t, "tcp", s.http)
		conn.send(c.request)
		if resp, body := conn.answer("PUT"); resp.StatusCode != c.status {
			t.Errorf("%s: %d, want %d: %s", c.name, resp.StatusCode, c.status, body)
		}
	}
}

func del(target string, fields ...string) string {
	return strings.Replace(get(target, fields...), "GET", "DELETE", 1)
}

func TestRawHTTPWrites(t *testing.T) {
	row := `{"value":1}`
	tests := []struct {
		name, request string
		status        int
		body          string // as in TestRawHTTP
		header        map[string]string
	}{
		{"row", put("/v1/rows/x%2Fy", row, "Content-Type: application/json; charset=utf-8"), 200, row, map[string]string{
			"Content-Type": typeJSON, "Content-Location": "/v1/rows/x%2Fy", "Ringside-Version": "2", "Age": "0",
			"Cache-Status": "ringside; fwd=method", "Ringside-Source": "", "Cache-Control": "max-age=3599"}},
		{"curl's default type", put("/v1/rows/new1", row, "Content-Type: application/x-www-form-urlencoded"), 200, row, nil},
		{"no type", put("/v1/rows/new2", row), 200, row, nil},
		{"absolute form", put("http://localhost/v1/rows/new3", row), 200, row,
			map[string]string{"Content-Location": "/v1/rows/new3"}},
		{"another type", put("/v1/rows/new4", row, "Content-Type: text/csv"), 415, "unsupported-media-type", nil},
		{"no type at all", put("/v1/rows/new4", row, "Content-Type: ;"), 415, "unsupported-media-type", nil},
		{"any type of bytes", put("/v1/raw/new", "a,b", "Content-Type: text/csv"), 200, "a,b",
			map[string]string{"Content-Type": typeBytes}},
		{"packed", put("/v1/raw/new4", "x", "Content-Encoding: gzip"), 415, "unsupported-media-type", nil},
		{"not packed", put("/v1/raw/new5", "x", "Content-Encoding: identity"), 200, "x", nil},
		{"a part", put("/v1/raw/new6", "x", "Content-Range: bytes 0-0/2"), 400, "malformed-request", nil},
		{"empty bytes", put("/v1/raw/new7", ""), 200, "", nil},
		{"in chunks", "PUT /v1/raw/new8 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" +
			"1\r\nx\r\n0\r\n\r\n", 200, "x", nil},
		{"largest value", put("/v1/raw/new9", strings.Repeat("x", cache.MaxValueBytes)), 200, strings.Repeat("x",
			cache.MaxValueBytes), nil},
		// The body is not sent: it would meet a closed connection, and the answer might be lost with it.
		{"larger value", strings.TrimRight(put("/v1/raw/new10", strings.Repeat("x", cache.MaxValueBytes+1)), "x"), 413,
			"body-too-large", nil},
		{"create", put("/v1/rows/c1", row, "If-None-Match: *"), 201, row, map[string]string{"Ringside-Version": "1"}},
		{"create what is there", put("/v1/rows/a", row, "If-None-Match: *"), 412, "precondition-failed", nil},
		{"change what is not there", put("/v1/rows/none", row, "If-Match: *"), 412, "precondition-failed", nil},
		{"change another value", put("/v1/rows/b", row, `If-Match: "other"`), 412, "precondition-failed", nil},
		{"change another version", put("/v1/rows/b", row, "Ringside-If-Version: 9"), 409, "conflict", nil},
		{"change this version", put("/v1/rows/b", row, "Ringside-If-Version:  1 "), 200, row,
			map[string]string{"Ringside-Version": "2"}},
		{"weak condition", put("/v1/rows/b", row, `If-Match: W/"x"`), 400, "malformed-request", nil},
		{"list of conditions", put("/v1/rows/b", row, `If-Match: "x"`, `If-Match: "y"`), 400, "malformed-request", nil},
		{"two conditions", put("/v1/rows/b", row, `If-Match: *`, `Ringside-If-Version: 1`), 400, "malformed-request", nil},
		{"condition without a value", put("/v1/rows/b", row, `If-Match:`), 400, "malformed-request", nil},
		{"version 0", put("/v1/rows/b", row, "Ringside-If-Version: 0"), 400, "malformed-request", nil},
		{"named", put("/v1/rows/n1", row, `Idempotency-Key: "k1"`), 200, row, map[string]string{"Ringside-Version": "1"}},
		{"named, again", put("/v1/rows/n1", row, `Idempotency-Key: k1`), 200, row,
			map[string]string{"Ringside-Version": "1"}},
		{"named, another", put("/v1/rows/n1", "{}", `Idempotency-Key: k1`), 422, "invalid-value", nil},
		{"name without a value", put("/v1/rows/n1", row, `Idempotency-Key:`), 400, "malformed-request", nil},
		{"name in half a quote", put("/v1/rows/n1", row, `Idempotency-Key: "k1`), 400, "malformed-request", nil},
		{"read only", put("/v1/blobs/a", "x"), 405, "read-only", map[string]string{"Allow": "GET, HEAD"}},
		{"unknown dataset", put("/v1/row/a", row), 404, "unknown-dataset", nil},
		{"no key", put("/v1/rows/", row), 400, "invalid-key", nil},
		{"collection", put("/v1/rows", row), 404, "no-such-route", nil},
		{"query", put("/v1/rows/a?x", row), 400, "malformed-request", nil},
		{"unknown outcome", put("/v1/spoiled/unknown", row), 500, "outcome-unknown", map[string]string{"Retry-After": "1"}},
		{"bad column", put("/v1/spoiled/column", row), 422, "invalid-value", nil},
		{"conflict without a condition", put("/v1/spoiled/conflict", row), 409, "conflict", nil},
		{"defect", put("/v1/spoiled/internal", row), 500, "internal", nil},
		{"panic", put("/v1/spoiled/panic", row), 500, "internal", nil},
		{"delete", del("/v1/rows/empty"), 204, "", map[string]string{"Ringside-Version": "2", "Content-Type": "",
			"Content-Length": ""}},
		{"delete what is not there", del("/v1/rows/none"), 204, "", map[string]string{"Ringside-Version": ""}},
		{"delete, but only if", del("/v1/rows/none", "If-Match: *"), 412, "precondition-failed", nil},
		{"delete what must not be there", del("/v1/rows/none", "If-None-Match: *"), 400, "malformed-request", nil},
		{"delete another version", del("/v1/rows/a", "Ringside-If-Version: 7"), 409, "conflict", nil},
		{"invalidate keys", post("/v1/rows:invalidate", `{"keys":["a"]}`), 200, `{"members":1,"unreached":[]}` + "\n",
			map[string]string{"Content-Type": typeJSON, "Cache-Control": noStore}},
		{"invalidate a prefix of a dataset that takes no writes", post("/v1/blobs:invalidate", `{"prefix":"x/"}`),
			200, `{"members":1,"unreached":[]}` + "\n", nil},
		{"invalidate all", post("/v1/rows:invalidate", `{"all":true}`), 200, `{"members":1,"unreached":[]}` + "\n", nil},
		{"invalidate, not everywhere", post("/v1/spoiled:invalidate", `{"keys":["a"]}`),
			200, `{"members":2,"unreached":["n3"]}` + "\n", nil},
		{"invalidate, refused", post("/v1/spoiled:invalidate", `{"all":true}`), 429, "overloaded", nil},
		{"invalidate nothing", post("/v1/rows:invalidate", `{"keys":[]}`), 400, "malformed-request", nil},
		{"invalidate in an unknown dataset", post("/v1/row:invalidate", `{"all":true}`), 404, "unknown-dataset", nil},
		{"a version that is not reached", get("/v1/spoiled/a", "Ringside-Min-Version: 4"), 412, "version-not-reached",
			map[string]string{"Retry-After": "1"}},
		{"a version that is", get("/v1/raw/x/y", "Ringside-Min-Version: 1"), 200, "slash", nil},
		{"no version", get("/v1/raw/x/y", "Ringside-Min-Version: x"), 400, "malformed-request", nil},
		{"empty version", get("/v1/raw/x/y", "Ringside-Min-Version:"), 400, "malformed-request", nil},
		{"two versions", get("/v1/raw/x/y", "Ringside-Min-Version: 1", "Ringside-Min-Version: 1"), 400,
			"malformed-request", nil},
		{"version of a batch", post("/v1/raw:batchGet", `{"keys":["a"]}`, "Ringside-Min-Version: -1"), 400,
			"malformed-request", nil},
	}
	s := startWritable(t, Config{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := dial(t, "tcp", s.http)
			c.send(tt.request)
			resp, body := c.answer(strings.Fields(tt.request)[0])
			if resp.StatusCode != tt.status {
				t.Fatalf("status %d, want %d: %.200s", resp.StatusCode, tt.status, body)
			}
			problem := ""
			if tt.status >= 400 {
				problem = apierror.BaseURI + tt.body
				checkProblem(t, resp, body, tt.body)
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
	if n := s.Stats().Invalidations.Load(); n != 5 {
		t.Errorf("%d invalidations counted", n)
	}
}

// What GET gave, PUT takes; what PUT answers, GET gives. The chain of ETags and versions holds.
func TestWriteIsReadBack(t *testing.T) {
	c := dial(t, "tcp", startWritable(t, Config{}).http)
	ask := func(request string, status int) (*http.Response, string) {
		t.Helper()
		c.send(request)
		resp, body := c.answer(strings.Fields(request)[0])
		if resp.StatusCode != status {
			t.Fatalf("%.60q: %d %s", request, resp.StatusCode, body)
		}
		return resp, body
	}
	first, body := ask(get("/v1/raw/x/y"), 200)
	put1, _ := ask(put("/v1/raw/x/y", body+"2", "If-Match: "+first.Header.Get("ETag")), 200)
	ask(put("/v1/raw/x/y", "lost update", "If-Match: "+first.Header.Get("ETag")), 412)
	read, body := ask(get("/v1/raw/x/y", "Ringside-Min-Version: "+put1.Header.Get("Ringside-Version")), 200)
	if body != "slash2" || read.Header.Get("ETag") != put1.Header.Get("ETag") || put1.Header.Get("ETag") == "" {
		t.Errorf("%s %v, after %v", body, read.Header, put1.Header)
	}
	ask(put("/v1/raw/x/y", "3", "Ringside-If-Version: "+read.Header.Get("Ringside-Version")), 200)
	ask(del("/v1/raw/x/y", "If-Match: *"), 204)
	ask(get("/v1/raw/x/y"), 404)
}

func TestBadColumnIsNamed(t *testing.T) {
	c := dial(t, "tcp", startWritable(t, Config{}).http)
	for key, want := range map[string]string{"column": "unit", "value": ""} {
		c.send(put("/v1/spoiled/"+key, "{}"))
		_, body := c.answer("PUT")
		var d apierror.Problem
		if err := json.Unmarshal([]byte(body), &d); err != nil || (len(d.Errors) == 1) != (want != "") ||
			want != "" && (d.Errors[0].Column != want || d.Errors[0].Detail != "too long") {
			t.Errorf("%v: %s", err, body)
		}
	}
}

// Another page of the browser must not write, whatever it can make the browser send.
func TestPageOfAnotherOriginCannotWrite(t *testing.T) {
	s := startWritable(t, Config{Hosts: []string{"ui.example"}})
	routed := s.listen(t, "tcp", func(ln net.Listener) error { return s.ServeRouted(ln, nil) })
	requests := map[string]string{
		"PUT": put("/v1/raw/p", "x", "@"), "DELETE": del("/v1/raw/p", "@"),
		"POST": post("/v1/raw:invalidate", `{"all":true}`, "@"), "GET": get("/v1/raw:watch?key=p", "@"),
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
				continue // TestWatch… has it
			}
			request = strings.Replace(strings.Replace(request, "@", tt.field, 1), "localhost:7070", "localhost", 1)
			for network, address := range map[string]string{"tcp": s.http, "unix": s.unix, "routed": routed} {
				if network == "routed" && method == "GET" {
					continue
				}
				c := dial(t, strings.Replace(network, "routed", "tcp", 1), address)
				c.send(request)
				if resp, body := c.answer(method); (resp.StatusCode < 300) != tt.ok || !tt.ok && resp.StatusCode != 403 {
					t.Errorf("%s, %s, %s: %d %s", network, method, tt.field, resp.StatusCode, body)
				}
			}
		}
	}
	c := dial(t, "tcp", s.http)
	c.send(get("/v1/raw/x/y", "Sec-Fetch-Site: same-site", "Origin: http://localhost:8000"))
	if resp, _ := c.answer("GET"); resp.StatusCode != 200 {
		t.Errorf("a read from the same site: %d", resp.StatusCode)
	}
}

// A page that resolves its own name to a pod reaches listeners that know no Host.
func TestReboundNameCannotWriteWhereAnyHostIsTaken(t *testing.T) {
	s := startWritable(t, Config{})
	routed := s.listen(t, "tcp", func(ln net.Listener) error { return s.ServeRouted(ln, nil) })
	c := dial(t, "tcp", routed)
	c.send("DELETE /v1/raw/a HTTP/1.1\r\nHost: evil.example:7072\r\nOrigin: http://evil.example:7072\r\n\r\n")
	if resp, body := c.answer("DELETE"); resp.StatusCode != 403 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestParseCondition(t *testing.T) {
	for _, tt := range []struct {
		match, noneMatch, version string
		want                      cache.Condition
		bad                       bool
	}{
		{}, {match: "*", want: cache.Condition{Present: true}}, {match: ` "a" `, want: cache.Condition{ETag: `"a"`}},
		{match: `""`, want: cache.Condition{ETag: `""`}}, {noneMatch: " * ", want: cache.Condition{Absent: true}},
		{version: "9223372036854775807", want: cache.Condition{Version: 1<<63 - 1}},
		{match: " ", bad: true}, {noneMatch: " ", bad: true}, {version: " ", bad: true}, {match: "a", bad: true},
		{match: `"a`, bad: true}, {match: `"`, bad: true}, {match: `"a", "b"`, bad: true}, {match: `*, "a"`, bad: true},
		{match: `W/"a"`, bad: true}, {match: `"a b"`, bad: true}, {noneMatch: `"a"`, bad: true}, {version: "+1", bad: true},
		{version: "1.0", bad: true}, {version: "-1", bad: true}, {version: "9223372036854775808", bad: true},
		{match: "*", noneMatch: "*", bad: true}, {match: " ", version: "1", bad: true}, {noneMatch: "*", version: "1",
			bad: true},
	} {
		got, err := parseCondition(tt.match, tt.noneMatch, tt.version)
		if (err != nil) != tt.bad || !tt.bad && got != tt.want {
			t.Errorf("%+v: %+v, %v", tt, got, err)
		}
	}
}

func TestParseIdempotencyKey(t *testing.T) {
	for field, want := range map[string]string{
		"": "", `"a"`: "a", ` "a" `: "a", `a`: "a", `"a\"b\\c"`: `a"b\c`,
		`8e03978e-40d5-43dd-bc93-6894a57f9324`: "8e03978e-40d5-43dd-bc93-6894a57f9324",
		`"a b, c"`:                             "a b, c", strings.Repeat("k", 128): strings.Repeat("k", 128),
	} {
		if got, err := parseIdempotencyKey(field); err != nil || got != want {
			t.Errorf("%q: %q, %v", field, got, err)
		}
	}
	for _, field := range []string{" ", `""`, `"a`, `a"`, `"a"b`, `"a";p=1`, `a, b`, `"a\x"`, `"a\`, `a b`, "é",
		"a\x01", "\"\x7f\"",
		strings.Repeat("k", 129), `"` + strings.Repeat("k", 129) + `"`} {
		if got, err := parseIdempotencyKey(field); err == nil {
			t.Errorf("%q is %q", field, got)
		}
	}
}

func TestParseScope(t *testing.T) {
	many := `{"keys":["a"` + strings.Repeat(`,"a"`, MaxBatchKeys) + `]}`
	for body, want := range map[string]cache.Scope{
		`{"keys":["a","b"]}`: {Keys: []string{"a", "b"}}, " { \"prefix\" : \"x/\" } ": {Prefix: "x/"}, `{"all":true}`: {},
	} {
		got, err := parseScope([]byte(body))
		if err != nil || got.Prefix != want.Prefix || !slices.Equal(got.Keys, want.Keys) {
			t.Errorf("%s: %+v, %v", body, got, err)
		}
	}
	for _, body := range []string{
		`{"keys":["\ud800"]}`, `{"prefix":"\udc00x"}`, "", "{}", "null", "[]", `{"all":false}`, `{"all":1}`,
		`{"all":"true"}`, `{"ALL":true}`,
		`{"keys":[]}`, `{"keys":[""]}`, `{"keys":"a"}`, `{"keys":null}`, `{"keys":[null]}`, many, `{"prefix":""}`,
		`{"prefix":1}`,
		`{"keys":["a"],"all":true}`, `{"all":true,"all":true}`, `{"all":true} x`, "{\"prefix\":\"\xff\"}",
		`{"keys":["` + strings.Repeat("k", 1025) + `"]}`, `{"prefix":"` + strings.Repeat("k", 1025) + `"}`} {
		if got, err := parseScope([]byte(body)); err == nil {
			t.Errorf("%.40s: %+v", body, got)
		}
	}
}

func TestMaxStale(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"max-stale": anyStaleness, "MAX-STALE=5": 5 * time.Second, `max-stale="5"`: 5 * time.Second, "max-stale=0": 0,
		"max-stale=99999999999999999999": anyStaleness, "max-stale=4294967296": anyStaleness,
		"no-cache, max-stale=7,x":  7 * time.Second,
		"max-stale=9, max-stale=3": 3 * time.Second, "max-stale=3, max-stale": 3 * time.Second,
		"max-stale=x, max-stale=2": 2 * time.Second,
	} {
		if o := parseCacheControl(header); !o.LimitStale || o.MaxStale != want {
			t.Errorf("%s: %+v, want %v", header, o, want)
		}
	}
	for _, header := range []string{"max-stale=", "max-stale=-1", "max-stale=1.5", `max-stale="`, `max-stale="5`,
		"max-stalemate", "x=max-stale"} {
		if o := parseCacheControl(header); o != (cache.ReadOptions{}) {
			t.Errorf("%s: %+v", header, o)
		}
	}
}

func TestReadDirectivesReachTheDataset(t *testing.T) {
	asked := make(chan cache.ReadOptions, 1)
	d := scripted{name: "d", get: func(_ context.Context, _ string, o cache.ReadOptions) (cache.Answer, error) {
		asked <- o
		return cache.Answer{Value: []byte("v"), Source: cache.SourceHit}, nil
	}}
	s := start(t, Config{}, Served{Dataset: d})
	want := cache.ReadOptions{NoCache: true, LimitStale: true, MaxStale: 3 * time.Second, MinVersion: 7}
	directives := []string{"Cache-Control: no-cache", "Cache-Control: max-stale=3", "Ringside-Min-Version: 7"}
	c := dial(t, "tcp", s.http)
	c.send(get("/v1/d/k", directives...))
	c.answer("GET")
	if got := <-asked; got != want {
		t.Errorf("GET: %+v", got)
	}
	c.send(post("/v1/d:batchGet", `{"keys":["k"]}`, directives...))
	c.answer("POST")
	if got := <-asked; got != want {
		t.Errorf("batchGet: %+v", got)
	}
	q := &ringsidev1.GetRequest{Dataset: "d", Key: "k", NoCache: true, MaxStale: durationpb.New(3 * time.Second),
		MinVersion: 7}
	if _, err := client(t, s.grpc).Get(t.Context(), q); err != nil {
		t.Error(err)
	}
	if got := <-asked; got != want {
		t.Errorf("gRPC: %+v", got)
	}
}

func TestGRPCWrites(t *testing.T) {
	stub := client(t, startWritable(t, Config{}).grpc)
	put1, err := stub.Put(t.Context(), &ringsidev1.PutRequest{Dataset: "raw", Key: "g", Value: []byte("1"),
		IdempotencyId: "w 1",
		Condition:     &ringsidev1.Condition{Row: &ringsidev1.Condition_Absent{Absent: true}}})
	if err != nil || string(put1.GetValue()) != "1" || put1.GetMeta().GetVersion() != 1 || put1.GetMeta().GetEtag() == "" {
		t.Fatalf("%v, %v", put1, err)
	}
	put2, err := stub.Put(t.Context(), &ringsidev1.PutRequest{Dataset: "raw", Key: "g", Value: []byte("2"),
		Condition: &ringsidev1.Condition{Row: &ringsidev1.Condition_Etag{Etag: put1.GetMeta().GetEtag()}}})
	if err != nil || put2.GetMeta().GetVersion() != 2 {
		t.Fatalf("%v, %v", put2, err)
	}
	got, err := stub.Get(t.Context(), &ringsidev1.GetRequest{Dataset: "raw", Key: "g", MinVersion: 2})
	if err != nil || string(got.GetValue()) != "2" {
		t.Errorf("%v, %v", got, err)
	}
	deleted, err := stub.Delete(t.Context(), &ringsidev1.DeleteRequest{Dataset: "raw", Key: "g",
		Condition: &ringsidev1.Condition{Row: &ringsidev1.Condition_Version{Version: 2}}})
	if err != nil || deleted.GetVersion() != 3 {
		t.Errorf("%v, %v", deleted, err)
	}
	told, err := stub.Invalidate(t.Context(), &ringsidev1.InvalidateRequest{Dataset: "spoiled", Prefix: "g"})
	if err != nil || told.GetMembers() != 2 || !slices.Equal(told.GetUnreached(), []string{"n3"}) {
		t.Errorf("%v, %v", told, err)
	}
	largest := make([]byte, cache.MaxValueBytes)
	if _, err := stub.Put(t.Context(), &ringsidev1.PutRequest{Dataset: "raw", Key: strings.Repeat("k", 1024),
		Value: largest}); err != nil {
		t.Errorf("the largest value: %v", err)
	}
}

func TestGRPCWriteErrors(t *testing.T) {
	stub := client(t, startWritable(t, Config{}).grpc)
	condition := func(c *ringsidev1.Condition) *ringsidev1.PutRequest {
		return &ringsidev1.PutRequest{Dataset: "raw", Key: "a", Condition: c}
	}
	spoiledPut := func(key string) *ringsidev1.PutRequest { return &ringsidev1.PutRequest{Dataset: "spoiled", Key: key} }
	tests := []struct {
		request any
		code    codes.Code
		reason  string
		field   string
	}{
		{&ringsidev1.PutRequest{Dataset: "blobs", Key: "a"}, codes.FailedPrecondition, "READ_ONLY", ""},
		{&ringsidev1.PutRequest{Dataset: "x"}, codes.NotFound, "UNKNOWN_DATASET", ""},
		{&ringsidev1.PutRequest{Dataset: "raw"}, codes.InvalidArgument, "INVALID_KEY", "key"},
		{&ringsidev1.PutRequest{Dataset: "raw", Key: "a", Value: make([]byte, cache.MaxValueBytes+1)},
			codes.InvalidArgument, "INVALID_VALUE", "value"},
		{&ringsidev1.PutRequest{Dataset: "raw", Key: "a", IdempotencyId: "é"}, codes.InvalidArgument, "INVALID_REQUEST",
			"idempotency_id"},
		{&ringsidev1.PutRequest{Dataset: "raw", Key: "a", IdempotencyId: strings.Repeat("x", 129)}, codes.InvalidArgument,
			"INVALID_REQUEST", "idempotency_id"},
		{condition(&ringsidev1.Condition{Row: &ringsidev1.Condition_Version{Version: 9}}), codes.Aborted, "CONFLICT", ""},
		{condition(&ringsidev1.Condition{Row: &ringsidev1.Condition_Version{}}), codes.InvalidArgument, "INVALID_REQUEST",
			"condition.version"},
		{condition(&ringsidev1.Condition{Row: &ringsidev1.Condition_Etag{Etag: "x"}}), codes.InvalidArgument,
			"INVALID_REQUEST", "condition.etag"},
		{condition(&ringsidev1.Condition{Row: &ringsidev1.Condition_Etag{Etag: `"x"`}}), codes.Aborted, "CONFLICT", ""},
		{condition(&ringsidev1.Condition{Row: &ringsidev1.Condition_Absent{Absent: true}}), codes.Aborted, "CONFLICT", ""},
		{condition(&ringsidev1.Condition{Row: &ringsidev1.Condition_Absent{}}), codes.InvalidArgument, "INVALID_REQUEST",
			"condition.absent"},
		{condition(&ringsidev1.Condition{Row: &ringsidev1.Condition_Present{}}), codes.InvalidArgument, "INVALID_REQUEST",
			"condition.present"},
		{spoiledPut("unknown"), codes.Unknown, "OUTCOME_UNKNOWN", ""}, {spoiledPut("column"), codes.InvalidArgument,
			"INVALID_VALUE", "value.unit"},
		{spoiledPut("value"), codes.InvalidArgument, "INVALID_VALUE", "value"}, {spoiledPut("internal"), codes.Internal,
			"INTERNAL", ""},
		{spoiledPut("panic"), codes.Internal, "INTERNAL", ""},
		{&ringsidev1.DeleteRequest{Dataset: "raw", Key: "none",
			Condition: &ringsidev1.Condition{Row: &ringsidev1.Condition_Present{Present: true}}},
			codes.Aborted, "CONFLICT", ""},
		{&ringsidev1.DeleteRequest{Dataset: "raw", Key: "none",
			Condition: &ringsidev1.Condition{Row: &ringsidev1.Condition_Absent{Absent: true}}},
			codes.InvalidArgument, "INVALID_REQUEST", "condition.absent"},
		{&ringsidev1.GetRequest{Dataset: "spoiled", Key: "a", MinVersion: 9}, codes.FailedPrecondition,
			"VERSION_NOT_REACHED", ""},
		{&ringsidev1.GetRequest{Dataset: "raw", Key: "a", MinVersion: -1}, codes.InvalidArgument, "INVALID_REQUEST",
			"min_version"},
		{&ringsidev1.GetRequest{Dataset: "raw", Key: "a", MaxStale: durationpb.New(-1)}, codes.InvalidArgument,
			"INVALID_REQUEST", "max_stale"},
		{&ringsidev1.InvalidateRequest{Dataset: "raw"}, codes.InvalidArgument, "INVALID_REQUEST", "keys"},
		{&ringsidev1.InvalidateRequest{Dataset: "raw", All: true, Prefix: "x"}, codes.InvalidArgument, "INVALID_REQUEST",
			"keys"},
		{&ringsidev1.InvalidateRequest{Dataset: "raw", Keys: make([]string, 1001)}, codes.InvalidArgument,
			"INVALID_REQUEST", "keys"},
		{&ringsidev1.InvalidateRequest{Dataset: "raw", Prefix: strings.Repeat("x", 1025)}, codes.InvalidArgument,
			"INVALID_REQUEST", "prefix"},
		{&ringsidev1.InvalidateRequest{Dataset: "spoiled", All: true}, codes.ResourceExhausted, "OVERLOADED", ""},
	}
	for i, tt := range tests {
		t.Run(fmt.Sprint(i, " ", tt.reason, " ", tt.field), func(t *testing.T) {
			var err error
			switch q := tt.request.(type) {
			case *ringsidev1.GetRequest:
				_, err = stub.Get(t.Context(), q)
			case *ringsidev1.PutRequest:
				_, err = stub.Put(t.Context(), q)
			case *ringsidev1.DeleteRequest:
				_, err = stub.Delete(t.Context(), q)
			case *ringsidev1.InvalidateRequest:
				_, err = stub.Invalidate(t.Context(), q)
			}
			reason, field := details(err)
			if status.Code(err) != tt.code || reason != tt.reason || field != tt.field || strings.Contains(err.Error(),
				"canary") {
				t.Errorf("%v %s %q: %v", status.Code(err), reason, field, err)
			}
		})
	}
}

// details returns the reason of a status, and the field that it names.
func details(err error) (reason, field string) {
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason = d.GetReason()
		case *errdetails.BadRequest:
			field = d.GetFieldViolations()[0].GetField()
		}
	}
	return reason, field
}

// Whatever the headers say, a condition asks at most one thing, and never nothing when there was something to ask.
func FuzzCondition(f *testing.F) {
	for _, s := range [][3]string{{"", "", ""}, {"*", "", ""}, {`"a"`, "", ""}, {"", "*", ""}, {"", "", "7"}, {`W/"a"`,
		"", ""}, {" ", "", ""}} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, match, noneMatch, version string) {
		c, err := parseCondition(match, noneMatch, version)
		if err != nil {
			return
		}
		asked := 0
		for _, is := range []bool{c.Absent, c.Present, c.Version != 0, c.ETag != ""} {
			if is {
				asked++
			}
		}
		if (asked == 0) != (match+noneMatch+version == "") || asked > 1 || c.Version < 0 || c.ETag != "" &&
			checkETag(c.ETag) != nil {
			t.Errorf("%q, %q, %q: %+v", match, noneMatch, version, c)
		}
	})
}

func FuzzIdempotencyKey(f *testing.F) {
	for _, s := range []string{"", `"a"`, "a", `"a\"\\"`, `"`, `"a`, " "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, field string) {
		id, err := parseIdempotencyKey(field)
		if err != nil || field == "" {
			return
		}
		if checkIdempotencyKey(id) != nil {
			t.Errorf("%q is %q", field, id)
		}
		quoted := string(appendQuoted(nil, id))
		if again, err := parseIdempotencyKey(quoted); err != nil || again != id {
			t.Errorf("%q is %q; in quotes %s is %q, %v", field, id, quoted, again, err)
		}
	})
}

// No body but one that says so drops everything.
func FuzzScope(f *testing.F) {
	for _, s := range []string{`{"keys":["a"]}`, `{"prefix":"a"}`, `{"all":true}`, `{"keys":[]}`, `{"all":false}`, "{",
		`{"keys":["\ud800"]}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := parseScope(body)
		if err != nil {
			return
		}
		var want struct {
			Keys   []string `json:"keys"`
			Prefix string   `json:"prefix"`
			All    bool     `json:"all"`
		}
		if err := json.Unmarshal(body, &want); err != nil || got.Prefix != want.Prefix || !slices.Equal(got.Keys,
			want.Keys) ||
			(len(got.Keys) == 0 && got.Prefix == "") != want.All {
			t.Errorf("%q: %+v; encoding/json: %+v, %v", body, got, want, err)
		}
	})
}

// FuzzOrigin holds allowOrigin against net/url: what is allowed has a host that is configured, or that of the request.
func FuzzOrigin(f *testing.F) {
	for _, s := range []string{"http://localhost", "http://ui.example", "null", "http://ui.example@evil",
		"://localhost", "x://[::1]"} {
		f.Add(s, "localhost")
	}
	hosts := newHosts([]string{"ui.example"})
	f.Fuzz(func(t *testing.T, from, authority string) {
		if !hosts.allowOrigin(from, authority) {
			return
		}
		u, err := url.Parse(from)
		if err != nil {
			return // no browser makes it
		}
		if !strings.EqualFold(u.Host, authority) && !strings.EqualFold(u.Hostname(), "ui.example") {
			t.Errorf("%q may write through %q", from, authority)
		}
	})
}
