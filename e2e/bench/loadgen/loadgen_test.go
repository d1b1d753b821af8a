package loadgen

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	googlegrpc "google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const size = 1024

var loads = []Load{{Depth: 1, For: time.Millisecond}, {Depth: 16, Count: 5000}, {Depth: 1, Rate: 10_000, For: 20 * time.Millisecond}}

// check sends loads to a server that counts its requests.
func check(t *testing.T, network, address string, open func() Stream, requests *atomic.Int64) {
	t.Helper()
	c, err := Dial(network, address, 4, open)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, load := range loads {
		requests.Store(0)
		result, err := c.Run(load)
		if err != nil {
			t.Fatalf("%+v: %v", load, err)
		}
		if got, want := result.Responses, int(requests.Load()); got != want || got < load.Count {
			t.Errorf("%+v: got %d responses, want %d, at least %d", load, got, want, load.Count)
		}
		if load.Rate > 0 && result.Responses != 200 {
			t.Errorf("%+v: got %d responses, want 200", load, result.Responses)
		}
	}
}

func listenUnix(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func listenTCP(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestHTTPReadsEachPath(t *testing.T) {
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.URL.Path != "/a" && r.URL.Path != "/b" {
			t.Errorf("got a request for %s", r.URL.Path)
		}
		_, _ = w.Write(make([]byte, size))
	}))
	defer server.Close()
	check(t, "tcp", server.Listener.Addr().String(), HTTP([]string{"/a", "/b"}, size), &requests)
}

// Heads of different sizes follow each other, because they have ages. Each arrives in two parts.
func TestHTTPReadsHeadsOfAnySize(t *testing.T) {
	var all []byte
	for _, age := range []int{9, 10, 11, 100, 0, 7} {
		all = fmt.Appendf(all, "HTTP/1.1 200 OK\r\nAge: %d\r\nContent-Length: 4\r\nX: y\r\n\r\nabcd", age)
	}
	for cut := range all {
		stream := HTTP([]string{"/"}, 4)()
		n, first, _, err := stream.Parse(all[:cut], nil)
		if err != nil {
			t.Fatal(err)
		}
		if m, second, _, err := stream.Parse(all[n:], nil); n+m != len(all) || first+second != 6 || err != nil {
			t.Errorf("cut at %d: got %d responses in %d bytes, %v, want 6 in %d", cut, first+second, n+m, err, len(all))
		}
	}
	stream := HTTP([]string{"/"}, 4)()
	if _, n, _, err := stream.Parse(all, nil); n != 6 || err != nil {
		t.Fatalf("got %d responses, %v, want 6", n, err)
	}
	if _, _, _, err := stream.Parse([]byte("HTTP/1.1 200 OK\r\nAge: 7\r\nContent-Length: 5\r\nX: y\r\n\r\nabcde"), nil); err == nil {
		t.Error("a body of another size: got no error")
	}
}

func TestHTTPRejectsOtherResponses(t *testing.T) {
	for name, text := range map[string]string{
		"status": "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nabcd",
		"length": "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
	} {
		if _, _, _, err := HTTP([]string{"/"}, 4)().Parse([]byte(text), nil); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}

func TestResponsesMayArriveInParts(t *testing.T) {
	response := "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabcd"
	stream := HTTP([]string{"/"}, 4)()
	for i := range len(response) {
		n, responses, _, err := stream.Parse([]byte(response+response[:i]), nil)
		if n != len(response) || responses != 1 || err != nil {
			t.Errorf("with %d further bytes: got %d bytes, %d responses, %v; want %d, 1", i, n, responses, err, len(response))
		}
	}
}

// serveLines sends a response for each line.
func serveLines(l net.Listener, response []byte, requests *atomic.Int64) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				requests.Add(1)
				if _, err := conn.Write(response); err != nil {
					return
				}
			}
		}()
	}
}

func TestFixedReadsResponsesOfOneSize(t *testing.T) {
	var requests atomic.Int64
	l := listenUnix(t)
	response := fmt.Sprintf("$%d\r\n%s\r\n", size, strings.Repeat("x", size))
	go serveLines(l, []byte(response), &requests)
	check(t, "unix", l.Addr().String(), Fixed([][]byte{[]byte("GET\n")}, "$1024\r\n", len(response)), &requests)
}

