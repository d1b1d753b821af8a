package httpapi_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

// The client has sent nothing but the header when it gets the response, and the connection is closed: what follows may be
// content, or a request.
func TestContentIsRefusedBeforeItArrives(t *testing.T) {
	s := localtest.Start(t, local.Config{MaxBodyBytes: 100},
		local.Served{Dataset: localtest.NewWritable(t, "raw", origintest.New(localtest.Rows()))},
		local.Served{Dataset: localtest.NewDataset(t, "blobs", origintest.New(localtest.Rows())), ReadOnly: true})
	for head, want := range map[string]int{
		"GET /v1/raw/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1": 400, "HEAD / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1": 400,
		"DELETE /v1/raw/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1":              400,
		"GET /v1/raw/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked":        400,
		"PUT /v1/raw/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 101":               413,
		"POST /v1/raw:batchGet HTTP/1.1\r\nHost: localhost\r\nContent-Length: 101":       413,
		"PUT /v1/blobs/a HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked":      405,
		"POST /v1/raw:nothing HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked": 404,
		"GET /v1/raw:batchGet HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1":          405,
		"DELETE /v1/raw:invalidate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1":     405,
		"GET /v1/raw/a:batchGet HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1":        400,
		"PUT /v1/raw/a HTTP/1.1\r\nHost: evil\r\nTransfer-Encoding: chunked":             421,
	} {
		for _, expect := range []string{"\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n"} {
			c := localtest.Dial(t, "tcp", s.HTTP)
			c.Send(head + expect)
			method, _, _ := strings.Cut(head, " ")
			if resp, body := c.Response(method); resp.StatusCode != want || !resp.Close {
				t.Errorf("%q: got %d, close %t: %s; want %d", head, resp.StatusCode, resp.Close, body, want)
			}
			c.ExpectClosed()
		}
	}
	for _, method := range []string{"GET", "DELETE"} {
		c := localtest.Dial(t, "tcp", s.HTTP)
		c.Send(strings.Replace(localtest.Get("/v1/raw/a", "Content-Length: 0"), "GET", method, 1) + localtest.Get("/"))
		if resp, body := c.Response(method); resp.StatusCode/100 != 2 {
			t.Errorf("%s with Content-Length: 0: got %d %s", method, resp.StatusCode, body)
		}
		if resp, _ := c.Response("GET"); resp.StatusCode != 200 {
			t.Errorf("after %s with Content-Length: 0: got %d", method, resp.StatusCode)
		}
	}
}

// A small content that is refused does not cost the connection.
func TestSmallContentOfRefusedRequestIsSkipped(t *testing.T) {
	c := localtest.Dial(t, "tcp", localtest.StartWritable(t, local.Config{}).HTTP)
	c.Send(localtest.Put("/v1/blobs/a", strings.Repeat("x", 60_000)) + localtest.Get("/v1/raw/a"))
	for _, want := range []int{405, 200} {
		if resp, body := c.Response("GET"); resp.StatusCode != want {
			t.Errorf("got %d %s, want %d", resp.StatusCode, body, want)
		}
	}
}

func TestResponsesTakeTheirBytesFromTheBudget(t *testing.T) {
	const size = 100_000
	limit := budget.New(1 << 20) // 346 kB for responses
	rows := map[string]string{}
	for i := range 4 {
		rows[fmt.Sprint(i)] = strings.Repeat("x", size)
	}
	s := localtest.Start(t, local.Config{Budget: limit}, local.Served{Dataset: localtest.NewDataset(t, "raw", origintest.New(rows))})
	c := localtest.Dial(t, "tcp", s.HTTP)
	get, batch := localtest.Get("/v1/raw/0"), localtest.Post("/v1/raw:batchGet", `{"keys":["0"]}`)
	for range 10 {
		for _, request := range []string{get, batch} {
			c.Send(request)
			if resp, body := c.Response("GET"); resp.StatusCode != 200 || len(body) < size {
				t.Errorf("%.30q: got %d %.200s, want 200", request, resp.StatusCode, body)
			}
			localtest.AwaitReturn(t, limit, budget.Responses)
		}
	}
	taken := limit.Loan(budget.Responses)
	taken.Grow(limit.Limit(budget.Responses) - 2*size) // the value fits, and so does its form in a batch, but not both at once
	for request, want := range map[string]int{get: 200, batch: 429} {
		c.Send(request)
		if resp, body := c.Response("GET"); resp.StatusCode != want {
			t.Errorf("%.30q: got %d %.200s, want %d", request, resp.StatusCode, body, want)
		}
	}
	localtest.Await(t, "the value is returned", func() bool { return limit.Stats()[budget.Responses].Used == taken.Bytes() })
	taken.Grow(size + 1)
	c.Send(get)
	if resp, body := c.Response("GET"); resp.StatusCode != 429 || resp.Header.Get("ETag") != "" {
		t.Errorf("a value without budget: got %d %v %.200s, want 429", resp.StatusCode, resp.Header, body)
	}
}
