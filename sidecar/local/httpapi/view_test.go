package httpapi_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/internal/access"
	"github.com/ringside-cache/ringside/sidecar/internal/httpview"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

func viewed(t *testing.T, rows map[string]string, f httpview.Fields, isJSON bool) *localtest.Server {
	t.Helper()
	view, problems := f.Compile([]string{""})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	d := localtest.NewDataset(t, "domains", origintest.New(rows))
	return localtest.Start(t, local.Config{}, local.Served{Dataset: d, JSON: isJSON, ReadOnly: true, View: view})
}

// exchange sends one request on a connection of its own.
func exchange(t *testing.T, s *localtest.Server, request string) (*http.Response, string) {
	t.Helper()
	conn := localtest.Dial(t, "tcp", s.HTTP)
	conn.Send(request)
	method, _, _ := strings.Cut(request, " ")
	return conn.Response(method)
}

func TestAnswerForAbsentKeys(t *testing.T) {
	for _, c := range []struct {
		absent            httpview.Absent
		isJSON            bool
		status            int
		body, contentType string
	}{
		{httpview.Absent{}, true, 404, `"status":404`, "application/problem+json"},
		{httpview.Absent{Status: 403}, true, 403, `"status":403`, "application/problem+json"},
		{httpview.Absent{Status: 204}, true, 204, "", ""},
		{httpview.Absent{Status: 200, Body: `{"result": false}`}, true, 200, `{"result": false}`, "application/json"},
		{httpview.Absent{Status: 200, Body: "no"}, false, 200, "no", "application/octet-stream"},
		{httpview.Absent{Status: 403, Body: "no", ContentType: "text/plain"}, true, 403, "no", "text/plain"},
		{httpview.Absent{Body: "no", ContentType: "text/plain"}, true, 404, "no", "text/plain"},
	} {
		s := viewed(t, map[string]string{"a": `{"k":"a"}`}, httpview.Fields{Absent: c.absent}, c.isJSON)
		for range 2 { // loaded, and from memory
			for _, method := range []string{"GET", "HEAD"} {
				resp, body := exchange(t, s, strings.Replace(localtest.Get("/v1/domains/none"), "GET", method, 1))
				h := resp.Header
				if resp.StatusCode != c.status || h.Get("Content-Type") != c.contentType || h.Get("Ringside-Not-Found") != "true" {
					t.Errorf("%+v: %s: got %d %v", c.absent, method, resp.StatusCode, h)
				}
				if !strings.Contains(body, c.body) && method == "GET" || body != "" && method == "HEAD" {
					t.Errorf("%+v: %s: got %s", c.absent, method, body)
				}
				if !strings.HasPrefix(h.Get("Cache-Control"), "max-age=") || h.Get("Age") == "" || h.Get("Cache-Status") == "" || h.Get("ETag") != "" {
					t.Errorf("%+v: %s: the response does not have the fields of a negative entry: %v", c.absent, method, h)
				}
			}
		}
		resp, body := exchange(t, s, localtest.Get("/v1/domains/a"))
		if resp.StatusCode != 200 || body != `{"k":"a"}` || resp.Header.Get("Ringside-Not-Found") != "" {
			t.Errorf("%+v: a key that exists: got %d %v %s", c.absent, resp.StatusCode, resp.Header, body)
		}
		resp, body = exchange(t, s, localtest.Post("/v1/domains:batchGet", `{"keys":["none"]}`))
		if resp.StatusCode != 200 || !strings.Contains(body, "problems/not-found") || !strings.Contains(body, `"status":404`) {
			t.Errorf("%+v: a batch: got %d %s", c.absent, resp.StatusCode, body)
		}
	}
}

func TestConditionsOfAbsentKeys(t *testing.T) {
	for _, c := range []struct {
		absent httpview.Absent
		field  string
		status int
	}{
		{httpview.Absent{}, `If-Match: "x"`, 404}, {httpview.Absent{}, "If-None-Match: *", 404},
		{httpview.Absent{Status: 403}, "If-Match: *", 403},
		{httpview.Absent{Status: 204}, `If-Match: "x"`, 412}, {httpview.Absent{Status: 204}, "If-Match: *", 412},
		{httpview.Absent{Status: 204}, "If-None-Match: *", 204}, {httpview.Absent{Status: 200, Body: "x"}, `If-None-Match: "x"`, 200},
		{httpview.Absent{Status: 204}, "Cache-Control: only-if-cached", 504},
	} {
		s := viewed(t, nil, httpview.Fields{Absent: c.absent}, true)
		resp, body := exchange(t, s, localtest.Get("/v1/domains/none", c.field))
		if resp.StatusCode != c.status {
			t.Errorf("%+v with %s: got %d %s, want %d", c.absent, c.field, resp.StatusCode, body, c.status)
		}
	}
}

