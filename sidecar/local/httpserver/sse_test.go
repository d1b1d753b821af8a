package httpserver_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/sidecar/internal/watches"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

func TestWatchOverHTTP(t *testing.T) {
	s, d := localtest.StartWatchable(t, local.Config{})
	for network, address := range map[string]string{"tcp": s.HTTP, "unix": s.Unix} {
		put := func(key, value string) {
			t.Helper()
			if _, err := d.Write(t.Context(), kv.Change{Key: key, Value: []byte(value)}); err != nil {
				t.Fatal(err)
			}
		}
		put("a", "1")
		target := "/v1/raw:watch?key=a&key=b&key=n%2F1"
		w := localtest.OpenWatch(t, network, address, target, "Sec-Fetch-Site: same-origin")
		h := w.Header.Header
		if w.Header.StatusCode != 200 || h.Get("Content-Type") != "text/event-stream" || h.Get("Cache-Control") != "no-store" ||
			!w.Header.Close || h.Get("Date") == "" || h.Get("X-Accel-Buffering") != "no" {
			t.Errorf("%s: %d %v", network, w.Header.StatusCode, h)
		}
		w.Expect("a=1", "b=1", "n/1-")
		w.Expect("current")
		put("a", "2")
		w.Expect("a=2")
		if w.Events.Retry != "1000" || s.Stats().Watches.Load() != 1 {
			t.Errorf("retry %q, %d watches", w.Events.Retry, s.Stats().Watches.Load())
		}
		leave := func(w *localtest.EventStream) {
			_ = w.Close()
			localtest.Await(t, "the watch of a disconnected client ends", func() bool { return s.Stats().Watches.Load() == 0 })
		}
		leave(w)

		again := localtest.OpenWatch(t, network, address, target, "Last-Event-ID: "+w.Events.ID)
		again.Expect("current")
		leave(again)
		put("a", "3")
		again = localtest.OpenWatch(t, network, address, target, "Last-Event-ID: "+w.Events.ID)
		again.Expect("reset")
		again.Expect("a=3", "b=1", "n/1-")
		again.Expect("current")
		leave(again)
	}
	if n := s.Stats().WatchEvents.Load(); n != 22 {
		t.Errorf("%d events counted", n)
	}
}

func TestWatchOfRowsSendsJSON(t *testing.T) {
	s, _ := localtest.StartWatchable(t, local.Config{})
	w := localtest.OpenWatch(t, "tcp", s.HTTP, "/v1/rows:watch?key=a")
	w.Expect(`a={"v":"<&>\n"}`)
}

func TestWatchOverHTTP10HasNoChunks(t *testing.T) {
	s, _ := localtest.StartWatchable(t, local.Config{})
	c := localtest.Dial(t, "tcp", s.HTTP)
	c.Send("GET /v1/raw:watch?key=a HTTP/1.0\r\n\r\n")
	resp, err := http.ReadResponse(c.Reader, nil)
	if err != nil || len(resp.TransferEncoding) > 0 || resp.ContentLength >= 0 || !resp.Close {
		t.Fatalf("%+v, %v", resp, err)
	}
	w := localtest.NewEventStream(c, resp)
	w.Expect("a=1")
	w.Expect("current")
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := w.Events.Event(); err != io.EOF {
		t.Error(err)
	}
}