func TestFixedRejectsAnotherPrefix(t *testing.T) {
	if _, _, _, err := Fixed(nil, "$4\r\n", 10)().Parse([]byte("-ERR\r\n"), nil); err == nil {
		t.Error("got no error")
	}
}

// health counts its calls. It fails for a service.
type health struct {
	grpc_health_v1.UnimplementedHealthServer
	requests atomic.Int64
}

func (h *health) Check(_ context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	h.requests.Add(1)
	if r.Service != "" {
		return nil, status.Error(codes.NotFound, "no such service")
	}
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
}

func serveHealth(t *testing.T) (*health, string) {
	t.Helper()
	h, server, l := &health{}, googlegrpc.NewServer(), listenTCP(t)
	grpc_health_v1.RegisterHealthServer(server, h)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return h, l.Addr().String()
}

const checkMethod = "/grpc.health.v1.Health/Check"

func TestGRPCCallsAServer(t *testing.T) {
	h, address := serveHealth(t)
	check(t, "tcp", address, GRPC(checkMethod, [][]byte{nil}, 2), &h.requests)
}

func TestGRPCRejectsFailures(t *testing.T) {
	_, address := serveHealth(t)
	for name, open := range map[string]func() Stream{
		"status": GRPC(checkMethod, [][]byte{[]byte("\x0a\x01x")}, 0),
		"method": GRPC("/grpc.health.v1.Health/None", [][]byte{nil}, 0),
		"size":   GRPC(checkMethod, [][]byte{nil}, 100),
	} {
		c, err := Dial("tcp", address, 1, open)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Run(Load{Depth: 1, Count: 1}); err == nil {
			t.Errorf("%s: got no error", name)
		}
		c.Close()
	}
}

// At a low rate, a server's settings arrive before the first request of a connection.
func TestPrefacePrecedesTheAcknowledgement(t *testing.T) {
	stream := GRPC(checkMethod, [][]byte{nil}, 2)()
	settings := appendFrame(nil, http2.FrameSettings, 0, 0, 0)
	_, _, out, err := stream.Parse(settings, nil)
	if err != nil || !bytes.HasPrefix(out, []byte(http2.ClientPreface)) {
		t.Errorf("got %q and %v, want the preface first", out, err)
	}
	if request := stream.Append(nil, 0); bytes.Contains(request, []byte(http2.ClientPreface)) {
		t.Errorf("got a second preface: %q", request)
	}
}

// A response that is late by d delays all requests that were to be sent meanwhile.
func TestLatencyCountsFromTheIntendedTime(t *testing.T) {
	const d = 40 * time.Millisecond
	l := listenTCP(t)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		for first := true; ; first = false {
			if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
				return
			}
			if first {
				<-time.After(d)
			}
			_, _ = conn.Write([]byte("y"))
		}
	}()
	c, err := Dial("tcp", l.Addr().String(), 1, Fixed([][]byte{[]byte("x")}, "y", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	result, err := c.Run(Load{Depth: 1, Rate: 1000, For: d / 2})
	if err != nil {
		t.Fatal(err)
	}
	if least := result.Quantile(0); result.Responses != 20 || least < d/2 {
		t.Errorf("got %d responses and a least latency of %v, want 20 and %v", result.Responses, least, d/2)
	}
}

func TestServerThatClosesIsReported(t *testing.T) {
	l := listenTCP(t)
	go func() {
		if conn, err := l.Accept(); err == nil {
			conn.Close()
		}
	}()
	c, err := Dial("tcp", l.Addr().String(), 1, Fixed([][]byte{[]byte("x")}, "y", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Run(Load{Depth: 1, Count: 1}); err == nil {
		t.Error("got no error")
	}
}

// The runtime sends signals to threads that run for long, and those of a test end a wait of the kernel early.
func TestSignalsDoNotEndAWait(t *testing.T) {
	p, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread, stop := syscall.Gettid(), make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				_ = syscall.Tgkill(syscall.Getpid(), thread, syscall.SIGURG)
			}
		}
	}()
	const timeout = 30 * time.Millisecond
	began := time.Now()
	if ready, err := p.wait(timeout); len(ready) != 0 || err != nil || time.Since(began) < timeout {
		t.Errorf("got %d events and %v after %v, want none after %v", len(ready), err, time.Since(began), timeout)
	}
}
