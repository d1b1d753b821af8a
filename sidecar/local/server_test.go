package local_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

// A health watch never ends by itself; GracefulStop alone would wait for it forever.
func TestShutdownEndsHealthWatches(t *testing.T) {
	localtest.EachGRPC(t, testShutdownEndsHealthWatches)
}

func testShutdownEndsHealthWatches(t *testing.T, grpcGo bool) {
	s := localtest.Start(t, local.Config{GRPCGo: grpcGo})
	watch, err := healthpb.NewHealthClient(localtest.Connect(t, s.GRPC)).Watch(t.Context(),
		&healthpb.HealthCheckRequest{Service: "ringside.v1.Cache"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false, true} {
		s.SetServing(want)
		got, err := watch.Recv()
		if err != nil || (got.GetStatus() == healthpb.HealthCheckResponse_SERVING) != want {
			t.Fatalf("%v, %v; want serving %v", got, err, want)
		}
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	for err == nil {
		_, err = watch.Recv()
	}
	if errors.Is(err, io.EOF) {
		t.Error("the watch ended without an error")
	}
}

func TestReflectionNamesTheServices(t *testing.T) {
	localtest.EachGRPC(t, testReflectionNamesTheServices)
}

func testReflectionNamesTheServices(t *testing.T, grpcGo bool) {
	conn := localtest.Connect(t, localtest.Start(t, local.Config{GRPCGo: grpcGo}).GRPC)
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	got, err := stream.Recv()
	if err != nil || !strings.Contains(got.String(), "ringside.v1.Cache") {
		t.Errorf("%v, %v", got, err)
	}
}

func TestGRPCConnectionsOverTheLimitAreClosed(t *testing.T) {
	localtest.EachGRPC(t, testGRPCConnectionsOverTheLimitAreClosed)
}

func testGRPCConnectionsOverTheLimitAreClosed(t *testing.T, grpcGo bool) {
	s := localtest.Start(t, local.Config{GRPCGo: grpcGo, MaxConns: 1})
	q := &ringsidev1.GetRequest{Dataset: "blobs", Key: "x/y"}
	first := localtest.Client(t, s.GRPC)
	if _, err := first.Get(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	localtest.Dial(t, "tcp", s.GRPC).ExpectClosed()
	if _, err := first.Get(t.Context(), q); err != nil {
		t.Errorf("the connection within the limit: %v", err)
	}
	if n := s.Stats().GRPC.Conns.Refused.Load(); n != 1 {
		t.Errorf("%d refused", n)
	}
}

// Connections of gRPC clients that have no call make room for a new one.
func TestNewGRPCClientIsServedWhileIdleConnectionsHoldEveryPlace(t *testing.T) {
	const places = 5
	s := localtest.Start(t, local.Config{MaxConns: places})
	for network, address := range map[string]string{"tcp": s.GRPC, "unix": s.Unix} {
		const empty = "\x00\x00\x00\x04\x00\x00\x00\x00\x00" // SETTINGS
		localtest.NewAttack(t, network, address, 3*places, func(int) []byte { return []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + empty) }).Sent()
		target := map[string]string{"tcp": address, "unix": "unix:" + address}[network]
		if _, err := localtest.Client(t, target).Get(t.Context(), &ringsidev1.GetRequest{Dataset: "blobs", Key: "x/y"}); err != nil {
			t.Errorf("%s: %v", network, err)
		}
	}
	if n := s.Stats().GRPC.Conns.Open.Load(); n > places {
		t.Errorf("%d connections are open, want at most %d", n, places)
	}
}

// Shutdown lets running requests end, refuses new ones, and closes the connections of those that do not end in time.
func TestShutdown(t *testing.T) { localtest.EachGRPC(t, testShutdown) }

func testShutdown(t *testing.T, grpcGo bool) {
	entered, leave := make(chan string, 3), make(chan struct{})
	d := localtest.Scripted{ItsName: "d", OnGet: func(ctx context.Context, key string, _ kv.ReadOptions) (kv.Answer, error) {
		entered <- key
		if key == "stuck" {
			<-ctx.Done()
			return kv.Answer{}, ctx.Err()
		}
		<-leave
		return kv.Answer{Value: []byte("done"), Source: kv.SourceLoad}, nil
	}}
	s := localtest.Start(t, local.Config{GRPCGo: grpcGo, RequestTimeout: time.Hour}, local.Served{Dataset: d})
	c := localtest.Dial(t, "tcp", s.HTTP)
	c.Send(localtest.Get("/v1/d/slow"))
	stub, replied := localtest.Client(t, s.GRPC), make(chan error, 1)
	go func() {
		_, err := stub.Get(context.Background(), &ringsidev1.GetRequest{Dataset: "d", Key: "slow"})
		replied <- err
	}()
	stuck := localtest.Dial(t, "unix", s.Unix)
	stuck.Send(localtest.Get("/v1/d/stuck"))
	for range 3 {
		<-entered
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(ctx) }()
	localtest.Await(t, "the listener is closed", func() bool {
		late, err := net.Dial("tcp", s.HTTP)
		if err == nil {
			_ = late.Close()
		}
		return err != nil
	})
	close(leave)
	if resp, body := c.Response("GET"); body != "done" || !resp.Close {
		t.Errorf("running HTTP request: %q, close %v", body, resp.Close)
	}
	if err := <-replied; err != nil {
		t.Errorf("running gRPC call: %v", err)
	}
	cancel()
	if err := <-stopped; !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	if resp, err := io.ReadAll(stuck); err == nil && strings.Contains(string(resp), " 200 ") {
		t.Errorf("the request that was cut off: %q", resp)
	}
	if c, err := net.Dial("tcp", s.HTTP); err == nil {
		_ = c.Close()
		t.Error("the listener still accepts")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ServeHTTP(ln); err != nil {
		t.Errorf("Serve after Shutdown: %v", err)
	}
}

func TestConnectionsOverTheLimitAreRefused(t *testing.T) {
	s := localtest.Start(t, local.Config{MaxConns: 2})
	first, second := localtest.Dial(t, "tcp", s.HTTP), localtest.Dial(t, "tcp", s.HTTP)
	for _, c := range []*localtest.Conn{first, second} {
		c.Send(localtest.Get("/"))
		c.Response("GET")
	}
	third := localtest.Dial(t, "tcp", s.HTTP)
	resp, body := third.Response("GET")
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	localtest.CheckProblem(t, resp, body, "too-many-connections")
	third.ExpectClosed()
	first.Send(localtest.Get("/"))
	if resp, _ := first.Response("GET"); resp.StatusCode != 200 {
		t.Errorf("a connection within the limit: %d", resp.StatusCode)
	}
	stats := &s.Stats().HTTP
	if stats.Conns.Open.Load() != 2 || stats.Conns.Refused.Load() != 1 {
		t.Errorf("%d open, %d refused", stats.Conns.Open.Load(), stats.Conns.Refused.Load())
	}
	first.Send(localtest.Get("/", "Connection: close"))
	first.Response("GET")
	first.ExpectClosed()
	fourth := localtest.Dial(t, "tcp", s.HTTP)
	fourth.Send(localtest.Get("/"))
	if resp, _ := fourth.Response("GET"); resp.StatusCode != 200 {
		t.Errorf("after the end of another connection: %d", resp.StatusCode)
	}
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	s := localtest.Start(t, local.Config{ReadTimeout: 50 * time.Millisecond, IdleTimeout: 50 * time.Millisecond})
	fresh, idle, unix := localtest.Dial(t, "tcp", s.HTTP), localtest.Dial(t, "tcp", s.HTTP), localtest.Dial(t, "unix", s.Unix)
	idle.Send(localtest.Get("/"))
	idle.Response("GET")
	idle.ExpectClosed()
	unix.ExpectClosed()
	if resp, _ := fresh.Response("GET"); resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("a connection that sent nothing: %d", resp.StatusCode)
	}
	fresh.ExpectClosed()
}

// The routed listener does not have the mounted service.
func TestHealthKnowsEachServiceOfItsListener(t *testing.T) {
	s, routed := localtest.StartRouted(t, local.Config{CNFMetrics: localtest.Mounted{}}, nil)
	services := []string{"", "ringside.v1.Cache", "groupcachepb.GroupCache", "mounted"}
	for _, serving := range []bool{true, false} {
		s.SetServing(serving)
		for _, address := range []string{s.GRPC, "unix:" + s.Unix, routed} {
			for _, name := range services {
				got, err := healthpb.NewHealthClient(localtest.Connect(t, address)).Check(t.Context(), &healthpb.HealthCheckRequest{Service: name})
				if name == "mounted" && address == routed {
					if status.Code(err) != codes.NotFound {
						t.Errorf("%s: %q: %v, %v", address, name, got, err)
					}
				} else if err != nil || (got.GetStatus() == healthpb.HealthCheckResponse_SERVING) != serving {
					t.Errorf("%s: %q: %v, %v", address, name, got, err)
				}
			}
		}
	}
}

// GracefulStop of grpc panics if a call is running that it does not read itself.
func TestShutdownEndsRunningRoutedCalls(t *testing.T) {
	running := make(chan struct{})
	hanging := localtest.Scripted{ItsName: "hanging", OnGet: func(ctx context.Context, _ string, _ kv.ReadOptions) (kv.Answer, error) {
		close(running)
		<-ctx.Done()
		return kv.Answer{}, ctx.Err()
	}}
	s := localtest.Start(t, local.Config{RequestTimeout: time.Minute}, local.Served{Dataset: hanging})
	address := s.Listen(t, "tcp", func(ln net.Listener) error { return s.ServeRouted(ln, nil) })
	stub := localtest.Client(t, address)
	watch, err := healthpb.NewHealthClient(localtest.Connect(t, address)).Watch(t.Context(), &healthpb.HealthCheckRequest{})
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
	<-running
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	if err := <-failed; err == nil {
		t.Error("a call that waits forever succeeded")
	}
}

// Shutdown ends watches immediately, in a way that tells clients that no event was cut off.
func TestShutdownEndsWatchesCleanly(t *testing.T) {
	localtest.EachGRPC(t, testShutdownEndsWatchesCleanly)
}

func testShutdownEndsWatchesCleanly(t *testing.T, grpcGo bool) {
	s, _ := localtest.StartWatchable(t, local.Config{GRPCGo: grpcGo})
	streams := []*localtest.EventStream{
		localtest.OpenWatch(t, "tcp", s.HTTP, "/v1/raw:watch?key=a"), localtest.OpenWatch(t, "unix", s.Unix, "/v1/raw:watch?key=a")}
	for _, w := range streams {
		w.Expect("a=1", "current")
	}
	stream := localtest.OpenGRPCWatch(t, s.GRPC, "", "a")
	stream.Expect("a=1", "current")
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	for _, w := range streams {
		if e, err := w.Events.Event(); err != io.EOF {
			t.Errorf("%+v, %v", e, err)
		}
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Error(err)
	}
}

// A client that does not read does not delay Shutdown: its connection is closed when the time is over.
func TestShutdownCutsWatchesOfSlowClients(t *testing.T) {
	s, d := localtest.StartWatchable(t, local.Config{WriteTimeout: time.Hour})
	large := bytes.Repeat([]byte("x"), kv.MaxValueBytes)
	if _, err := d.Write(t.Context(), kv.Change{Key: "a", Value: large}); err != nil {
		t.Fatal(err)
	}
	localtest.OpenUnreadWatch(t, s.HTTP, "/v1/raw:watch?key=a")
	localtest.OpenGRPCWatch(t, s.GRPC, "", "a")
	localtest.Await(t, "both watches are sending an event", func() bool { return s.Stats().WatchEvents.Load() >= 2 })
	for i := range 20 { // more than the buffers hold
		large[0] = byte(i)
		if _, err := d.Write(t.Context(), kv.Change{Key: "a", Value: large}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	if n := s.Stats().Watches.Load(); n != 0 {
		t.Errorf("%d watches are left", n)
	}
}
