package grpcapi_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/origin/origintest"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

func TestWatchOverGRPC(t *testing.T) { localtest.EachGRPC(t, testWatchOverGRPC) }

func testWatchOverGRPC(t *testing.T, grpcGo bool) {
	s, d := localtest.StartWatchable(t, local.Config{GRPCGo: grpcGo})
	w := localtest.OpenGRPCWatch(t, s.GRPC, "", "a", "none")
	w.Expect("a=1", "none-", "current")
	if _, err := d.Write(t.Context(), kv.Change{Key: "a", Value: []byte("2")}); err != nil {
		t.Fatal(err)
	}
	w.Expect("a=2")
	again := localtest.OpenGRPCWatch(t, s.GRPC, w.Token, "none", "a")
	again.Expect("current")
	if again.Token != w.Token {
		t.Errorf("tokens %q and %q", again.Token, w.Token)
	}
	// Both protocols have the same tokens.
	over := localtest.OpenWatch(t, "tcp", s.HTTP, "/v1/raw:watch?key=a&key=none", "Last-Event-ID: "+w.Token)
	over.Expect("current")
	reset := localtest.OpenGRPCWatch(t, s.GRPC, "x", "a")
	reset.Expect("reset", "a=2", "current")
}

func TestGRPCWatchSendsErrors(t *testing.T) {
	real := localtest.NewDataset(t, "raw", origintest.New(nil))
	d := localtest.Scripted{ItsName: "raw", OnWatch: real.Watch, OnGet: func(_ context.Context, key string,
		_ kv.ReadOptions) (kv.Answer, error) {
		if key == "panic" {
			panic("canary")
		}
		return kv.Answer{}, &kv.Error{Kind: kv.KindUnavailable, RetryAfter: time.Second,
			Err: errors.New("the origin refused")}
	}}
	s := localtest.Start(t, local.Config{}, local.Served{Dataset: d})
	m, err := localtest.OpenGRPCWatch(t, s.GRPC, "", "k").Recv()
	e := m.GetState().GetError()
	if err != nil || codes.Code(e.GetCode()) != codes.Unavailable || e.GetReason() != "ORIGIN_UNAVAILABLE" ||
		e.GetRetryAfter().AsDuration() != time.Second {
		t.Errorf("%v, %v", m, err)
	}
	m, err = localtest.OpenGRPCWatch(t, s.GRPC, "", "panic").Recv()
	if e := m.GetState().GetError(); err != nil || e.GetReason() != "INTERNAL" || strings.Contains(e.GetMessage(),
		"canary") {
		t.Errorf("%v, %v", m, err)
	}
	w := localtest.OpenWatch(t, "tcp", s.HTTP, "/v1/raw:watch?key=k")
	w.Expect("k!")
}

func TestInvalidGRPCWatchRequests(t *testing.T) { localtest.EachGRPC(t, testInvalidGRPCWatchRequests) }

func testInvalidGRPCWatchRequests(t *testing.T, grpcGo bool) {
	s, _ := localtest.StartWatchable(t, local.Config{GRPCGo: grpcGo})
	for _, tt := range []struct {
		request       *ringsidev1.WatchRequest
		code          codes.Code
		reason, field string
	}{
		{&ringsidev1.WatchRequest{Dataset: "x", Keys: []string{"a"}}, codes.NotFound, "UNKNOWN_DATASET", ""},
		{&ringsidev1.WatchRequest{Dataset: "raw"}, codes.InvalidArgument, "INVALID_REQUEST", "keys"},
		{&ringsidev1.WatchRequest{Dataset: "raw", Keys: []string{""}}, codes.InvalidArgument, "INVALID_REQUEST", "keys"},
	} {
		stream, err := localtest.Client(t, s.GRPC).Watch(t.Context(), tt.request)
		if err == nil {
			_, err = stream.Recv()
		}
		if reason, field := details(err); status.Code(err) != tt.code || reason != tt.reason || field != tt.field {
			t.Errorf("%v: %v %s %s", tt.request, err, reason, field)
		}
	}
}

func TestGRPCWatchEndsWhenItsClientDisconnects(t *testing.T) {
	localtest.EachGRPC(t, testGRPCWatchEndsWhenItsClientDisconnects)
}

func testGRPCWatchEndsWhenItsClientDisconnects(t *testing.T, grpcGo bool) {
	s, _ := localtest.StartWatchable(t, local.Config{GRPCGo: grpcGo})
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := localtest.Client(t, s.GRPC).Watch(ctx, &ringsidev1.WatchRequest{Dataset: "raw", Keys: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	localtest.Await(t, "the watch ends", func() bool { return s.Stats().Watches.Load() == 0 })
}

// A client that does not accept events must not hold its watch.
func TestGRPCWatchOfSlowClientIsClosed(t *testing.T) {
	localtest.EachGRPC(t, testGRPCWatchOfSlowClientIsClosed)
}

func testGRPCWatchOfSlowClientIsClosed(t *testing.T, grpcGo bool) {
	s, d := localtest.StartWatchable(t, local.Config{GRPCGo: grpcGo, WriteTimeout: 100 * time.Millisecond})
	stream := localtest.OpenGRPCWatch(t, s.GRPC, "", "a")
	large := make([]byte, kv.MaxValueBytes)
	for i := 0; s.Stats().SlowWatchersClosed.Load() < 1; i++ {
		if i == 2000 {
			t.Fatal("the watch is still open")
		}
		large[0] = byte(i)
		if _, err := d.Write(t.Context(), kv.Change{Key: "a", Value: large}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
	var err error
	for err == nil {
		_, err = stream.Recv()
	}
	// It gets the status only if it reads while the server still has the event for it.
	if c := status.Code(err); c != codes.DeadlineExceeded && c != codes.Canceled {
		t.Errorf("got %v, want that the deadline has passed or that the stream was reset", err)
	}
}
