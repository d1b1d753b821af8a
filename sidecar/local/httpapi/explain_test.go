package httpapi_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

func TestExplainRequests(t *testing.T) {
	s, _ := localtest.StartWatchable(t, local.Config{Explain: func(_ context.Context, dataset, key string) ([]byte, error) {
		if key == "busy" {
			return nil, &kv.Error{Kind: kv.KindOverloaded, Err: errors.New("too many")}
		}
		return fmt.Appendf(nil, `{"dataset":%q,"key":%q}`, dataset, key), nil
	}})
	for _, tt := range []struct {
		request string
		status  int
		body    string
	}{
		{localtest.Get("/v1/raw:explain?key=a/b%26c+d"), 200, `{"dataset":"raw","key":"a/b&c d"}`},
		{localtest.Get("/v1/raw:explain"), 400, "malformed-request"}, {localtest.Get("/v1/raw:explain?key=a&key=b"), 400, "malformed-request"},
		{localtest.Get("/v1/raw:explain?key=a&x=y"), 400, "malformed-request"}, {localtest.Get("/v1/raw:explain?key=a#x"), 400, "malformed-request"},
		{localtest.Get("/v1/raw:explain?key="), 400, "invalid-key"}, {localtest.Get("/v1/ra:explain?key=a"), 404, "unknown-dataset"},
		{localtest.Get("/v1/raw:explain?key=busy"), 429, "overloaded"}, {localtest.Post("/v1/raw:explain?key=a", ""), 405, "method-not-allowed"},
	} {
		c := localtest.Dial(t, "tcp", s.HTTP)
		c.Send(tt.request)
		resp, body := c.Response("GET")
		switch {
		case resp.StatusCode != tt.status:
			t.Errorf("%.60q: %d %s, want %d", tt.request, resp.StatusCode, body, tt.status)
			continue
		case tt.status == 200 && body != tt.body:
			t.Errorf("%.60q: got %s, want %s", tt.request, body, tt.body)
		case tt.status != 200:
			localtest.CheckProblem(t, resp, body, tt.body)
		}
		checkDocumented(t, tt.request, resp, "")
	}
}

func TestListenerThatExplainsNothingSaysSo(t *testing.T) {
	s, _ := localtest.StartWatchable(t, local.Config{})
	c := localtest.Dial(t, "tcp", s.HTTP)
	c.Send(localtest.Get("/v1/raw:explain?key=a"))
	resp, body := c.Response("GET")
	if resp.StatusCode != 404 {
		t.Errorf("got %d %s, want 404", resp.StatusCode, body)
	}
}
