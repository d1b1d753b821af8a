package local

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

func TestGRPCGet(t *testing.T) {
	stub := client(t, start(t, Config{}).grpc)
	q := &ringsidev1.GetRequest{Dataset: "cnf-metrics", Key: "a"}
	for _, want := range []ringsidev1.Source{ringsidev1.Source_SOURCE_LOAD, ringsidev1.Source_SOURCE_HIT} {
		got, err := stub.Get(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		m := got.GetMeta()
		if string(got.GetValue()) != `{"cnf_id":"a"}` || m.GetSource() != want || m.GetEtag() == "" || m.GetStale() ||
			m.GetTimeLeft().AsDuration() < 50*time.Minute || m.GetAge().AsDuration() < 0 {
			t.Errorf("%v", got)
		}
	}
	q.NoCache = true
	if got, err := stub.Get(t.Context(), q); err != nil || got.GetMeta().GetSource() != ringsidev1.Source_SOURCE_LOAD {
		t.Errorf("no_cache: %v, %v", got, err)
	}
}

func TestGRPCErrors(t *testing.T) {
	s := start(t, Config{RequestTimeout: 50 * time.Millisecond})
	stub := client(t, s.grpc)
	tests := []struct {
		dataset, key string
		cached       bool
		code         codes.Code
		reason       string
		retry        time.Duration
		field        string
	}{
		{"cnf_metrics", "a", false, codes.NotFound, "UNKNOWN_DATASET", 0, ""},
		{"blobs", "none", false, codes.NotFound, "ABSENT", 0, ""},
		{"blobs", "", false, codes.InvalidArgument, "INVALID_KEY", 0, "key"},
		{"blobs", strings.Repeat("k", 1025), false, codes.InvalidArgument, "INVALID_KEY", 0, "key"},
		{"blobs", "never-read", true, codes.FailedPrecondition, "NOT_CACHED", 0, ""},
		{"failing", "overloaded", false, codes.ResourceExhausted, "OVERLOADED", 1500 * time.Millisecond, ""},
		{"failing", "unavailable", false, codes.Unavailable, "ORIGIN_UNAVAILABLE", time.Second, ""},
		{"failing", "invalid", false, codes.InvalidArgument, "INVALID_KEY", 0, "key"},
		{"failing", "canceled", false, codes.Canceled, "CANCELED", time.Second, ""},
		{"failing", "wait", false, codes.DeadlineExceeded, "DEADLINE", 0, ""},
		{"failing", "internal", false, codes.Internal, "INTERNAL", 0, ""},
		{"failing", "panic", false, codes.Internal, "INTERNAL", 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			_, err := stub.Get(t.Context(), &ringsidev1.GetRequest{Dataset: tt.dataset, Key: tt.key, OnlyIfCached: tt.cached})
			if status.Code(err) != tt.code || strings.Contains(err.Error(), "canary") {
				t.Fatalf("%v, want %v", err, tt.code)
			}
			var info *errdetails.ErrorInfo
			var retry *errdetails.RetryInfo
			var bad *errdetails.BadRequest
			for _, d := range status.Convert(err).Details() {
				switch d := d.(type) {
				case *errdetails.ErrorInfo:
					info = d
				case *errdetails.RetryInfo:
					retry = d
				case *errdetails.BadRequest:
					bad = d
				}
			}
			if info.GetReason() != tt.reason || info.GetDomain() != "ringside.dev" {
				t.Errorf("%v", info)
			}
			if retry.GetRetryDelay().AsDuration() != tt.retry {
				t.Errorf("%v", retry)
			}
			if (tt.field != "") != (bad != nil) || bad != nil && bad.FieldViolations[0].GetField() != tt.field {
				t.Errorf("%v", bad)
			}
			if tt.reason == "UNKNOWN_DATASET" && info.GetMetadata()["near"] != "cnf-metrics" {
				t.Errorf("%v", info)
			}
		})
	}
	if n := s.Stats().Defects.Load(); n != 2 {
		t.Errorf("%d defects", n)
	}
	if count, _, _ := s.Stats().GRPC.Duration.Snapshot(); count != uint64(len(tests)) {
		t.Errorf("%d durations of %d calls", count, len(tests))
	}
}

