package h2

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
)

func TestRequestAndResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connect(t, serving(Config{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, err := io.ReadAll(r.Body)
			if r.ProtoMajor != 2 || r.Host != "h" || r.RequestURI != "/p?q=1" || r.URL.Path != "/p" || r.URL.RawQuery != "q=1" ||
				r.Header.Get("Cookie") != "a; b" || strings.Join(r.Header.Values("X-Two"), ",") != "1,2" ||
				r.ContentLength != 3 || r.Trailer.Get("X-After") != "t" || r.Context().Value(http.LocalAddrContextKey) == nil {
				t.Errorf("got request %+v", r)
			}
			w.Header().Set("Trailer", "X-Announced")
			w.Header().Set("Connection", "close")
			w.Header().Set("X-Wrong", "a\nb")
			w.WriteHeader(201)
			fmt.Fprintf(w, "%s %v", b, err)
			w.Header().Set("X-Announced", "1")
			w.Header().Set(http.TrailerPrefix+"X-Late", "2")
		})}))
		id := c.post("/p?q=1", "cookie", "a", "x-two", "1", "cookie", "b", "x-two", "2", "content-length", "3")
		c.send(id, []byte("abc"), false)
		c.header(id, true, c.encode("x-after", "t"))
		a := c.response(id)
		if a.header[":status"] != "201" || string(a.data) != "abc <nil>" || a.trailer["x-announced"] != "1" || a.trailer["x-late"] != "2" ||
			a.header["connection"] != "" || a.header["x-wrong"] != "" || a.header["date"] == "" || !a.ended {
			t.Errorf("got %+v", a)
		}
	})
}

func TestResponsesWithoutBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connect(t, serving(Config{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/204":
				w.WriteHeader(204)
				if _, err := w.Write([]byte("x")); !errors.Is(err, http.ErrBodyNotAllowed) {
					t.Errorf("got error %v", err)
				}
			case "/head":
				_, _ = w.Write([]byte("xyz"))
			}
		})}))
		for path, want := range map[string]string{"/204": "204 ", "/head": "200 3", "/none": "200 0"} {
			method := "GET"
			if path == "/head" {
				method = "HEAD"
			}
			id := c.begin(true, ":method", method, ":scheme", "http", ":path", path)
			a := c.response(id)
			if got := a.header[":status"] + " " + a.header["content-length"]; got != want || len(a.data) != 0 || !a.ended {
				t.Errorf("%s: got %q, %+v; want %q", path, got, a, want)
			}
		}
	})
}

func TestMalformedRequestsAreReset(t *testing.T) {
	get := []string{":method", "GET", ":scheme", "http", ":path", "/"}
	for name, fields := range map[string][]string{
		"capital letter":       append(get[:6:6], "X-A", "1"),
		"connection":           append(get[:6:6], "connection", "close"),
		"te":                   append(get[:6:6], "te", "gzip"),
		"space in name":        append(get[:6:6], "a b", "1"),
		"newline in value":     append(get[:6:6], "a", "1\r\nb: 2"),
		"pseudo after regular": {":method", "GET", ":scheme", "http", "a", "b", ":path", "/"},
		"unknown pseudo":       append(get[:6:6], ":x", "1"),
		"double path":          append(get[:6:6], ":path", "/"),
		"no path":              get[:4],
		"no method":            get[2:],
		"wrong scheme":         {":method", "GET", ":scheme", "ftp", ":path", "/"},
		"relative path":        {":method", "GET", ":scheme", "http", ":path", "x"},
		"two hosts":            append(get[:6:6], ":authority", "a", "host", "b"),
		"length without body":  append(get[:6:6], "content-length", "1"),
		"negative length":      append(get[:6:6], "content-length", "-1"),
	} {
		synctest.Test(t, func(t *testing.T) {
			c := connect(t, serving(Config{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				t.Errorf("%s: was served", name)
			})}))
			c.expectReset(c.begin(true, fields...), http2.ErrCodeProtocol)
			if c.isEnded() {
				t.Errorf("%s: the connection ended", name)
			}
		})
	}
}

func TestBodyThatDiffersFromItsLengthIsReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connect(t, serving(Config{}))
		id := c.post("/", "content-length", "5")
		c.send(id, []byte("abc"), true)
		c.expectReset(id, http2.ErrCodeProtocol)
	})
}

