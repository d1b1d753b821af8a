package local

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/origin/origintest"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

// serverEvent is one event as a browser dispatches it.
type serverEvent struct{ name, id, data string }

// eventReader reads a stream as WHATWG HTML, 9.2.6 has it.
type eventReader struct {
	*bufio.Reader
	id       string
	retry    string
	comments int
}

// next returns the next event that is dispatched: one with data.
func (r *eventReader) next() (e serverEvent, err error) {
	var data []string
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return e, err
		}
		line = strings.TrimSuffix(line, "\n")
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "" && data != nil:
			e.data, e.id = strings.Join(data, "\n"), r.id
			return e, nil
		case line == "":
			e = serverEvent{}
		case name == "":
			r.comments++
		case name == "event":
			e.name = value
		case name == "data":
			data = append(data, value)
		case name == "id":
			r.id = value
		case name == "retry":
			r.retry = value
		}
	}
}

// eventStream is a watch over HTTP.
type eventStream struct {
	*rawConn
	resp   *http.Response
	events *eventReader
}

func openWatch(t testing.TB, network, address, target string, fields ...string) *eventStream {
	t.Helper()
	c := dial(t, network, address)
	c.send(get(target, fields...))
	resp, err := http.ReadResponse(c.r, &http.Request{Method: "GET"})
	if err != nil {
		t.Fatal(err)
	}
	return &eventStream{c, resp, &eventReader{Reader: bufio.NewReader(resp.Body)}}
}

// word returns the next event as wordOf would.
func (s *eventStream) word() string {
	s.tb.Helper()
	e, err := s.events.next()
	if err != nil {
		s.tb.Fatal(err)
	}
	if e.name != "state" {
		if e.data != "{}" {
			s.tb.Errorf("%+v", e)
		}
		return e.name
	}
	var entry batchEntry
	if err := json.Unmarshal([]byte(e.data), &entry); err != nil {
		s.tb.Fatalf("%v: %+v", err, e)
	}
	switch {
	case entry.Error == nil:
		return entry.Key + "=" + string(entry.Value) + string(entry.ValueBase64)
	case entry.Error.Type == apierror.BaseURI+"absent":
		return entry.Key + "-"
	}
	return entry.Key + "!"
}

func (s *eventStream) expect(want ...string) {
	s.tb.Helper()
	var got []string
	for range want {
		got = append(got, s.word())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		s.tb.Errorf("told %q, want %q", got, want)
	}
}

