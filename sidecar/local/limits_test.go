package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/status"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

func TestConnectionsOverTheBoundAreRefusedAndOthersServed(t *testing.T) {
	s := start(t, Config{MaxConns: 2})
	first, second := dial(t, "tcp", s.http), dial(t, "tcp", s.http)
	for _, c := range []*rawConn{first, second} {
		c.send(get("/"))
		c.answer("GET")
	}
	third := dial(t, "tcp", s.http)
	resp, body := third.answer("GET")
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	checkProblem(t, resp, body, "too-many-connections")
	third.closed()
	first.send(get("/"))
	if resp, _ := first.answer("GET"); resp.StatusCode != 200 {
		t.Errorf("a connection within the bound: %d", resp.StatusCode)
	}
	stats := &s.Stats().HTTP
	if stats.Conns.Open.Load() != 2 || stats.Conns.Refused.Load() != 1 {
		t.Errorf("%d open, %d refused", stats.Conns.Open.Load(), stats.Conns.Refused.Load())
	}
	first.send(get("/", "Connection: close"))
	first.answer("GET")
	first.closed()
	fourth := dial(t, "tcp", s.http)
	fourth.send(get("/"))
	if resp, _ := fourth.answer("GET"); resp.StatusCode != 200 {
		t.Errorf("after one has left: %d", resp.StatusCode)
	}
}

// A client that sends a header byte by byte must not hold its connection for longer than ReadTimeout in all.
func TestSlowHeaderEndsTheConnection(t *testing.T) {
	s := start(t, Config{ReadTimeout: 100 * time.Millisecond})
	slow := dial(t, "tcp", s.http)
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
	resp, body := slow.answer("GET")
	checkProblem(t, resp, body, "request-timeout")
	if resp.StatusCode != http.StatusRequestTimeout || s.Stats().HTTP.ReadTimeouts.Load() != 1 {
		t.Errorf("%d, %d timeouts counted", resp.StatusCode, s.Stats().HTTP.ReadTimeouts.Load())
	}
}

func TestSlowBodyEndsTheConnection(t *testing.T) {
	c := dial(t, "tcp", start(t, Config{ReadTimeout: 50 * time.Millisecond}).http)
	c.send("POST /v1/blobs:batchGet HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
	resp, body := c.answer("POST")
	checkProblem(t, resp, body, "request-timeout")
	c.closed()
}

func TestSilentConnectionsAreClosed(t *testing.T) {
	s := start(t, Config{ReadTimeout: 50 * time.Millisecond, IdleTimeout: 50 * time.Millisecond})
	fresh, idle, unix := dial(t, "tcp", s.http), dial(t, "tcp", s.http), dial(t, "unix", s.unix)
	idle.send(get("/"))
	idle.answer("GET")
	idle.closed()
	unix.closed()
	if resp, _ := fresh.answer("GET"); resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("a connection that never spoke: %d", resp.StatusCode)
	}
	fresh.closed()
}

// A client that does not read its answers must not hold a goroutine and their bytes for ever.
func TestSlowReaderIsCutOff(t *testing.T) {
	big := scripted{name: "big", get: func(context.Context, string, cache.ReadOptions) (cache.Answer, error) {
		return cache.Answer{Value: make([]byte, 64<<20), Source: cache.SourceHit}, nil
	}}
	s := start(t, Config{WriteTimeout: 50 * time.Millisecond}, Served{Dataset: big})
	c := dial(t, "tcp", s.http)
	c.send(get("/v1/big/a"))
	if _, err := c.r.Peek(1); err != nil {
		t.Fatal(err)
	}
	for s.Stats().HTTP.Conns.Open.Load() > 0 { // ends with the test's own deadline at the latest
		time.Sleep(time.Millisecond)
	}
	if n, err := io.Copy(io.Discard, c.r); n >= 64<<20 {
		t.Errorf("read %d bytes, %v: nothing was cut off", n, err)
	}
}