func TestErrorsOfTheConnection(t *testing.T) {
	for name, test := range map[string]struct {
		attack func(c *client)
		want   http2.ErrCode
	}{
		"ping flood": {func(c *client) {
			for range maxUseless + 1 {
				c.do(c.framer.WritePing(false, [8]byte{}))
			}
			for range maxUseless + 1 {
				c.do(c.framer.WritePing(false, [8]byte{}))
			}
		}, http2.ErrCodeEnhanceYourCalm},
		"settings flood": {func(c *client) {
			for range 2*maxUseless + 50 {
				c.do(c.framer.WriteSettings())
			}
		}, http2.ErrCodeEnhanceYourCalm},
		"priority flood": {func(c *client) {
			for range 2*maxUseless + 50 {
				c.do(c.framer.WritePriority(1, http2.PriorityParam{}))
			}
		}, http2.ErrCodeEnhanceYourCalm},
		"empty data flood": {func(c *client) {
			id := c.post("/")
			for range 2*maxUseless + 50 {
				c.do(c.framer.WriteData(id, false, nil))
			}
		}, http2.ErrCodeEnhanceYourCalm},
		"reset flood": {func(c *client) {
			for range 2*maxUseless + 50 {
				c.do(c.framer.WriteRSTStream(c.get("/wait"), http2.ErrCodeCancel))
			}
		}, http2.ErrCodeEnhanceYourCalm},
		"continuation flood": {func(c *client) {
			block := c.encode(":method", "GET", ":scheme", "http", ":path", "/")
			c.do(c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block}))
			for range maxContinuations + 1 {
				c.do(c.framer.WriteContinuation(1, false, nil))
			}
		}, http2.ErrCodeEnhanceYourCalm},
		"endless header": {func(c *client) {
			block := c.encode("x", strings.Repeat("\x01", 200<<10))
			c.do(c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:16<<10]}))
			for n := range 10 {
				c.do(c.framer.WriteContinuation(1, false, block[(n+1)<<14:(n+2)<<14]))
			}
		}, http2.ErrCodeEnhanceYourCalm},
		"frame between headers": {func(c *client) {
			c.do(c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1}))
			c.do(c.framer.WritePing(false, [8]byte{}))
		}, http2.ErrCodeProtocol},
		"large frame": {func(c *client) {
			c.do(c.framer.WriteData(1, false, make([]byte, 16<<10+1)))
		}, http2.ErrCodeFrameSize},
		"garbage instead of fields": {func(c *client) {
			c.header(1, true, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
		}, http2.ErrCodeCompression},
		"even stream": {func(c *client) { c.header(2, true, c.encode(":method", "GET")) }, http2.ErrCodeProtocol},
		"idle stream": {func(c *client) { c.do(c.framer.WriteData(1, false, nil)) }, http2.ErrCodeProtocol},
		"window of the connection": {func(c *client) {
			c.do(c.framer.WriteWindowUpdate(0, 1<<31-1))
		}, http2.ErrCodeFlowControl},
		"data beyond the window": {func(c *client) {
			id := c.post("/wait")
			for range 5 {
				c.do(c.framer.WriteData(id, false, make([]byte, 16<<10)))
			}
		}, http2.ErrCodeNo},
	} {
		synctest.Test(t, func(t *testing.T) {
			stop := make(chan struct{})
			s := serving(Config{MaxStreams: 10_000, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/wait" {
					<-stop
				}
			})})
			c := connect(t, s)
			test.attack(c)
			if test.want == http2.ErrCodeNo {
				c.expectReset(1, http2.ErrCodeFlowControl)
			} else {
				c.expectGoAway(test.want)
			}
			close(stop)
			t.Log(name)
		})
	}
}

// gRPC clients send a PING with most responses, to measure the delay.
func TestPingsWithRequestsAreNoFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connect(t, serving(Config{}))
		for i := range 3 * maxUseless {
			c.get("/")
			c.do(c.framer.WritePing(false, [8]byte{}))
			if i%100 == 0 {
				c.settle()
			}
		}
		c.settle()
		if c.isEnded() {
			t.Error("the connection ended")
		}
	})
}

// Handlers of reset requests count until they return.
func TestResetRequestsCountUntilTheirHandlersReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		var running atomic.Int64
		c := connect(t, serving(Config{MaxStreams: 4, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			running.Add(1)
			<-stop
			running.Add(-1)
		})}))
		for range 20 {
			c.do(c.framer.WriteRSTStream(c.get("/"), http2.ErrCodeCancel))
		}
		c.settle()
		if n := running.Load(); n != 4 {
			t.Errorf("%d handlers are running, want 4", n)
		}
		close(stop)
		c.settle()
		if a := c.response(c.get("/")); a.header[":status"] != "200" {
			t.Errorf("after they returned: got %+v", a)
		}
	})
}

func TestLargeHeaderFailsOnlyItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connect(t, serving(Config{MaxHeaderBytes: 1000}))
		for _, size := range []int{1000, 15 << 10, 120 << 10} {
			block := c.encode(":method", "POST", ":scheme", "http", ":path", "/", "x", strings.Repeat("\x01", size), "content-type", "application/grpc")
			first := block[:min(len(block), 16<<10)]
			c.do(c.framer.WriteHeaders(http2.HeadersFrameParam{
				StreamID: c.next, EndStream: true, EndHeaders: len(first) == len(block), BlockFragment: first}))
			for rest := block[len(first):]; len(rest) > 0; {
				part := rest[:min(len(rest), 16<<10)]
				rest = rest[len(part):]
				c.do(c.framer.WriteContinuation(c.next, len(rest) == 0, part))
			}
			c.expectStatus(c.next, "8")
			c.next += 2
		}
		c.expectStatus(c.unary("/s/m", nil), "0")
	})
}

func TestWindowsOfTheClientAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connect(t, serving(Config{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, 100))
		})}), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
		id := c.get("/")
		if n := len(c.response(id).data); n != 10 {
			t.Fatalf("got %d bytes, want 10", n)
		}
		c.do(c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})) // now it is -10
		c.do(c.framer.WriteWindowUpdate(id, 15))
		if n := len(c.response(id).data); n != 15 {
			t.Fatalf("got %d bytes, want 15", n)
		}
		c.do(c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}))
		if a := c.response(id); len(a.data) != 100 || !a.ended {
			t.Fatalf("got %d bytes, ended %v; want all", len(a.data), a.ended)
		}
	})
}

func TestSmallHeaderTableOfTheClientIsRespected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connect(t, serving(Config{Fast: echoFast{}}), http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
		c.framer.ReadMetaHeaders.SetMaxDynamicTableSize(0)
		for range 3 {
			c.expectStatus(c.unary("/fast", []byte("x")), "0")
		}
	})
}

func TestPanicResetsItsStreamOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var defect any
		c := connect(t, serving(Config{Defect: func(p any) { defect = p }, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/panic" {
				panic("boom")
			}
		})}))
		c.expectReset(c.get("/panic"), http2.ErrCodeInternal)
		if a := c.response(c.get("/")); defect != "boom" || a.header[":status"] != "200" {
			t.Errorf("got defect %v and %+v", defect, a)
		}
	})
}

func TestContextEndsWithTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Int64
		c := connect(t, serving(Config{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			ended.Add(1)
		})}))
		c.do(c.framer.WriteRSTStream(c.get("/"), http2.ErrCodeCancel))
		c.get("/")
		c.settle()
		if n := ended.Load(); n != 1 {
			t.Errorf("%d contexts ended after the reset of one stream", n)
		}
		c.conn.Close()
		c.settle()
		if n := ended.Load(); n != 2 {
			t.Errorf("%d contexts ended after the end of the connection", n)
		}
	})
}

func TestDeadlinesOfTheResponseController(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errs := make(chan error, 2)
		c := connect(t, serving(Config{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			control := http.NewResponseController(w)
			errs <- control.SetReadDeadline(time.Now().Add(time.Second))
			_, err := r.Body.Read(make([]byte, 1))
			errs <- err
			_ = control.SetWriteDeadline(time.Now().Add(time.Second))
			_, err = w.Write(make([]byte, 100))
			errs <- errors.Join(err, control.Flush())
		})}), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
		id := c.post("/")
		time.Sleep(3 * time.Second)
		first, second, third := <-errs, <-errs, <-errs
		var timeout interface{ Timeout() bool }
		if first != nil || !errors.As(second, &timeout) || !errors.As(third, &timeout) {
			t.Errorf("got %v, %v, %v; want nothing and two timeouts", first, second, third)
		}
		c.expectReset(id, http2.ErrCodeCancel)
	})
}

func TestTimeouts(t *testing.T) {
	at := func(d time.Duration) { time.Sleep(d + 2*time.Second) } // the timer looks every second
	synctest.Test(t, func(t *testing.T) {
		s := serving(Config{IdleTimeout: 3 * time.Minute, Problem: func(status int, detail string) (string, []byte) {
			return "text/plain", []byte(detail)
		}})
		nothing, preface := start(t, s), start(t, s)
		preface.setSilent()
		preface.write([]byte(http2.ClientPreface))
		c := connect(t, s)
		call, upload := c.call("/s/m"), c.post("/")
		c.send(call, []byte{0, 0}, false)
		at(5 * time.Second)
		if !nothing.isEnded() || !preface.isEnded() {
			t.Errorf("without a preface: ended %v, without SETTINGS: ended %v", nothing.isEnded(), preface.isEnded())
		}
		c.expectStatus(call, "4")
		if a := c.response(upload); a.header[":status"] != "408" || string(a.data) != tooSlow.text {
			t.Errorf("got %+v, want 408", a)
		}
		at(time.Minute)
		if c.pingCount() == 0 || c.isEnded() {
			t.Errorf("%d pings, ended %v; want one", c.pingCount(), c.isEnded())
		}
		at(3 * time.Minute)
		if !c.isEnded() || len(c.farewells()) != 2 || c.farewells()[1].LastStreamID != upload {
			t.Errorf("after IdleTimeout: got %v, ended %v; want two GOAWAY", c.farewells(), c.isEnded())
		}
		if n := s.Stats().MessageTimeouts.Load(); n != 2 {
			t.Errorf("%d timeouts counted", n)
		}
	})
}