// Earlier requests on the same connection get their responses before the watch.
func TestWatchAfterPipelinedRequests(t *testing.T) {
	s, _ := localtest.StartWatchable(t, local.Config{})
	c := localtest.Dial(t, "tcp", s.HTTP)
	c.Send(localtest.Get("/v1/raw/a") + localtest.Get("/v1/raw/b") + localtest.Get("/v1/raw:watch?key=a") + "the server ignores what follows")
	for range 2 {
		if resp, body := c.Response("GET"); resp.StatusCode != 200 || body != "1" {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}
	resp, err := http.ReadResponse(c.Reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := localtest.NewEventStream(c, resp)
	w.Expect("a=1")
	w.Expect("current")
}

func TestWatchesOfSlowClientsAreClosed(t *testing.T) {
	s, d := localtest.StartWatchable(t, local.Config{WriteTimeout: 100 * time.Millisecond})
	large := bytes.Repeat([]byte("x"), kv.MaxValueBytes)
	localtest.OpenUnreadWatch(t, s.HTTP, "/v1/raw:watch?key=a")
	stream := localtest.OpenGRPCWatch(t, s.GRPC, "", "a")
	for i := 0; s.Stats().SlowWatchersClosed.Load() < 2; i++ {
		if i == 2000 {
			t.Fatalf("%d cut off", s.Stats().SlowWatchersClosed.Load())
		}
		large[0] = byte(i)
		if _, err := d.Write(t.Context(), kv.Change{Key: "a", Value: large}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	localtest.Await(t, "both watches have ended", func() bool { return s.Stats().Watches.Load() == 0 })
	var err error
	for err == nil {
		_, err = stream.Recv()
	}
	// It gets the status only if it reads while the server still has the event for it.
	if c := status.Code(err); c != codes.DeadlineExceeded && c != codes.Canceled {
		t.Errorf("got %v, want that the deadline has passed or that the stream was reset", err)
	}
}

// A grpc.Server returns from Send before the message is sent, and there is no other event that would have to wait.
func TestWatchOfSlowClientIsClosedAfterOneEvent(t *testing.T) {
	s, d := localtest.StartWatchable(t, local.Config{WriteTimeout: 100 * time.Millisecond})
	stream := localtest.OpenGRPCWatch(t, s.GRPC, "", "a")
	stream.Expect("a=1", "current")
	if _, err := d.Write(t.Context(), kv.Change{Key: "a", Value: bytes.Repeat([]byte("x"), kv.MaxValueBytes)}); err != nil {
		t.Fatal(err)
	}
	localtest.Await(t, "the watch is closed as slow", func() bool { return s.Stats().SlowWatchersClosed.Load() == 1 })
}

// WriteTimeout applies to each event, not to the watch.
func TestWatchOutlivesWriteTimeout(t *testing.T) {
	const timeout = 100 * time.Millisecond
	s, d := localtest.StartWatchable(t, local.Config{WriteTimeout: timeout, ReadTimeout: timeout, RequestTimeout: timeout,
		IdleTimeout: timeout})
	w, stream := localtest.OpenWatch(t, "tcp", s.HTTP, "/v1/raw:watch?key=a"), localtest.OpenGRPCWatch(t, s.GRPC, "", "a")
	w.Expect("a=1", "current")
	stream.Expect("a=1", "current")
	for i := range 5 {
		time.Sleep(timeout)
		if _, err := d.Write(t.Context(), kv.Change{Key: "a", Value: fmt.Append(nil, "v", i)}); err != nil {
			t.Fatal(err)
		}
		w.Expect(fmt.Sprint("a=v", i))
		stream.Expect(fmt.Sprint("a=v", i))
	}
}

// The memory of a watch does not grow with the changes that its client has not read. The last event has the newest value.
func TestWatchOfUnreadingClientIsBounded(t *testing.T) {
	s, d := localtest.StartWatchable(t, local.Config{WriteTimeout: time.Hour})
	w := localtest.OpenWatch(t, "tcp", s.HTTP, "/v1/raw:watch?key=a&key=b")
	w.Expect("a=1", "b=1")
	stream := localtest.OpenGRPCWatch(t, s.GRPC, "", "a", "b")
	stream.Expect("a=1", "b=1", "current")
	const changes, size = 20_000, 5000
	before := localtest.LiveBytes()
	value := bytes.Repeat([]byte("x"), size)
	for i := range changes {
		copy(value, fmt.Sprintf("%06d", i))
		if _, err := d.Write(t.Context(), kv.Change{Key: "a", Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	// Buffers of two connections and the state of two watches; the changes had 100 MB.
	if grown := localtest.LiveBytes() - before; grown > 12<<20 {
		t.Errorf("memory has grown by %d bytes", grown)
	}
	last := "a=" + string(value)
	awaitEvent(t, w, last)
	awaitEvent(t, stream, last)
}

func awaitEvent(t *testing.T, w localtest.WatchClient, want string) {
	t.Helper()
	for n := 0; ; n++ {
		if w.Next() == want {
			t.Logf("%d events before the newest", n)
			return
		}
	}
}

func TestPanicInWatchEndsOnlyThatWatch(t *testing.T) {
	s := localtest.Start(t, local.Config{}, local.Served{Dataset: localtest.Scripted{ItsName: "raw", OnWatch: func([]string) *watches.Watch { panic("canary") }}})
	c := localtest.Dial(t, "tcp", s.HTTP)
	c.Send(localtest.Get("/v1/raw:watch?key=a"))
	if rest, err := io.ReadAll(c.Reader); errors.Is(err, os.ErrDeadlineExceeded) || bytes.Contains(rest, []byte("canary")) {
		t.Errorf("%q, %v", rest, err)
	}
	if _, err := localtest.OpenGRPCWatch(t, s.GRPC, "", "a").Recv(); status.Code(err) != codes.Internal ||
		strings.Contains(err.Error(), "canary") {
		t.Error(err)
	}
	localtest.Await(t, "both watches have ended", func() bool { return s.Stats().Watches.Load() == 0 })
	if n := s.Config().Errors.Defects(); n != 2 {
		t.Errorf("%d defects", n)
	}
}

func TestEndOfASetWatchSaysWhy(t *testing.T) {
	s, d := localtest.StartWatchable(t, local.Config{MaxSetKeys: 2})
	w := localtest.OpenWatch(t, "tcp", s.HTTP, "/v1/raw:watch?all=true")
	w.Expect("a=1", "b=1", "current")
	if _, err := d.Write(t.Context(), kv.Change{Key: "c", Value: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	e, err := w.Events.Event()
	if err != nil || e.Name != "end" || !strings.Contains(e.Data, "/invalid-key") || !strings.Contains(e.Data, "watch longer prefixes") {
		t.Errorf("got %+v, %v; want the reason of the end", e, err)
	}
	if _, err := w.Events.Event(); err != io.EOF {
		t.Errorf("after the end: %v, want a complete response", err)
	}
}
