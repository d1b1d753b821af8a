package servers

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/listen"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

// operators is a listener for operators with few places.
type operators struct {
	*HTTP
	t      *testing.T
	addr   string
	budget *budget.Budget
	closed chan struct{}
}

const operatorPlaces = 20

// serveOperators serves /large (a response of 300 kB), /wait, which waits, /debug/pprof/wait, and /readyz.
func serveOperators(t *testing.T) *operators {
	b := budget.New(32 << 20) // that of a container of 128 MiB
	o := &operators{t: t, budget: b, closed: make(chan struct{})}
	mux := http.NewServeMux()
	wait := func(http.ResponseWriter, *http.Request) { <-o.closed }
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) {
		for range 300 {
			_, _ = io.WriteString(w, strings.Repeat("x", 999)+"\n")
		}
	})
	mux.HandleFunc("/wait", wait)
	mux.HandleFunc("/debug/pprof/wait", wait)
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	o.HTTP = NewHTTP(&Listeners{budget: b}, "metrics", mux)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.addr = ln.Addr().String()
	bounded := listen.New(ln, listen.Config{MaxConns: operatorPlaces})
	o.bounded.Store(bounded)
	served := make(chan error, 1)
	go func() { served <- o.server.Serve(strictLines{bounded}) }()
	t.Cleanup(func() {
		close(o.closed)
		_ = o.server.Close()
		if err := <-served; err != http.ErrServerClosed {
			t.Error(err)
		}
	})
	return o
}

// send opens a connection and sends a request.
func (o *operators) send(request string) net.Conn {
	o.t.Helper()
	c, err := net.Dial("tcp", o.addr)
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		o.t.Fatal(err)
	}
	if err := c.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil { // it reads nothing, or little
		o.t.Fatal(err)
	}
	_, _ = io.WriteString(c, request) // a refused connection fails later
	return c
}

func request(path string, fields ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n" + strings.Join(append(fields, "\r\n"), "\r\n")
}

// want fails unless a new client gets a status and at least n bytes.
func (o *operators) want(path string, status, n int) {
	o.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	resp, err := client.Get("http://" + o.addr + path)
	if err != nil {
		o.t.Fatalf("%s: %v", path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != status || len(body) < n {
		o.t.Errorf("%s: got %d, %d bytes, %v: %.200s; want %d and %d bytes", path, resp.StatusCode, len(body), err, body, status, n)
	}
}

func TestOperatorsSendNoContent(t *testing.T) {
	o := serveOperators(t)
	for _, c := range []struct {
		request string
		want    string
	}{
		{request("/readyz", "Content-Length: 1000000"), "HTTP/1.1 400 "},
		{strings.Replace(request("/large", "Transfer-Encoding: chunked"), "GET", "POST", 1), "HTTP/1.1 400 "},
		{request("/readyz", "Content-Length: 0"), "HTTP/1.1 200 "},
		{request("/readyz", "X: "+strings.Repeat("x", 30_000)), "HTTP/1.1 431 "},
		{request("/readyz", "Transfer-Encoding: identity"), "HTTP/1.1 501 "},
	} {
		b := make([]byte, len(c.want))
		if _, err := io.ReadFull(o.send(c.request), b); err != nil || string(b) != c.want {
			t.Errorf("%.60q: got %q, %v; want %q", c.request, b, err, c.want)
		}
	}
}

// Behind each request there is another one, which must not get a response. net/http chooses the status.
func TestOperatorsAreReadStrictly(t *testing.T) {
	o := serveOperators(t)
	next := request("/readyz", "Connection: close")
	cases := append(localtest.StrictCases,
		localtest.StrictCase{Name: "a header that is a folded line", Request: "GET /readyz HTTP/1.1\r\n\tX: y\r\nHost: h\r\n\r\n", Status: 400},
		localtest.StrictCase{Name: "a coding in HTTP/1.0 with keep-alive",
			Request: "GET /readyz HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"},
		localtest.StrictCase{Name: "bare LF before the request line", Request: "\n", Status: 400})
	for _, c := range cases {
		for _, whole := range []bool{true, false} {
			conn := o.send("")
			for b := []byte(c.Request + next); len(b) > 0; {
				n := 1
				if whole {
					n = len(b)
				}
				_, _ = conn.Write(b[:n]) // the server may have closed the connection
				b = b[n:]
			}
			got, err := io.ReadAll(conn)
			want := fmt.Sprintf("^HTTP/1.1 (%d|501) ", c.Status)
			if strings.Contains(c.Request, " HTTP/1.0") { // its Transfer-Encoding has no meaning
				want = "^HTTP/1.0 (200|404) "
			}
			if !regexp.MustCompile(want).Match(got) || strings.Count(string(got), "HTTP/1.") != 1 {
				t.Errorf("%s: got %.300q, %v; want one response, %s", c.Name, got, err, want)
			}
		}
	}
}

func TestOneProfileAtATime(t *testing.T) {
	o := serveOperators(t)
	o.send(request("/debug/pprof/wait"))
	for deadline := time.Now().Add(time.Minute); !o.server.Handler.(*guarded).profiling.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the first profile does not begin")
		}
	}
	o.want("/debug/pprof/wait", http.StatusTooManyRequests, 1)
	o.want("/readyz", 200, 3)
}

func TestProbesDoNotWait(t *testing.T) {
	o := serveOperators(t)
	for range operatorPlaces / 2 {
		o.send(request("/wait"))
	}
	turns := o.server.Handler.(*guarded).turns
	for deadline := time.Now().Add(time.Minute); len(turns) < maxRunning; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d requests are running, want %d", len(turns), maxRunning)
		}
	}
	o.want("/readyz", 200, 3)
}

// Each way to hold a place, and more of it than there are places.
func TestProbeIsAnsweredWhileEveryPlaceIsHeld(t *testing.T) {
	for kind, sent := range map[string]string{
		"silent": "", "slow header": "GET /readyz HTTP/1.1\r\nHost: ", "idle": request("/readyz"),
		"slow reader": strings.Repeat(request("/large"), 30),
	} {
		o := serveOperators(t)
		for range 3 * operatorPlaces {
			o.send(sent)
		}
		o.want("/readyz", 200, 3)
		o.want("/large", 200, 300_000)
		if n := o.bounded.Load().Stats().Open.Load(); n > operatorPlaces {
			t.Errorf("%s: %d connections are open, want at most %d", kind, n, operatorPlaces)
		}
	}
}

func TestSlowReadersOfMetricsAreReplaced(t *testing.T) {
	o := serveOperators(t)
	for range operatorPlaces - 2 {
		o.send(strings.Repeat(request("/large"), 30)) // more than the buffers of the kernel hold
	}
	for deadline := time.Now().Add(time.Minute); o.budget.Stats()[budget.Responses].Refused == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the slow readers do not use up the memory for responses")
		}
	}
	for range 5 {
		o.want("/large", 200, 300_000)
		for _, u := range o.budget.Stats() {
			if u.Used > u.Limit {
				t.Errorf("%d bytes are taken for %v, want at most %d", u.Used, u.Use, u.Limit)
			}
		}
	}
	if n := o.bounded.Load().Stats().Evicted.Load(); n == 0 {
		t.Error("no slow reader was disconnected, although their responses do not fit into the budget")
	}
}