func TestGRPCBatchGet(t *testing.T) {
	stub := client(t, start(t, Config{}).grpc)
	q := &ringsidev1.BatchGetRequest{Dataset: "blobs", Keys: []string{"x/y", "none", ""}}
	got, err := stub.BatchGet(t.Context(), q)
	if err != nil || len(got.GetResults()) != 3 {
		t.Fatalf("%v, %v", got, err)
	}
	r := got.GetResults()
	if string(r[0].GetFound().GetValue()) != "slash" || r[0].GetKey() != "x/y" {
		t.Errorf("%v", r[0])
	}
	if e := r[1].GetError(); codes.Code(e.GetCode()) != codes.NotFound || e.GetReason() != "ABSENT" {
		t.Errorf("%v", r[1])
	}
	if e := r[2].GetError(); codes.Code(e.GetCode()) != codes.InvalidArgument {
		t.Errorf("%v", r[2])
	}
	for _, n := range []int{0, MaxBatchKeys + 1} {
		q.Keys = make([]string, n)
		_, err = stub.BatchGet(t.Context(), q)
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%d keys: %v", n, err)
		}
	}
	got, err = stub.BatchGet(t.Context(), &ringsidev1.BatchGetRequest{Dataset: "failing", Keys: []string{"overloaded"}})
	if err != nil || got.GetResults()[0].GetError().GetRetryAfter().AsDuration() != 1500*time.Millisecond {
		t.Errorf("%v, %v", got, err)
	}
}

func TestGRPCReplySaysStaleAndOwner(t *testing.T) {
	got := reply(&cache.Answer{Stale: true, Fresh: time.Minute, Age: 1500 * time.Millisecond,
		Source: cache.SourcePeerHit, Owner: "n2", Version: 3})
	m := got.GetMeta()
	if !m.GetStale() || m.GetTimeLeft().AsDuration() != 0 || m.GetAge().AsDuration() != 1500*time.Millisecond ||
		m.GetOwner() != "n2" || m.GetVersion() != 3 || m.GetSource() != ringsidev1.Source_SOURCE_PEER_HIT {
		t.Errorf("%v", m)
	}
}

func connect(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// A health watch never ends by itself; with it, GracefulStop alone would wait for ever.
func TestShutdownEndsHealthWatches(t *testing.T) {
	s := start(t, Config{})
	watch, err := healthpb.NewHealthClient(connect(t, s.grpc)).Watch(t.Context(),
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
		t.Error("the watch ended as if all was said")
	}
}

func TestReflectionNamesTheServices(t *testing.T) {
	conn := connect(t, start(t, Config{}).grpc)
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

func TestGRPCRefusesWhatIsTooLarge(t *testing.T) {
	stub := client(t, start(t, Config{MaxBodyBytes: 100}).grpc)
	_, err := stub.Get(t.Context(), &ringsidev1.GetRequest{Dataset: strings.Repeat("x", 200+envelopeBytes)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("%v", err)
	}
}

func TestGRPCConnectionsOverTheBoundAreClosed(t *testing.T) {
	s := start(t, Config{MaxConns: 1})
	q := &ringsidev1.GetRequest{Dataset: "blobs", Key: "x/y"}
	first := client(t, s.grpc)
	if _, err := first.Get(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	dial(t, "tcp", s.grpc).closed()
	if _, err := first.Get(t.Context(), q); err != nil {
		t.Errorf("the connection within the bound: %v", err)
	}
	if n := s.Stats().GRPC.Conns.Refused.Load(); n != 1 {
		t.Errorf("%d refused", n)
	}
}

// Shutdown lets a running request end, refuses new ones, and cuts off what does not end in time.
func TestShutdown(t *testing.T) {
	entered, leave := make(chan string, 3), make(chan struct{})
	d := scripted{name: "d", get: func(ctx context.Context, key string, _ cache.ReadOptions) (cache.Answer, error) {
		entered <- key
		if key == "stuck" {
			<-ctx.Done()
			return cache.Answer{}, ctx.Err()
		}
		<-leave
		return cache.Answer{Value: []byte("done"), Source: cache.SourceLoad}, nil
	}}
	s := start(t, Config{RequestTimeout: time.Hour}, Served{Dataset: d})
	c := dial(t, "tcp", s.http)
	c.send(get("/v1/d/slow"))
	stub, replied := client(t, s.grpc), make(chan error, 1)
	go func() {
		_, err := stub.Get(context.Background(), &ringsidev1.GetRequest{Dataset: "d", Key: "slow"})
		replied <- err
	}()
	stuck := dial(t, "unix", s.unix)
	stuck.send(get("/v1/d/stuck"))
	for range 3 {
		<-entered
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(ctx) }()
	<-s.draining.Done()
	close(leave)
	if resp, body := c.answer("GET"); body != "done" || !resp.Close {
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
		t.Errorf("the stuck request: %q", resp)
	}
	if c, err := net.Dial("tcp", s.http); err == nil {
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