func TestClientWithoutSignOfLifeIsDisconnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connect(t, serving(Config{}))
		c.setSilent()
		time.Sleep(2 * time.Minute)
		if !c.isEnded() {
			t.Error("the connection is open")
		}
	})
}

func TestOldConnectionIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		c := connect(t, serving(Config{MaxAge: time.Hour, MaxAgeGrace: 20 * time.Second, Handler: http.HandlerFunc(
			func(http.ResponseWriter, *http.Request) { <-stop })}))
		time.Sleep(50 * time.Minute)
		if c.isEnded() || len(c.farewells()) != 0 {
			t.Fatalf("ended %v, %v", c.isEnded(), c.farewells())
		}
		c.get("/")
		time.Sleep(17 * time.Minute)
		if !c.isEnded() || len(c.farewells()) != 2 {
			t.Errorf("ended %v, %v; want that the request was cut off", c.isEnded(), c.farewells())
		}
		close(stop)
	})
}

// Requests that the client sent before it knew of the end are served, and those that run may end.
func TestShutdownLosesNoRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop, done := make(chan struct{}), make(chan error, 1)
		s := serving(Config{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			<-stop
			grpcHandler(w, r)
		})})
		c, idle := connect(t, s), connect(t, s)
		c.setSilent()
		running := c.unary("/s/m", []byte("a"))
		go func() { done <- s.Shutdown(t.Context()) }()
		late := c.unary("/s/m", []byte("b"))
		c.settle()
		if c.isEnded() || !idle.isEnded() || c.farewells()[0].LastStreamID != frame.MaxID {
			t.Errorf("ended %v, the idle one %v, %v", c.isEnded(), idle.isEnded(), c.farewells())
		}
		time.Sleep(3 * time.Second)
		close(stop)
		c.expectStatus(running, "0")
		c.expectStatus(late, "0")
		if err := <-done; err != nil || !c.isEnded() || c.farewells()[1].LastStreamID != late {
			t.Errorf("got error %v, ended %v, %v", err, c.isEnded(), c.farewells())
		}
	})
}

func TestNextFrameAfterTheEndOfABusyTimeIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(8 << 20)
		c := connect(t, serving(Config{Budget: b}))
		id := c.post("/")
		c.send(id, make([]byte, 60<<10), true)
		if c.settle(); used(b, budget.Requests) == 0 {
			t.Error("the large buffer is not charged")
		}
		time.Sleep(10 * time.Second)
		if n := used(b, budget.Requests); n != 0 {
			t.Errorf("an idle connection is charged %d bytes", n)
		}
		c.expectStatus(c.unary("/s/m", nil), "0")
	})
}

// The server ends a stream before its client has sent all of it: what follows is ignored, except mistakes.
func TestFramesAfterTheEndOfAStream(t *testing.T) {
	for name, test := range map[string]struct {
		send func(c *client, id uint32)
		want http2.ErrCode
	}{
		"data":                      {func(c *client, id uint32) { c.do(c.framer.WriteData(id, true, []byte("late"))) }, http2.ErrCodeNo},
		"trailer":                   {func(c *client, id uint32) { c.header(id, true, c.encode("a", "b")) }, http2.ErrCodeNo},
		"window":                    {func(c *client, id uint32) { c.write(frame.AppendWindowUpdate(nil, id, 1)) }, http2.ErrCodeNo},
		"window of nothing":         {func(c *client, id uint32) { c.write(frame.AppendWindowUpdate(nil, id, 0)) }, http2.ErrCodeProtocol},
		"trailer that does not end": {func(c *client, id uint32) { c.header(id, false, c.encode("a", "b")) }, http2.ErrCodeProtocol},
		"data after the client knew": {func(c *client, id uint32) {
			c.do(c.framer.WriteRSTStream(id, http2.ErrCodeCancel))
			c.do(c.framer.WriteData(id, true, []byte("late")))
		}, http2.ErrCodeStreamClosed},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := connect(t, serving(Config{Handler: http.NotFoundHandler()}))
			id := c.post("/")
			c.expectReset(id, http2.ErrCodeNo)
			test.send(c, id)
			c.expectReset(id, test.want)
			if a := c.response(c.get("/")); !a.ended {
				t.Errorf("%s: the connection does not serve further requests: %+v", name, a)
			}
		})
	}
}