// soon waits until a counter that another goroutine moves is what it has to be.
func soon(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("not so after 20 s: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func startWatchable(t testing.TB, config Config) (*started, *cache.Dataset) {
	d := newWritable(t, "raw", origintest.New(map[string]string{"a": "1", "b": "1"}))
	rows := newWritable(t, "rows", origintest.New(map[string]string{"a": `{ "v": "<&>\n" }`}))
	return start(t, config, Served{Dataset: d}, Served{Dataset: rows, JSON: true}), d
}

func TestWatchOverHTTP(t *testing.T) {
	s, d := startWatchable(t, Config{})
	for network, address := range map[string]string{"tcp": s.http, "unix": s.unix} {
		put := func(key, value string) {
			t.Helper()
			if _, err := d.Write(t.Context(), cache.Change{Key: key, Value: []byte(value)}); err != nil {
				t.Fatal(err)
			}
		}
		put("a", "1")
		target := "/v1/raw:watch?key=a&key=b&key=n%2F1"
		w := openWatch(t, network, address, target, "Sec-Fetch-Site: same-origin")
		h := w.resp.Header
		if w.resp.StatusCode != 200 || h.Get("Content-Type") != typeEvents || h.Get("Cache-Control") != noStore ||
			!w.resp.Close || h.Get("Date") == "" || h.Get("X-Accel-Buffering") != "no" {
			t.Errorf("%s: %d %v", network, w.resp.StatusCode, h)
		}
		checkDocumented(t, "GET "+target+" ", w.resp, "")
		w.expect("a=1", "b=1", "n/1-")
		w.expect("current")
		put("a", "2")
		w.expect("a=2")
		if w.events.retry != "1000" || s.Stats().Watches.Load() != 1 {
			t.Errorf("retry %q, %d watches", w.events.retry, s.Stats().Watches.Load())
		}
		leave := func(w *eventStream) {
			_ = w.Close()
			soon(t, "the watch of a client that has gone ends", func() bool { return s.Stats().Watches.Load() == 0 })
		}
		leave(w)

		again := openWatch(t, network, address, target, "Last-Event-ID: "+w.events.id)
		again.expect("current")
		leave(again)
		put("a", "3")
		again = openWatch(t, network, address, target, "Last-Event-ID: "+w.events.id)
		again.expect("reset")
		again.expect("a=3", "b=1", "n/1-")
		again.expect("current")
		leave(again)
	}
	if n := s.Stats().WatchEvents.Load(); n != 22 {
		t.Errorf("%d events counted", n)
	}
}

func TestWatchOfRowsTellsThemAsJSON(t *testing.T) {
	s, _ := startWatchable(t, Config{})
	w := openWatch(t, "tcp", s.http, "/v1/rows:watch?key=a")
	w.expect(`a={"v":"<&>\n"}`)
}

func TestWatchOverHTTP10HasNoChunks(t *testing.T) {
	s, _ := startWatchable(t, Config{})
	c := dial(t, "tcp", s.http)
	c.send("GET /v1/raw:watch?key=a HTTP/1.0\r\n\r\n")
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil || len(resp.TransferEncoding) > 0 || resp.ContentLength >= 0 || !resp.Close {
		t.Fatalf("%+v, %v", resp, err)
	}
	w := &eventStream{c, resp, &eventReader{Reader: bufio.NewReader(resp.Body)}}
	w.expect("a=1")
	w.expect("current")
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := w.events.next(); err != io.EOF {
		t.Error(err)
	}
}

func TestWatchRequestsThatAreNone(t *testing.T) {
	s, _ := startWatchable(t, Config{MaxWatches: -1})
	for _, tt := range []struct {
		request string
		status  int
		body    string
		header  map[string]string
	}{
		{get("/v1/raw:watch"), 400, "malformed-request", nil}, {get("/v1/raw:watch?"), 400, "malformed-request", nil},
		{get("/v1/raw:watch?key="), 400, "malformed-request", nil}, {get("/v1/raw:watch?key=a&x=y"), 400,
			"malformed-request", nil},
		{get("/v1/raw:watch?key=%zz"), 400, "malformed-request", nil}, {get("/v1/raw:watch?key=a;key=b"), 400,
			"malformed-request", nil},
		{get("/v1/raw:watch?key=a#x"), 400, "malformed-request", nil}, {get("/v1/raw:watch?key=%ff"), 400,
			"malformed-request", nil},
		{get("/v1/ra:watch?key=a"), 404, "unknown-dataset", nil}, {get("/v1/raw/a:watch?key=a"), 400, "malformed-request",
			nil},
		{get("/v1/raw:batchGet?key=a"), 400, "malformed-request", nil},
		{post("/v1/raw:watch?key=a", ""), 405, "method-not-allowed", map[string]string{"Allow": "GET, HEAD"}},
		{get("/v1/raw:watch?key=a", "Sec-Fetch-Site: same-site"), 403, "cross-site", nil},
		{get("/v1/raw:watch?key=a", "Origin: http://localhost:8000"), 403, "cross-site", nil},
		{get("/v1/raw:watch?key=a"), 429, "overloaded", map[string]string{"Retry-After": "5"}},
		{strings.Replace(get("/v1/raw:watch?key=a"), "GET", "HEAD", 1), 200, "",
			map[string]string{"Content-Type": typeEvents, "Content-Length": ""}},
		{strings.Replace(get("/v1/raw:watch"), "GET", "HEAD", 1), 400, "", nil},
	} {
		c := dial(t, "tcp", s.http)
		c.send(tt.request)
		method := strings.Fields(tt.request)[0]
		resp, body := c.answer(method)
		if resp.StatusCode != tt.status {
			t.Errorf("%.60q: %d %s", tt.request, resp.StatusCode, body)
			continue
		}
		problem := ""
		if method != "HEAD" {
			problem = apierror.BaseURI + tt.body
			checkProblem(t, resp, body, tt.body)
			checkDocumented(t, tt.request, resp, problem)
		}
		for name, want := range tt.header {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("%.60q: %s: %q, want %q", tt.request, name, got, want)
			}
		}
		if method == "HEAD" && tt.status == 200 {
			c.send(get("/"))
			if resp, _ := c.answer("GET"); resp.StatusCode != 200 {
				t.Errorf("after HEAD: %d", resp.StatusCode)
			}
		}
	}
	if n := s.Stats().WatchesRefused.Load(); n != 1 {
		t.Errorf("%d refused", n)
	}
}

