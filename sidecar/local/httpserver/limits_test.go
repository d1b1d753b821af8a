package httpserver_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

// A client that sends a header byte by byte must not hold its connection for longer than ReadTimeout in all.
func TestSlowHeaderEndsTheConnection(t *testing.T) {
	s := localtest.Start(t, local.Config{ReadTimeout: 100 * time.Millisecond})
	slow := localtest.Dial(t, "tcp", s.HTTP)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		_, err := io.WriteString(slow, "GET / HTTP/1.1\r\nX: ")
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for err == nil {
			select {
			case <-tick.C:
				_, err = io.WriteString(slow, "x")
			case <-stop:
				return
			}
		}
	}()
	resp, body := slow.Response("GET")
	localtest.CheckProblem(t, resp, body, "request-timeout")
	if resp.StatusCode != http.StatusRequestTimeout || s.Stats().HTTP.ReadTimeouts.Load() != 1 {
		t.Errorf("%d, %d timeouts counted", resp.StatusCode, s.Stats().HTTP.ReadTimeouts.Load())
	}
}

func TestSlowBodyEndsTheConnection(t *testing.T) {
	c := localtest.Dial(t, "tcp", localtest.Start(t, local.Config{ReadTimeout: 50 * time.Millisecond}).HTTP)
	c.Send("POST /v1/blobs:batchGet HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
	resp, body := c.Response("POST")
	localtest.CheckProblem(t, resp, body, "request-timeout")
	c.ExpectClosed()
}

// A client that does not read its answers must not hold a goroutine and their bytes for ever.
func TestSlowReaderIsDisconnected(t *testing.T) {
	big := localtest.Scripted{ItsName: "big", OnGet: func(context.Context, string, kv.ReadOptions) (kv.Answer, error) {
		return kv.Answer{Value: make([]byte, 64<<20), Source: kv.SourceHit}, nil
	}}
	s := localtest.Start(t, local.Config{WriteTimeout: 50 * time.Millisecond}, local.Served{Dataset: big})
	c := localtest.Dial(t, "tcp", s.HTTP)
	c.Send(localtest.Get("/v1/big/a"))
	if _, err := c.Reader.Peek(1); err != nil {
		t.Fatal(err)
	}
	for s.Stats().HTTP.Conns.Open.Load() > 0 { // ends with the test's own deadline at the latest
		time.Sleep(time.Millisecond)
	}
	if n, err := io.Copy(io.Discard, c.Reader); n >= 64<<20 {
		t.Errorf("read %d bytes, %v: nothing was cut off", n, err)
	}
}

func TestCountersOfRefusedRequests(t *testing.T) {
	s := localtest.Start(t, local.Config{MaxBodyBytes: 10})
	for _, request := range []string{
		localtest.Get("/", "X: "+strings.Repeat("x", 20000)), localtest.Post("/v1/blobs:batchGet", strings.Repeat(" ", 11)),
		"nonsense\r\n\r\n", "GET / HTTP/1.1\r\nHost: evil\r\n\r\n",
	} {
		c := localtest.Dial(t, "tcp", s.HTTP)
		c.Send(request)
		c.Response("GET")
	}
	p := &s.Stats().HTTP
	for name, n := range map[string]*atomic.Int64{"header": &p.HeaderRefused, "body": &p.BodyRefused,
		"malformed": &p.Malformed, "host": &p.HostRefused} {
		if n.Load() != 1 {
			t.Errorf("%s refused: %d, want 1", name, n.Load())
		}
	}
	if count, _, _ := p.Duration.Snapshot(); count != 1 {
		t.Errorf("%d durations, want that of the one request that could be read", count)
	}
}

func TestDefectIsReportedAndNotShown(t *testing.T) {
	var reported atomic.Pointer[string]
	s := localtest.Start(t, local.Config{
		Errors: apierror.NewLog(func(l apierror.Line) { reported.Store(&l.Text) }),
	})
	for _, key := range []string{"internal", "panic"} {
		c := localtest.Dial(t, "tcp", s.HTTP)
		c.Send(localtest.Get("/v1/failing/" + key))
		if _, body := c.Response("GET"); strings.Contains(body, "canary") {
			t.Errorf("shown: %s", body)
		}
		if text := reported.Swap(nil); text == nil || !strings.Contains(*text, "canary-secret") {
			t.Errorf("%s: not reported", key)
		}
		c.Send(localtest.Get("/"))
		if resp, _ := c.Response("GET"); resp.StatusCode != 200 {
			t.Errorf("%s: the connection is not reusable: %d", key, resp.StatusCode)
		}
	}
	if n := s.Config().Errors.Defects(); n != 2 {
		t.Errorf("%d defects counted", n)
	}
}