func TestColumnsAreHeaderFieldsOfAResponse(t *testing.T) {
	rows := map[string]string{
		"a": `{"tenant":"acme\r\nX-Plan: 9","plan":3}`, "null": `{"tenant":null}`, "large": `{"tenant":"` + strings.Repeat("x", 5000) + `"}`,
		"two": `{"plan":"` + strings.Repeat("x", 3000) + `","tenant":"` + strings.Repeat("y", 3000) + `"}`,
	}
	s := viewed(t, rows, httpview.Fields{Headers: map[string]string{"x-tenant": "tenant", "X-Plan": "plan"}, Absent: httpview.Absent{Status: 403}}, true)
	etag := ""
	for _, c := range []struct {
		request      string
		status       int
		tenant, plan string
	}{
		{localtest.Get("/v1/domains/a"), 200, "acme%0D%0AX-Plan: 9", "3"},
		{strings.Replace(localtest.Get("/v1/domains/a"), "GET", "HEAD", 1), 200, "acme%0D%0AX-Plan: 9", "3"},
		{localtest.Get("/v1/domains/a", "If-None-Match: *"), 304, "acme%0D%0AX-Plan: 9", "3"},
		{localtest.Get("/v1/domains/a", `If-Match: "x"`), 412, "", ""},
		{localtest.Get("/v1/domains/null"), 200, "", ""},
		{localtest.Get("/v1/domains/none"), 403, "", ""},
		{localtest.Get("/v1/domains/large"), 500, "", ""},
		{localtest.Get("/v1/domains/two"), 500, "", ""},
	} {
		resp, body := exchange(t, s, c.request)
		h := resp.Header
		if resp.StatusCode != c.status || h.Get("X-Tenant") != c.tenant || h.Get("X-Plan") != c.plan {
			t.Errorf("%s: got %d %v %.200s, want %d with X-Tenant %q and X-Plan %q", c.request, resp.StatusCode, h, body, c.status, c.tenant, c.plan)
		}
		if c.status == 500 {
			localtest.CheckProblem(t, resp, body, "unreadable-row")
		}
		if values := h.Values("X-Plan"); len(values) > 1 {
			t.Errorf("%s: X-Plan has the values %v", c.request, values)
		}
		etag = h.Get("ETag")
		if (c.status == 200) != (etag != "") && c.status != 304 {
			t.Errorf("%s: got the ETag %q", c.request, etag)
		}
	}
}

func TestPathsOfADataset(t *testing.T) {
	rows := map[string]string{"a": `[1]`, "x/y": `[2]`, "é": `[3]`}
	s := viewed(t, rows, httpview.Fields{
		Paths: []string{"/dns/lookup/{name}", "/all/{name...}"}, Body: `{"result": {value}}`,
		Absent: httpview.Absent{Status: 200, Body: `{"result": false}`},
	}, true)
	for _, c := range []struct {
		request string
		status  int
		want    string
	}{
		{localtest.Get("/dns/lookup/a"), 200, `{"result": [1]}`},
		{localtest.Get("http://localhost/dns/lookup/a"), 200, `{"result": [1]}`},
		{localtest.Get("/dns/lookup/x%2Fy"), 200, `{"result": [2]}`},
		{localtest.Get("/all/x/y"), 200, `{"result": [2]}`},
		{localtest.Get("/dns/lookup/%c3%a9"), 200, `{"result": [3]}`},
		{localtest.Get("/dns/lookup/none"), 200, `{"result": false}`},
		{localtest.Get("/v1/domains/a"), 200, `[1]`},
		{localtest.Get("/dns/lookup/x/y"), 404, "no-such-route"},
		{localtest.Get("/dns/lookup/"), 400, "invalid-key"},
		{localtest.Get("/dns/lookup/%zz"), 400, "invalid-key"},
		{localtest.Get("/dns/lookup/a?b"), 400, "malformed-request"},
		{localtest.Get("/dns/lookup/" + strings.Repeat("k", 1025)), 414, "key-too-long"},
		{localtest.Get("/dns/lookup/a", "Sec-Fetch-Site: cross-site"), 403, "cross-site"},
		{localtest.Get("/dns/lookup/a", "Content-Length: 1") + "x", 400, "malformed-request"},
		{localtest.Put("/dns/lookup/a", "[4]"), 405, "method-not-allowed"},
		{localtest.Delete("/dns/lookup/a"), 405, "method-not-allowed"},
		{localtest.Post("/dns/lookup/a", ""), 405, "method-not-allowed"},
	} {
		resp, body := exchange(t, s, c.request)
		if resp.StatusCode != c.status || c.status == 200 && body != c.want || !strings.Contains(body, c.want) {
			t.Errorf("%s: got %d %s, want %d %s", c.request, resp.StatusCode, body, c.status, c.want)
		}
		if c.status == 405 && resp.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: got Allow %s", c.request, resp.Header.Get("Allow"))
		}
	}
	resp, _ := exchange(t, s, strings.Replace(localtest.Get("/dns/lookup/a"), "GET", "HEAD", 1))
	if resp.ContentLength != int64(len(`{"result": [1]}`)) {
		t.Errorf("HEAD: got %d bytes", resp.ContentLength)
	}
}