func TestWatchesAreBounded(t *testing.T) {
	s, _ := startWatchable(t, Config{MaxWatches: 2})
	first := openWatch(t, "tcp", s.http, "/v1/raw:watch?key=a")
	first.expect("a=1", "current")
	stream := grpcWatch(t, s.grpc, "", "a")
	stream.expect("a=1", "current")
	over := openWatch(t, "unix", s.unix, "/v1/raw:watch?key=a")
	if over.resp.StatusCode != 429 {
		t.Errorf("%d", over.resp.StatusCode)
	}
	if _, err := grpcWatch(t, s.grpc, "", "a").Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Error(err)
	} else if reason, _ := details(err); reason != "OVERLOADED" {
		t.Error(err)
	}
	_ = first.Close()
	soon(t, "the place is free again", func() bool { return s.Stats().Watches.Load() == 1 })
	openWatch(t, "tcp", s.http, "/v1/raw:watch?key=b").expect("b=1", "current")
	if n := s.Stats().WatchesRefused.Load(); n != 2 {
		t.Errorf("%d refused", n)
	}
}

// What was asked before on the same connection is answered before.
func TestWatchAfterPipelinedRequests(t *testing.T) {
	s, _ := startWatchable(t, Config{})
	c := dial(t, "tcp", s.http)
	c.send(get("/v1/raw/a") + get("/v1/raw/b") + get("/v1/raw:watch?key=a") + "what comes after it is not read")
	for range 2 {
		if resp, body := c.answer("GET"); resp.StatusCode != 200 || body != "1" {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &eventStream{c, resp, &eventReader{Reader: bufio.NewReader(resp.Body)}}
	w.expect("a=1")
	w.expect("current")
}

// A stop of the sidecar ends watches at once, and so that clients know that nothing was cut off.
func TestShutdownEndsWatchesCleanly(t *testing.T) {
	s, _ := startWatchable(t, Config{})
	streams := []*eventStream{
		openWatch(t, "tcp", s.http, "/v1/raw:watch?key=a"), openWatch(t, "unix", s.unix, "/v1/raw:watch?key=a")}
	for _, w := range streams {
		w.expect("a=1", "current")
	}
	stream := grpcWatch(t, s.grpc, "", "a")
	stream.expect("a=1", "current")
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	for _, w := range streams {
		if e, err := w.events.next(); err != io.EOF {
			t.Errorf("%+v, %v", e, err)
		}
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Error(err)
	}
	if err := s.beginWatch(); cache.KindOf(err) != cache.KindCanceled {
		t.Errorf("a watch after Shutdown: %v", err)
	}
}

// A client that does not read holds up no stop: its connection is cut when the time for it is over.
func TestShutdownCutsWatchesOfSlowClients(t *testing.T) {
	s, d := startWatchable(t, Config{WriteTimeout: time.Hour})
	large := bytes.Repeat([]byte("x"), cache.MaxValueBytes)
	if _, err := d.Write(t.Context(), cache.Change{Key: "a", Value: large}); err != nil {
		t.Fatal(err)
	}
	w, stream := deafWatch(t, s.http, "/v1/raw:watch?key=a"), grpcWatch(t, s.grpc, "", "a")
	soon(t, "both are in the middle of an event", func() bool { return s.Stats().WatchEvents.Load() >= 2 })
	for i := range 20 { // so that no buffer takes all
		large[0] = byte(i)
		if _, err := d.Write(t.Context(), cache.Change{Key: "a", Value: large}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * breath)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	if n := s.Stats().Watches.Load(); n != 0 {
		t.Errorf("%d watches are left", n)
	}
	_, _ = w, stream
}

// deafWatch asks for a watch and never reads.
func deafWatch(t *testing.T, address, target string) *net.TCPConn {
	t.Helper()
	c := dial(t, "tcp", address)
	raw := c.Conn.(*net.TCPConn)
	if err := raw.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	c.send(get(target))
	return raw
}

func TestSlowClientsAreCutOff(t *testing.T) {
	s, d := startWatchable(t, Config{WriteTimeout: 100 * time.Millisecond})
	large := bytes.Repeat([]byte("x"), cache.MaxValueBytes)
	deafWatch(t, s.http, "/v1/raw:watch?key=a")
	stream := grpcWatch(t, s.grpc, "", "a")
	for i := 0; s.Stats().WatchesCut.Load() < 2; i++ {
		if i == 2000 {
			t.Fatalf("%d cut off", s.Stats().WatchesCut.Load())
		}
		large[0] = byte(i)
		if _, err := d.Write(t.Context(), cache.Change{Key: "a", Value: large}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(breath)
	}
	soon(t, "both have ended", func() bool { return s.Stats().Watches.Load() == 0 })
	var err error
	for err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.DeadlineExceeded {
		t.Error(err)
	}
}

// WriteTimeout is for each event, and not for the watch.
func TestWatchOutlivesWriteTimeout(t *testing.T) {
	const timeout = 100 * time.Millisecond
	s, d := startWatchable(t, Config{WriteTimeout: timeout, ReadTimeout: timeout, RequestTimeout: timeout,
		IdleTimeout: timeout})
	w, stream := openWatch(t, "tcp", s.http, "/v1/raw:watch?key=a"), grpcWatch(t, s.grpc, "", "a")
	w.expect("a=1", "current")
	stream.expect("a=1", "current")
	for i := range 5 {
		time.Sleep(timeout)
		if _, err := d.Write(t.Context(), cache.Change{Key: "a", Value: fmt.Append(nil, "v", i)}); err != nil {
			t.Fatal(err)
		}
		w.expect(fmt.Sprint("a=v", i))
		stream.expect(fmt.Sprint("a=v", i))
	}
}

// The memory of a watch does not grow with the changes that its client has not read. What it reads in the end is new.
func TestWatchOfAClientThatDoesNotReadIsBounded(t *testing.T) {
	s, d := startWatchable(t, Config{WriteTimeout: time.Hour})
	w := openWatch(t, "tcp", s.http, "/v1/raw:watch?key=a&key=b")
	w.expect("a=1", "b=1")
	stream := grpcWatch(t, s.grpc, "", "a", "b")
	stream.expect("a=1", "b=1", "current")
	const changes, size = 100_000, 1000
	before := taken()
	value := bytes.Repeat([]byte("x"), size)
	for i := range changes {
		copy(value, fmt.Sprintf("%06d", i))
		if _, err := d.Write(t.Context(), cache.Change{Key: "a", Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	// Buffers of two connections and what two loops hold; the changes were 100 MB.
	if grown := taken() - before; grown > 12<<20 {
		t.Errorf("memory has grown by %d bytes", grown)
	}
	last := "a=" + string(value)
	soonWord(t, last, func() string { return w.word() })
	soonWord(t, last, func() string { return stream.word() })
}

func soonWord(t *testing.T, want string, word func() string) {
	t.Helper()
	for n := 0; ; n++ {
		if word() == want {
			t.Logf("%d events before the newest", n)
			return
		}
	}
}

// messages is a watch over gRPC.
type messages struct {
	watchClient
	t     testing.TB
	token string
}

type watchClient interface {
	Recv() (*ringsidev1.WatchResponse, error)
}

func grpcWatch(t testing.TB, address, token string, keys ...string) *messages {
	t.Helper()
	stream, err := client(t, address).Watch(t.Context(), &ringsidev1.WatchRequest{Dataset: "raw", Keys: keys,
		ResumeToken: token})
	if err != nil {
		t.Fatal(err)
	}
	return &messages{watchClient: stream, t: t}
}

func (m *messages) word() string {
	m.t.Helper()
	got, err := m.Recv()
	if err != nil {
		m.t.Fatal(err)
	}
	m.token = got.GetToken()
	state := got.GetState()
	switch {
	case got.GetReset_() != nil:
		return "reset"
	case got.GetCurrent() != nil:
		return "current"
	case state.GetError() != nil:
		return state.GetKey() + "!"
	case state.GetAbsent():
		return state.GetKey() + "-"
	}
	return state.GetKey() + "=" + string(state.GetFound().GetValue())
}

func (m *messages) expect(want ...string) {
	m.t.Helper()
	var got []string
	for range want {
		got = append(got, m.word())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		m.t.Errorf("told %q, want %q", got, want)
	}
}

func TestWatchOverGRPC(t *testing.T) {
	s, d := startWatchable(t, Config{})
	w := grpcWatch(t, s.grpc, "", "a", "none")
	w.expect("a=1", "none-", "current")
	if _, err := d.Write(t.Context(), cache.Change{Key: "a", Value: []byte("2")}); err != nil {
		t.Fatal(err)
	}
	w.expect("a=2")
	again := grpcWatch(t, s.grpc, w.token, "none", "a")
	again.expect("current")
	if again.token != w.token {
		t.Errorf("tokens %q and %q", again.token, w.token)
	}
	// Both protocols have the same tokens.
	over := openWatch(t, "tcp", s.http, "/v1/raw:watch?key=a&key=none", "Last-Event-ID: "+w.token)
	over.expect("current")
	reset := grpcWatch(t, s.grpc, "x", "a")
	reset.expect("reset", "a=2", "current")
}

func TestGRPCWatchTellsErrors(t *testing.T) {
	real := newDataset(t, "raw", origintest.New(nil))
	d := scripted{name: "raw", watch: real.Watch, get: func(_ context.Context, key string,
		_ cache.ReadOptions) (cache.Answer, error) {
		if key == "panic" {
			panic("canary")
		}
		return cache.Answer{}, &cache.Error{Kind: cache.KindUnavailable, RetryAfter: time.Second,
			Err: errors.New("the origin refused")}
	}}
	s := start(t, Config{}, Served{Dataset: d})
	m, err := grpcWatch(t, s.grpc, "", "k").Recv()
	e := m.GetState().GetError()
	if err != nil || codes.Code(e.GetCode()) != codes.Unavailable || e.GetReason() != "ORIGIN_UNAVAILABLE" ||
		e.GetRetryAfter().AsDuration() != time.Second {
		t.Errorf("%v, %v", m, err)
	}
	m, err = grpcWatch(t, s.grpc, "", "panic").Recv()
	if e := m.GetState().GetError(); err != nil || e.GetReason() != "INTERNAL" || strings.Contains(e.GetMessage(),
		"canary") {
		t.Errorf("%v, %v", m, err)
	}
	w := openWatch(t, "tcp", s.http, "/v1/raw:watch?key=k")
	w.expect("k!")
}

func TestGRPCWatchRequestsThatAreNone(t *testing.T) {
	s, _ := startWatchable(t, Config{})
	for _, tt := range []struct {
		request       *ringsidev1.WatchRequest
		code          codes.Code
		reason, field string
	}{
		{&ringsidev1.WatchRequest{Dataset: "x", Keys: []string{"a"}}, codes.NotFound, "UNKNOWN_DATASET", ""},
		{&ringsidev1.WatchRequest{Dataset: "raw"}, codes.InvalidArgument, "INVALID_REQUEST", "keys"},
		{&ringsidev1.WatchRequest{Dataset: "raw", Keys: []string{""}}, codes.InvalidArgument, "INVALID_REQUEST", "keys"},
	} {
		stream, err := client(t, s.grpc).Watch(t.Context(), tt.request)
		if err == nil {
			_, err = stream.Recv()
		}
		if reason, field := details(err); status.Code(err) != tt.code || reason != tt.reason || field != tt.field {
			t.Errorf("%v: %v %s %s", tt.request, err, reason, field)
		}
	}
}

func TestGRPCWatchEndsWhenItsClientGoes(t *testing.T) {
	s, _ := startWatchable(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := client(t, s.grpc).Watch(ctx, &ringsidev1.WatchRequest{Dataset: "raw", Keys: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	soon(t, "the watch ends", func() bool { return s.Stats().Watches.Load() == 0 })
}

// Clients that route by the ring read and write through this listener. A watch belongs to no owner.
func TestRoutedListenerTakesWritesAndNoWatches(t *testing.T) {
	s, _ := startWatchable(t, Config{})
	address := s.listen(t, "tcp", func(ln net.Listener) error { return s.ServeRouted(ln, nil) })
	for _, major := range []int{1, 2} {
		httpClient := overHTTP(t, major, nil)
		request, err := http.NewRequest("PUT", "http://"+address+"/v1/raw/r", strings.NewReader(fmt.Sprint(major)))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := httpClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != 200 || string(body) != fmt.Sprint(major) {
			t.Errorf("HTTP/%d PUT: %d %s", major, resp.StatusCode, body)
		}
		if resp, body := fetch(t, httpClient, "http://"+address+"/v1/raw:watch?key=a"); resp.StatusCode != 404 {
			t.Errorf("HTTP/%d watch: %d %s", major, resp.StatusCode, body)
		}
	}
	if _, err := client(t, address).Delete(t.Context(), &ringsidev1.DeleteRequest{Dataset: "raw", Key: "r"}); err != nil {
		t.Error(err)
	}
	if _, err := grpcWatch(t, address, "", "a").Recv(); status.Code(err) != codes.Unimplemented {
		t.Error(err)
	}
}

func TestPanicInAWatchEndsThatWatchAlone(t *testing.T) {
	s := start(t, Config{}, Served{Dataset: scripted{name: "raw", watch: func([]string) *cache.Watch { panic("canary") }}})
	c := dial(t, "tcp", s.http)
	c.send(get("/v1/raw:watch?key=a"))
	if rest, err := io.ReadAll(c.r); errors.Is(err, os.ErrDeadlineExceeded) || bytes.Contains(rest, []byte("canary")) {
		t.Errorf("%q, %v", rest, err)
	}
	if _, err := grpcWatch(t, s.grpc, "", "a").Recv(); status.Code(err) != codes.Internal ||
		strings.Contains(err.Error(), "canary") {
		t.Error(err)
	}
	soon(t, "both have ended", func() bool { return s.Stats().Watches.Load() == 0 })
	if n := s.Stats().Defects.Load(); n != 2 {
		t.Errorf("%d defects", n)
	}
}

// FuzzEvent reads back what is written: no value, key or token can make an event of its own.
func FuzzEvent(f *testing.F) {
	f.Add("a", []byte(`{"v":1}`), true)
	f.Add("k\n\nevent: reset\ndata: x", []byte("line\r\nid: 7\r\n\r\n"), false)
	f.Add("é\x00", []byte("{\"v\":\"\u2028\"}"), true)
	s := New(Config{}, NewCatalog())
	f.Fuzz(func(t *testing.T, key string, value []byte, isJSON bool) {
		conn := &tape{in: strings.NewReader("")}
		w := newEventWriter(conn, s.http.entrance, isJSON)
		want := s.http.entrance.entry(key, outcome{answer: cache.Answer{Value: value, ETag: `"e"`,
			Source: cache.SourceHit}}, isJSON)
		for _, e := range []event{
			{kind: eventState, key: key, token: "t1", outcome: outcome{answer: cache.Answer{Value: value, ETag: `"e"`,
				Source: cache.SourceHit}}},
			{kind: eventCurrent, token: "t2"},
		} {
			if err := w.tell(e); err != nil {
				t.Fatal(err)
			}
		}
		r := &eventReader{Reader: bufio.NewReader(&conn.out)}
		first, err := r.next()
		if err != nil || first.name != "state" || first.id != "t1" {
			t.Fatalf("%+v, %v", first, err)
		}
		plain, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got, sent any
		if json.Unmarshal([]byte(first.data), &got) != nil || json.Unmarshal(plain, &sent) != nil ||
			fmt.Sprint(got) != fmt.Sprint(sent) {
			t.Errorf("%q, want %q", first.data, plain)
		}
		if second, err := r.next(); err != nil || second != (serverEvent{"current", "t2", "{}"}) {
			t.Errorf("%+v, %v", second, err)
		}
		if rest, err := r.next(); err != io.EOF {
			t.Errorf("%+v, %v", rest, err)
		}
	})
}

// FuzzWatchQuery: what is taken is what a browser has written, and nothing else.
func FuzzWatchQuery(f *testing.F) {
	for _, s := range []string{"key=a", "key=a&key=b+c&key=%2F", "", "key=a;b", "x=y", "key=%zz", "key=a&key=a",
		"key=\xff", "key=a#b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		keys, err := parseWatchQuery(query)
		if err != nil {
			return
		}
		again, err := parseWatchQuery(url.Values{"key": keys}.Encode())
		if err != nil || !slices.Equal(again, keys) || len(keys) == 0 || len(keys) > MaxWatchKeys {
			t.Errorf("%q: %q; again %q, %v", query, keys, again, err)
		}
		for _, key := range keys {
			if checkKey(key) != nil {
				t.Errorf("%q: %q", query, key)
			}
		}
	})
}
