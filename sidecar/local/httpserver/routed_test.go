package httpserver_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

// overHTTP is a client of one version of the protocol.
func overHTTP(t testing.TB, major int, withTLS *tls.Config) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(major == 1)
	protocols.SetHTTP2(major == 2)
	protocols.SetUnencryptedHTTP2(major == 2 && withTLS == nil)
	transport := &http.Transport{Protocols: protocols, TLSClientConfig: withTLS}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

func TestRoutedListenerServesHTTP(t *testing.T) {
	authority := httptest.NewUnstartedServer(nil) // it has a certificate for 127.0.0.1
	authority.StartTLS()
	defer authority.Close()
	for name, withTLS := range map[string]*tls.Config{
		"plain": nil, "tls": {Certificates: authority.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, address := localtest.StartRouted(t, local.Config{}, withTLS)
			scheme, trust := "http://", (*tls.Config)(nil)
			if withTLS != nil {
				scheme, trust = "https://", &tls.Config{RootCAs: authority.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
			}
			for _, major := range []int{1, 2} {
				client := overHTTP(t, major, trust)
				// The host is the address of a pod or the name of a service: this listener accepts any.
				for path, want := range map[string]int{
					"/v1/cnf-metrics/a": 200, "/v1/blobs/x%2Fy": 200, "/v1/blobs/x//../y": 200, "/v1/blobs/none": 404,
					"/openapi.json": 200, "/v1/nope/a": 404,
				} {
					resp, body := fetch(t, client, scheme+address+path)
					if resp.StatusCode != want || resp.ProtoMajor != major {
						t.Errorf("HTTP/%d %s: %s %d %s", major, path, resp.Proto, resp.StatusCode, body)
					}
				}
				resp, err := client.Post(scheme+address+"/v1/blobs:batchGet", "application/json", strings.NewReader(`{"keys":["x/y"]}`))
				if err != nil || resp.StatusCode != 200 {
					t.Errorf("HTTP/%d batch: %v, %v", major, resp, err)
				}
				_ = resp.Body.Close()
			}
			if count, _, _ := s.Stats().Routed.Duration.Snapshot(); count != 14 {
				t.Errorf("%d requests counted", count)
			}
		})
	}
}