// The key of several columns is the text that every API has.
func TestPathOfSeveralColumns(t *testing.T) {
	view, problems := httpview.Fields{Paths: []string{"/dns/lookup/{name}/{type}"}}.Compile([]string{"type", "name"})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	rows := map[string]string{"A/example.org.": "1", "A/x%2Fy%25": "2", "/": "3"}
	d := localtest.NewDataset(t, "domains", origintest.New(rows))
	s := localtest.Start(t, local.Config{}, local.Served{Dataset: d, JSON: true, View: view})
	for target, want := range map[string]string{
		"/dns/lookup/example.org./A": "1", "/dns/lookup/x%2fy%25/A": "2", "/dns/lookup//": "3", "/v1/domains/A/example.org.": "1",
	} {
		if resp, body := exchange(t, s, localtest.Get(target)); resp.StatusCode != 200 || body != want {
			t.Errorf("%s: got %d %s, want %s", target, resp.StatusCode, body, want)
		}
	}
}

func TestAliasIsTheDataset(t *testing.T) {
	s := viewed(t, map[string]string{"a": `{"k":1}`}, httpview.Fields{Alias: []string{"DOMAINS", "d.x_y"}}, true)
	for _, target := range []string{"/v1/DOMAINS/a", "/v1/d.x_y/a", "/v1/domains/a"} {
		if resp, body := exchange(t, s, localtest.Get(target)); resp.StatusCode != 200 || body != `{"k":1}` {
			t.Errorf("%s: got %d %s", target, resp.StatusCode, body)
		}
	}
	if resp, body := exchange(t, s, localtest.Get("/v1/Domains/a")); resp.StatusCode != 404 {
		t.Errorf("another case: got %d %s", resp.StatusCode, body)
	}
	if _, body := exchange(t, s, localtest.Get("/v1/datasets")); strings.Contains(body, "DOMAINS") {
		t.Errorf("the list has an alias: %s", body)
	}
	if resp, body := exchange(t, s, localtest.Post("/v1/DOMAINS:batchGet", `{"keys":["a"]}`)); resp.StatusCode != 200 || !strings.Contains(body, `{"k":1}`) {
		t.Errorf("a batch: got %d %s", resp.StatusCode, body)
	}
}

// A path is a read of its dataset, with its permissions.
func TestPathNeedsThePermissionToRead(t *testing.T) {
	view, _ := httpview.Fields{Paths: []string{"/lookup/{name}"}, Headers: map[string]string{"X-K": "k"}}.Compile([]string{""})
	control, err := access.New(access.Config{Datasets: map[string]access.Dataset{"domains": {Rules: access.Rules{Read: []string{"unix"}}}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := localtest.NewDataset(t, "domains", origintest.New(map[string]string{"a": `{"k":1}`}))
	s := localtest.Start(t, local.Config{}, local.Served{Dataset: d, JSON: true, View: view, Gate: control.Gate("domains")})
	for _, target := range []string{"/lookup/a", "/lookup/none"} {
		resp, body := exchange(t, s, localtest.Get(target))
		if resp.StatusCode != 403 || !strings.Contains(body, "permission-denied") || resp.Header.Get("X-K") != "" {
			t.Errorf("%s: got %d %v %s", target, resp.StatusCode, resp.Header, body)
		}
	}
	conn := localtest.Dial(t, "unix", s.Unix)
	conn.Send(localtest.Get("/lookup/a"))
	if resp, body := conn.Response("GET"); resp.StatusCode != 200 || resp.Header.Get("X-K") != "1" {
		t.Errorf("unix: got %d %s", resp.StatusCode, body)
	}
}

// The text around a value is memory of the response.
func TestBodyOfAPathNeedsTheBudget(t *testing.T) {
	rows := map[string]string{"large": `"` + strings.Repeat("x", 100_000) + `"`}
	s := viewed(t, rows, httpview.Fields{Paths: []string{"/l/{name}"}, Body: "[{value}]"}, true)
	resp, body := exchange(t, s, localtest.Get("/l/large"))
	if want := fmt.Sprintf("[%s]", rows["large"]); resp.StatusCode != 200 || body != want {
		t.Errorf("got %d with %d bytes, want %d", resp.StatusCode, len(body), len(want))
	}
}