func TestCountersOfRefusedRequests(t *testing.T) {
	s := start(t, Config{MaxBodyBytes: 10})
	for _, request := range []string{
		get("/", "X: "+strings.Repeat("x", 20000)), post("/v1/blobs:batchGet", strings.Repeat(" ", 11)),
		"nonsense\r\n\r\n", "GET / HTTP/1.1\r\nHost: evil\r\n\r\n",
	} {
		c := dial(t, "tcp", s.http)
		c.send(request)
		c.answer("GET")
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
	s := start(t, Config{Defect: func(err error) { text := err.Error(); reported.Store(&text) }})
	for _, key := range []string{"internal", "panic"} {
		c := dial(t, "tcp", s.http)
		c.send(get("/v1/failing/" + key))
		if _, body := c.answer("GET"); strings.Contains(body, "canary") {
			t.Errorf("shown: %s", body)
		}
		if text := reported.Swap(nil); text == nil || !strings.Contains(*text, "canary-secret") {
			t.Errorf("%s: not reported", key)
		}
		c.send(get("/"))
		if resp, _ := c.answer("GET"); resp.StatusCode != 200 {
			t.Errorf("%s: the connection does not go on: %d", key, resp.StatusCode)
		}
	}
	if n := s.Stats().Defects.Load(); n != 2 {
		t.Errorf("%d defects counted", n)
	}
}

func TestIDOfAnotherWriteIsNotSaidToBeAValue(t *testing.T) {
	s := startWritable(t, Config{})
	c := dial(t, "tcp", s.http)
	c.send(put("/v1/rows/a", `{"value":1}`, "Idempotency-Key: w"))
	c.answer("PUT")
	c.send(put("/v1/rows/a", `{"value":2}`, "Idempotency-Key: w"))
	resp, body := c.answer("PUT")
	checkProblem(t, resp, body, "invalid-value")
	if !strings.Contains(body, apierror.TypeOf(cache.KindIDReused).Title) {
		t.Errorf("%s", body)
	}
	_, err := client(t, s.grpc).Put(t.Context(), &ringsidev1.PutRequest{
		Dataset: "rows", Key: "a", Value: []byte(`{"value":3}`), IdempotencyId: "w",
	})
	if !strings.Contains(fmt.Sprint(status.Convert(err).Details()), `field:"idempotency_id"`) {
		t.Errorf("%v: %v", err, status.Convert(err).Details())
	}
}

func TestCancelSaysWhoHasEndedTheRequest(t *testing.T) {
	s := New(Config{}, NewCatalog())
	gone := &cache.Error{Kind: cache.KindCanceled, Err: errors.New("dataset a: the caller went away")}
	if f := s.fail(gone); f.Type.Name != "canceled" || f.Detail != gone.Error() {
		t.Errorf("%+v", f)
	}
	s.drain()
	if f := s.fail(gone); f.Type.Name != "stopping" || strings.Contains(f.Detail, "caller") {
		t.Errorf("%+v", f)
	}
}

func TestDeadlineIsLazyAndNeverUsedTwiceByStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := new(deadline)
		d.reset(context.Background(), time.Now().Add(time.Second))
		if !d.stop() {
			t.Error("nobody waited, and yet it may not be used again")
		}
		child, cancel := context.WithTimeout(d, time.Hour)
		defer cancel()
		<-child.Done()
		if !errors.Is(d.Err(), context.DeadlineExceeded) || !errors.Is(child.Err(), context.DeadlineExceeded) {
			t.Errorf("%v, %v", d.Err(), child.Err())
		}
		if d.stop() {
			t.Error("somebody waited, and yet it would be used again")
		}
		parent, cancelParent := context.WithTimeout(context.Background(), time.Minute)
		late := new(deadline)
		late.reset(parent, time.Now().Add(time.Hour))
		if at, _ := late.Deadline(); time.Until(at) > time.Minute {
			t.Error("the parent's earlier deadline is lost")
		}
		cancelParent()
		<-late.Done()
		if !errors.Is(late.Err(), context.Canceled) {
			t.Errorf("after the parent: %v", late.Err())
		}
	})
}