func fetch(t testing.TB, client *http.Client, url string) (*http.Response, string) {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestRoutedListenerServesGRPC(t *testing.T) {
	s, address := localtest.StartRouted(t, local.Config{RequestTimeout: time.Minute}, nil)
	stub := localtest.Client(t, address)
	got, err := stub.Get(t.Context(), &ringsidev1.GetRequest{Dataset: "blobs", Key: "x/y"})
	if err != nil || string(got.GetValue()) != "slash" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := stub.Get(t.Context(), &ringsidev1.GetRequest{Dataset: "blobs", Key: "none"}); status.Code(err) != codes.NotFound {
		t.Errorf("a key that does not exist: %v", err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = stub.Get(short, &ringsidev1.GetRequest{Dataset: "failing", Key: "wait"})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a call whose deadline passes: %v", err)
	}
	if n := s.Stats().Routed.Conns.Open.Load(); n != 1 {
		t.Errorf("%d connections counted", n)
	}
}

// A proxy sends both on one connection. The transport of grpc would reject HTTP.
func TestHTTPAndGRPCShareARoutedConnection(t *testing.T) {
	s, address := localtest.StartRouted(t, local.Config{}, nil)
	client := overHTTP(t, 2, nil)
	fetch(t, client, "http://"+address+"/v1/blobs/x%2Fy")
	request, err := http.NewRequest("POST", "http://"+address+"/ringside.v1.Cache/Get", strings.NewReader("\x00\x00\x00\x00\x00"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("Te", "trailers")
	resp, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("Grpc-Status")+resp.Trailer.Get("Grpc-Status") != "5" {
		t.Errorf("%v %v %v", resp.Status, resp.Header, resp.Trailer)
	}
	if n := s.Stats().Routed.Conns.Open.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// gRPC needs HTTP/2; over HTTP/1.1 its paths do not exist. A client that has chosen no protocol gets HTTP/1.1.
func TestCallOverHTTP1IsRejected(t *testing.T) {
	s, address := localtest.StartRouted(t, local.Config{}, nil)
	secure := secureRouted(t, s)
	for name, c := range map[string]*localtest.Conn{
		"plain": localtest.Dial(t, "tcp", address), "http/1.1": secure("http/1.1"), "no protocol": secure(),
	} {
		c.Send(localtest.Post("/ringside.v1.Cache/Get", "\x00\x00\x00\x00\x00", "Content-Type: application/grpc", "Te: trailers"))
		resp, body := c.Response("POST")
		if resp.StatusCode != 404 || resp.ProtoMajor != 1 {
			t.Errorf("%s: got %s %d %s, want 404", name, resp.Proto, resp.StatusCode, body)
		}
		localtest.CheckProblem(t, resp, body, "no-such-route")
		c.Send(localtest.Get("/v1/blobs/x/y"))
		if resp, body := c.Response("GET"); resp.StatusCode != 200 || body != "slash" {
			t.Errorf("%s: got %d %q after the call, want 200", name, resp.StatusCode, body)
		}
	}
}

func TestRoutedRequestsHaveBounds(t *testing.T) {
	s, address := localtest.StartRouted(t, local.Config{MaxBodyBytes: 64, MaxRoutedConns: 3, ReadTimeout: 50 * time.Millisecond}, nil)
	for _, major := range []int{1, 2} {
		resp, err := overHTTP(t, major, nil).Post("http://"+address+"/v1/blobs:batchGet", "application/json",
			strings.NewReader(`{"keys":["`+strings.Repeat("k", 64)+`"]}`))
		if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("HTTP/%d: a large body: %v, %v", major, resp, err)
		}
		_ = resp.Body.Close()
	}
	slow := localtest.Dial(t, "tcp", address)
	slow.Send("POST /v1/blobs:batchGet HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{")
	if resp, body := slow.Response("POST"); resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("half a body: %d %s", resp.StatusCode, body)
	}
	if n := s.Stats().Routed.BodyRefused.Load(); n != 2 {
		t.Errorf("%d bodies refused", n)
	}
	conns := &s.Stats().Routed.Conns
	for range 8 { // silent ones make room for each other
		localtest.Dial(t, "tcp", address)
		if n := conns.Open.Load(); n > 3 {
			t.Errorf("%d connections are open, want at most 3", n)
		}
	}
	localtest.Await(t, "connections over the limit were evicted or refused", func() bool {
		return conns.Refused.Load()+conns.Evicted.Load() >= 5
	})
}

func TestLargeHeaderFailsOnlyItsRoutedRequest(t *testing.T) {
	s, address := localtest.StartRouted(t, local.Config{}, nil)
	client, dialed := overHTTP(t, 2, nil), 0
	client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialed++
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	for range 3 {
		if resp, _ := fetch(t, client, "http://"+address+"/v1/cnf-metrics/a"); resp.StatusCode != http.StatusOK {
			t.Errorf("got %d; want 200", resp.StatusCode)
		}
		r, err := http.NewRequest(http.MethodGet, "http://"+address+"/v1/cnf-metrics/a", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Large", strings.Repeat("x", 60_000))
		resp, err := client.Do(r)
		if err != nil {
			t.Fatalf("a header of 60 kB: %v; want a response", err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		localtest.CheckProblem(t, resp, string(body), "header-too-large")
	}
	if dialed != 1 {
		t.Errorf("%d connections; want that one stays open", dialed)
	}
	if n := s.Stats().Routed.HeaderRefused.Load(); n != 3 {
		t.Errorf("%d headers refused; want 3", n)
	}
}

// The read timeout does not apply to a request that has arrived.
func TestRoutedRequestMayTakeLongerThanReadTimeout(t *testing.T) {
	_, address := localtest.StartRouted(t, local.Config{ReadTimeout: 50 * time.Millisecond, RequestTimeout: 400 * time.Millisecond}, nil)
	for _, request := range []string{
		localtest.Get("/v1/failing/wait"), localtest.Post("/v1/failing:batchGet", `{"keys":["wait"]}`),
		strings.Replace(localtest.Post("/v1/failing:batchGet", "", "Transfer-Encoding: chunked"), "Content-Length: 0\r\n\r\n",
			"\r\n11\r\n{\"keys\":[\"wait\"]}\r\n0\r\n\r\n", 1),
	} {
		c := localtest.Dial(t, "tcp", address)
		c.Send(request)
		if _, body := c.Response("POST"); !strings.Contains(body, apierror.BaseURI+"deadline") {
			t.Errorf("%s", body)
		}
		c.Send(localtest.Get("/"))
		if resp, _ := c.Response("GET"); resp.StatusCode != 200 {
			t.Errorf("the connection is not reusable: %d", resp.StatusCode)
		}
	}
}

// Clients that route by the ring read and write through this listener. A watch has keys of many owners.
func TestRoutedListenerSupportsWritesButNotWatches(t *testing.T) {
	s, _ := localtest.StartWatchable(t, local.Config{})
	address := s.Listen(t, "tcp", func(ln net.Listener) error { return s.ServeRouted(ln, nil) })
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
	if _, err := localtest.Client(t, address).Delete(t.Context(), &ringsidev1.DeleteRequest{Dataset: "raw", Key: "r"}); err != nil {
		t.Error(err)
	}
	if _, err := localtest.OpenGRPCWatch(t, address, "", "a").Recv(); status.Code(err) != codes.Unimplemented {
		t.Error(err)
	}
}

func BenchmarkRouted(b *testing.B) {
	_, address := localtest.StartRouted(b, local.Config{}, nil)
	b.Run("grpc", func(b *testing.B) {
		stub := localtest.Client(b, address)
		benchGet(b, stub)
	})
	b.Run("grpc own transport", func(b *testing.B) {
		s := localtest.Start(b, local.Config{})
		benchGet(b, localtest.Client(b, s.GRPC))
	})
	for _, major := range []int{1, 2} {
		b.Run("http/"+string(rune('0'+major)), func(b *testing.B) {
			client := overHTTP(b, major, nil)
			b.ReportAllocs()
			for b.Loop() {
				fetch(b, client, "http://"+address+"/v1/blobs/x%2Fy")
			}
		})
	}
}

func benchGet(b *testing.B, stub ringsidev1.CacheClient) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := stub.Get(b.Context(), &ringsidev1.GetRequest{Dataset: "blobs", Key: "x/y"}); err != nil {
			b.Fatal(err)
		}
	}
}
