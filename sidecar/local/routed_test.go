package local

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/cache"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
)

// startRouted serves clients that route by the ring as well, and returns their address.
func startRouted(t testing.TB, config Config, withTLS *tls.Config) (*started, string) {
	s := start(t, config)
	return s, s.listen(t, "tcp", func(ln net.Listener) error { return s.ServeRouted(ln, withTLS) })
}

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

func TestRoutedListenerSpeaksHTTPAndGRPC(t *testing.T) {
	authority := httptest.NewUnstartedServer(nil) // it has a certificate for 127.0.0.1
	authority.StartTLS()
	defer authority.Close()
	for name, withTLS := range map[string]*tls.Config{
		"plain": nil, "tls": {Certificates: authority.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, address := startRouted(t, Config{}, withTLS)
			scheme, trust := "http://", (*tls.Config)(nil)
			if withTLS != nil {
				scheme, trust = "https://", &tls.Config{RootCAs: authority.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
			}
			for _, major := range []int{1, 2} {
				client := overHTTP(t, major, trust)
				// The host is a pod's address or a service's name: it is not checked here.
				for path, want := range map[string]int{
					"/v1/cnf-metrics/a": 200, "/v1/blobs/x%2Fy": 200, "/v1/blobs/x//../y": 200, "/v1/blobs/none": 404,
					"/openapi.json": 200, "/v1/nope/a": 404,
				} {
					resp, body := fetch(t, client, scheme+address+path)
					if resp.StatusCode != want || resp.ProtoMajor != major {
						t.Errorf("HTTP/%d %s: %s %d %s", major, path, resp.Proto, resp.StatusCode, body)
					}
				}
				resp, err := client.Post(scheme+address+"/v1/blobs:batchGet", typeJSON, strings.NewReader(`{"keys":["x/y"]}`))
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

func TestRoutedListenerAnswersGRPC(t *testing.T) {
	s, address := startRouted(t, Config{RequestTimeout: time.Minute}, nil)
	stub := client(t, address)
	got, err := stub.Get(t.Context(), &ringsidev1.GetRequest{Dataset: "blobs", Key: "x/y"})
	if err != nil || string(got.GetValue()) != "slash" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := stub.Get(t.Context(), &ringsidev1.GetRequest{Dataset: "blobs", Key: "none"}); status.Code(err) != codes.NotFound {
		t.Errorf("an absent key: %v", err)
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

// On one connection of a proxy there are both. grpc's own transport would refuse the one, fasthttp the other.
func TestHTTPAndGRPCShareARoutedConnection(t *testing.T) {
	s, address := startRouted(t, Config{}, nil)
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

func TestRoutedRequestsHaveBounds(t *testing.T) {
	s, address := startRouted(t, Config{MaxBodyBytes: 64, MaxRoutedConns: 3, ReadTimeout: 50 * time.Millisecond}, nil)
	for _, major := range []int{1, 2} {
		resp, err := overHTTP(t, major, nil).Post("http://"+address+"/v1/blobs:batchGet", typeJSON,
			strings.NewReader(`{"keys":["`+strings.Repeat("k", 64)+`"]}`))
		if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("HTTP/%d: a large body: %v, %v", major, resp, err)
		}
		_ = resp.Body.Close()
	}
	slow := dial(t, "tcp", address)
	slow.send("POST /v1/blobs:batchGet HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{")
	if resp, body := slow.answer("POST"); resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("half a body: %d %s", resp.StatusCode, body)
	}
	if n := s.Stats().Routed.BodyRefused.Load(); n != 2 {
		t.Errorf("%d bodies refused", n)
	}
	dial(t, "tcp", address)
	for range 4 {
		dial(t, "tcp", address)
	}
	dial(t, "tcp", address).closed()
	if s.Stats().Routed.Conns.Refused.Load() == 0 {
		t.Error("no connection was refused")
	}
}

// A request that has arrived may wait for longer than it may take to arrive.
func TestRoutedRequestsAreNotCutOffByTheTimeForTheirArrival(t *testing.T) {
	_, address := startRouted(t, Config{ReadTimeout: 50 * time.Millisecond, RequestTimeout: 400 * time.Millisecond}, nil)
	for _, request := range []string{
		get("/v1/failing/wait"), post("/v1/failing:batchGet", `{"keys":["wait"]}`),
		strings.Replace(post("/v1/failing:batchGet", "", "Transfer-Encoding: chunked"), "Content-Length: 0\r\n\r\n",
			"\r\n11\r\n{\"keys\":[\"wait\"]}\r\n0\r\n\r\n", 1),
	} {
		c := dial(t, "tcp", address)
		c.send(request)
		if _, body := c.answer("POST"); !strings.Contains(body, apierror.BaseURI+"deadline") {
			t.Errorf("%s", body)
		}
		c.send(get("/"))
		if resp, _ := c.answer("GET"); resp.StatusCode != 200 {
			t.Errorf("the connection does not go on: %d", resp.StatusCode)
		}
	}
}

// net/http reads these calls, and grpc's GracefulStop panics when it meets one of them.
func TestShutdownEndsRoutedCallsUnderWay(t *testing.T) {
	asked := make(chan struct{})
	hanging := scripted{name: "hanging", get: func(ctx context.Context, _ string, _ cache.ReadOptions) (cache.Answer, error) {
		close(asked)
		<-ctx.Done()
		return cache.Answer{}, ctx.Err()
	}}
	s := start(t, Config{RequestTimeout: time.Minute}, Served{Dataset: hanging})
	address := s.listen(t, "tcp", func(ln net.Listener) error { return s.ServeRouted(ln, nil) })
	stub := client(t, address)
	watch, err := healthpb.NewHealthClient(connect(t, address)).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := stub.Get(context.Background(), &ringsidev1.GetRequest{Dataset: "hanging", Key: "k"})
		failed <- err
	}()
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	if err := <-failed; err == nil {
		t.Error("a call that waits for ever was answered")
	}
}

func BenchmarkRouted(b *testing.B) {
	_, address := startRouted(b, Config{}, nil)
	b.Run("grpc", func(b *testing.B) {
		stub := client(b, address)
		benchGet(b, stub)
	})
	b.Run("grpc own transport", func(b *testing.B) {
		s := start(b, Config{})
		benchGet(b, client(b, s.grpc))
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
