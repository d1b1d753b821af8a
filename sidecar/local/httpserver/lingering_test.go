package httpserver_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

// A client that sends the whole of its request before it reads must find the answer, and not a reset.
func TestResponseToRefusedRequestIsNotLost(t *testing.T) {
	s := localtest.Start(t, local.Config{})
	clients := map[string]*http.Client{"tcp": {}, "unix": {Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.Unix)
		},
	}}}
	for name, client := range clients {
		for range 20 { // a reset overtakes the answer now and then only
			request, err := http.NewRequest("PUT", "http://"+s.HTTP+"/v1/blobs/a", bytes.NewReader(make([]byte, 3<<20)))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(request)
			if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
				t.Fatalf("%s: %v, %v", name, resp, err)
			}
			_ = resp.Body.Close()
		}
	}
}

func TestResponseToRefusedHeaderIsNotLost(t *testing.T) {
	c := localtest.Dial(t, "tcp", localtest.Start(t, local.Config{}).HTTP)
	c.Send(localtest.Get("/", "X: "+strings.Repeat("x", 20000)))
	c.Send(strings.Repeat("x", 3<<20))
	if resp, _ := c.Response("GET"); resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%d", resp.StatusCode)
	}
	c.ExpectClosed()
}

// A client that keeps sending holds its connection for a bounded time only.
func TestClientThatKeepsSendingIsDisconnected(t *testing.T) {
	s := localtest.Start(t, local.Config{MaxBodyBytes: 10, ReadTimeout: time.Minute})
	c := localtest.Dial(t, "tcp", s.HTTP)
	c.Send(localtest.Post("/v1/blobs:batchGet", strings.Repeat(" ", 11)))
	if _, err := io.ReadAll(c.Reader); err != nil {
		t.Fatalf("the half that the server has closed: %v", err)
	}
	const longest = 10 * time.Second
	began := time.Now()
	for err := error(nil); err == nil && time.Since(began) <= longest; time.Sleep(time.Millisecond) {
		_, err = io.WriteString(c, "x")
	}
	if d := time.Since(began); d < time.Second/2 || d > longest {
		t.Fatalf("cut off after %v, want at most %v", d, longest)
	}
	for s.Stats().HTTP.Conns.Open.Load() > 0 { // ends with the test's own deadline at the latest
		time.Sleep(time.Millisecond)
	}
}
