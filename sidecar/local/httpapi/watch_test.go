package httpapi_test

import (
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

func TestWatchRequests(t *testing.T) {
	s, _ := localtest.StartWatchable(t, local.Config{MaxWatches: -1})
	for _, tt := range []struct {
		request string
		status  int
		body    string
		header  map[string]string
	}{
		{localtest.Get("/v1/raw:watch"), 400, "malformed-request", nil}, {localtest.Get("/v1/raw:watch?"), 400, "malformed-request", nil},
		{localtest.Get("/v1/raw:watch?key="), 400, "malformed-request", nil}, {localtest.Get("/v1/raw:watch?key=a&x=y"), 400,
			"malformed-request", nil},
		{localtest.Get("/v1/raw:watch?prefix="), 400, "malformed-request", nil},
		{localtest.Get("/v1/raw:watch?prefix=a&key=b"), 400, "malformed-request", nil},
		{localtest.Get("/v1/raw:watch?prefix=a&prefix=b"), 400, "malformed-request", nil},
		{localtest.Get("/v1/raw:watch?all=false"), 400, "malformed-request", nil},
		{localtest.Get("/v1/raw:watch?all=true&prefix=a"), 400, "malformed-request", nil},
		{localtest.Get("/v1/raw:watch?prefix=" + strings.Repeat("a", 1001)), 400, "malformed-request", nil},
		{localtest.Get("/v1/raw:watch?prefix=a"), 429, "overloaded", nil}, {localtest.Get("/v1/raw:watch?all=true"), 429, "overloaded", nil},
		{localtest.Get("/v1/raw:watch?key=%zz"), 400, "malformed-request", nil}, {localtest.Get("/v1/raw:watch?key=a;key=b"), 400,
			"malformed-request", nil},
		{localtest.Get("/v1/raw:watch?key=a#x"), 400, "malformed-request", nil}, {localtest.Get("/v1/raw:watch?key=%ff"), 400,
			"malformed-request", nil},
		{localtest.Get("/v1/ra:watch?key=a"), 404, "unknown-dataset", nil}, {localtest.Get("/v1/raw/a:watch?key=a"), 400, "malformed-request",
			nil},
		{localtest.Get("/v1/raw:batchGet?key=a"), 400, "malformed-request", nil},
		{localtest.Post("/v1/raw:watch?key=a", ""), 405, "method-not-allowed", map[string]string{"Allow": "GET, HEAD"}},
		{localtest.Get("/v1/raw:watch?key=a", "Sec-Fetch-Site: same-site"), 403, "cross-site", nil},
		{localtest.Get("/v1/raw:watch?key=a", "Origin: http://localhost:8000"), 403, "cross-site", nil},
		{localtest.Get("/v1/raw:watch?key=a"), 429, "overloaded", map[string]string{"Retry-After": "5"}},
		{strings.Replace(localtest.Get("/v1/raw:watch?key=a"), "GET", "HEAD", 1), 200, "",
			map[string]string{"Content-Type": "text/event-stream", "Content-Length": ""}},
		{strings.Replace(localtest.Get("/v1/raw:watch"), "GET", "HEAD", 1), 400, "", nil},
	} {
		c := localtest.Dial(t, "tcp", s.HTTP)
		c.Send(tt.request)
		method := strings.Fields(tt.request)[0]
		resp, body := c.Response(method)
		if resp.StatusCode != tt.status {
			t.Errorf("%.60q: %d %s", tt.request, resp.StatusCode, body)
			continue
		}
		problem := ""
		if method != "HEAD" {
			problem = apierror.BaseURI + tt.body
			localtest.CheckProblem(t, resp, body, tt.body)
			checkDocumented(t, tt.request, resp, problem)
		}
		for name, want := range tt.header {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%.60q: %s: %q, want %q", tt.request, name, got, want)
			}
		}
		if method == "HEAD" && tt.status == 200 {
			c.Send(localtest.Get("/"))
			if resp, _ := c.Response("GET"); resp.StatusCode != 200 {
				t.Errorf("after HEAD: %d", resp.StatusCode)
			}
		}
	}
	if n := s.Stats().WatchesRefused.Load(); n != 3 {
		t.Errorf("%d refused", n)
	}
}

func TestWatchResponseIsDocumented(t *testing.T) {
	s, _ := localtest.StartWatchable(t, local.Config{})
	const target = "/v1/raw:watch?key=a"
	checkDocumented(t, "GET "+target+" ", localtest.OpenWatch(t, "tcp", s.HTTP, target).Header, "")
}
