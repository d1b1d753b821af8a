package watch_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

func TestWatchesAreBounded(t *testing.T) {
	s, _ := localtest.StartWatchable(t, local.Config{MaxWatches: 2})
	first := localtest.OpenWatch(t, "tcp", s.HTTP, "/v1/raw:watch?key=a")
	first.Expect("a=1", "current")
	stream := localtest.OpenGRPCWatch(t, s.GRPC, "", "a")
	stream.Expect("a=1", "current")
	over := localtest.OpenWatch(t, "unix", s.Unix, "/v1/raw:watch?key=a")
	if over.Header.StatusCode != 429 {
		t.Errorf("status %d over the limit, want 429", over.Header.StatusCode)
	}
	if _, err := localtest.OpenGRPCWatch(t, s.GRPC, "", "a").Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("gRPC over the limit: %v", err)
	}
	_ = first.Close()
	localtest.Await(t, "the end of the first watch is counted", func() bool { return s.Stats().Watches.Load() == 1 })
	localtest.OpenWatch(t, "tcp", s.HTTP, "/v1/raw:watch?key=b").Expect("b=1", "current")
	if n := s.Stats().WatchesRefused.Load(); n != 2 {
		t.Errorf("%d counted as refused, want 2", n)
	}
}

func TestWatchWithoutMemoryIsRefusedBeforeItsResponse(t *testing.T) {
	b := budget.New(8 << 20)
	s, _ := localtest.StartWatchable(t, local.Config{Budget: b, ConnShare: 0.2})
	taken := int64(0)
	for b.Take(budget.Watches, 1<<10) {
		taken += 1 << 10
	}
	if over := localtest.OpenWatch(t, "tcp", s.HTTP, "/v1/raw:watch?key=a"); over.Header.StatusCode != 429 {
		t.Errorf("status %d without memory, want 429", over.Header.StatusCode)
	}
	if _, err := localtest.OpenGRPCWatch(t, s.GRPC, "", "a").Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("gRPC without memory: %v, want RESOURCE_EXHAUSTED", err)
	}
	b.Return(budget.Watches, taken)
	localtest.OpenWatch(t, "tcp", s.HTTP, "/v1/raw:watch?key=a").Expect("a=1", "current")
}

func TestSetWatchOverEachProtocol(t *testing.T) {
	s, d := localtest.StartWatchable(t, local.Config{})
	http := localtest.OpenWatch(t, "tcp", s.HTTP, "/v1/raw:watch?prefix=a")
	http.Expect("a=1", "current")
	unix := localtest.OpenWatch(t, "unix", s.Unix, "/v1/raw:watch?all=true")
	unix.Expect("a=1", "b=1", "current")
	grpc := localtest.OpenGRPCSetWatch(t, s.GRPC, "", "a")
	grpc.Expect("a=1", "current")
	for _, c := range []kv.Change{{Key: "a/new", Value: []byte("2")}, {Key: "a", Delete: true}} {
		if _, err := d.Write(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	for _, w := range []localtest.WatchClient{http, unix, grpc} {
		w.Expect("a/new=2", "a-")
	}
	localtest.OpenGRPCSetWatch(t, s.GRPC, grpc.Token, "a").Expect("current")
	localtest.OpenWatch(t, "tcp", s.HTTP, "/v1/raw:watch?prefix=a", "Last-Event-ID: "+http.Events.ID).Expect("current")
	for _, q := range []*ringsidev1.WatchRequest{
		{Dataset: "raw"}, {Dataset: "raw", All: true, Prefix: "a"}, {Dataset: "raw", Keys: []string{"a"}, All: true},
		{Dataset: "raw", Keys: []string{"a"}, Prefix: "a"}, {Dataset: "raw", Prefix: "\x00"},
	} {
		stream, err := localtest.Client(t, s.GRPC).Watch(t.Context(), q)
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: got %v, want INVALID_ARGUMENT", q, err)
		}
	}
}
