package grpcapi_test

import (
	"bytes"
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

// onWire counts connections and what arrives on them.
type onWire struct {
	conns, compressed atomic.Int64 // compressed: responses
	received          atomic.Int64 // bytes of responses as they arrived
}

func (*onWire) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*onWire) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (w *onWire) HandleConn(_ context.Context, s stats.ConnStats) {
	if _, ok := s.(*stats.ConnBegin); ok {
		w.conns.Add(1)
	}
}

func (w *onWire) HandleRPC(_ context.Context, s stats.RPCStats) {
	switch s := s.(type) {
	case *stats.InHeader:
		if s.Compression == gzip.Name {
			w.compressed.Add(1)
		}
	case *stats.InPayload:
		w.received.Add(int64(s.WireLength))
	}
}

func connectCounted(t *testing.T, address string, w *onWire, o ...grpc.CallOption) ringsidev1.CacheClient {
	t.Helper()
	c, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStatsHandler(w),
		grpc.WithDefaultCallOptions(o...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return ringsidev1.NewCacheClient(c)
}

func TestGzipOfAClientIsAnsweredWithGzip(t *testing.T) {
	localtest.EachGRPC(t, testGzipOfAClientIsAnsweredWithGzip)
}

func testGzipOfAClientIsAnsweredWithGzip(t *testing.T, grpcGo bool) {
	s, raw := localtest.StartWatchable(t, local.Config{GRPCGo: grpcGo})
	w := &onWire{}
	stub := connectCounted(t, s.GRPC, w, grpc.UseCompressor(gzip.Name))
	value := bytes.Repeat([]byte("v"), kv.MaxValueBytes)
	if _, err := stub.Put(t.Context(), &ringsidev1.PutRequest{Dataset: raw.Name(), Key: "a", Value: value}); err != nil {
		t.Fatal(err)
	}
	got, err := stub.Get(t.Context(), &ringsidev1.GetRequest{Dataset: raw.Name(), Key: "a"})
	if err != nil || !bytes.Equal(got.GetValue(), value) {
		t.Fatalf("got %d bytes, %v; want the value that was written", len(got.GetValue()), err)
	}
	if n, size := w.compressed.Load(), w.received.Load(); n != 2 || size > kv.MaxValueBytes/10 {
		t.Errorf("%d compressed responses, %d bytes in all; want 2 of few bytes", n, size)
	}
	plain := &onWire{}
	got, err = connectCounted(t, s.GRPC, plain).Get(t.Context(), &ringsidev1.GetRequest{Dataset: raw.Name(), Key: "a"})
	if err != nil || !bytes.Equal(got.GetValue(), value) || plain.compressed.Load() != 0 {
		t.Errorf("without compression: %d bytes, %v, %d compressed responses", len(got.GetValue()), err, plain.compressed.Load())
	}
}

// 8 MiB of zeros are 8 KiB with gzip.
func TestGzipBombIsRejectedAtTheLimitOfAMessage(t *testing.T) {
	s := localtest.StartWritable(t, local.Config{ReadTimeout: time.Hour}) // the client compresses for seconds
	stub := connectCounted(t, s.GRPC, &onWire{}, grpc.UseCompressor(gzip.Name), grpc.MaxCallSendMsgSize(1<<30))
	_, err := stub.Put(t.Context(), &ringsidev1.PutRequest{Dataset: "notes", Key: "a", Value: make([]byte, 8<<20)})
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "after decompression") {
		t.Errorf("got %v; want that the message is too large after decompression", err)
	}
}

func TestLargeHeaderFailsOnlyItsCall(t *testing.T) {
	_, routed := localtest.StartRouted(t, local.Config{}, nil)
	for name, address := range map[string]string{"grpc": localtest.Start(t, local.Config{}).GRPC, "routed": routed} {
		t.Run(name, func(t *testing.T) {
			w := &onWire{}
			stub := connectCounted(t, address, w)
			q := &ringsidev1.GetRequest{Dataset: "cnf-metrics", Key: "a"}
			for range 3 {
				if _, err := stub.Get(t.Context(), q); err != nil {
					t.Fatal(err)
				}
				large := metadata.AppendToOutgoingContext(t.Context(), "x-large", strings.Repeat("x", 60_000))
				_, err := stub.Get(large, q)
				if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "the header of the call") {
					t.Errorf("a header of 60 kB: got %v; want that the header is too large", err)
				}
			}
			if n := w.conns.Load(); n != 1 {
				t.Errorf("%d connections; want that one stays open", n)
			}
		})
	}
}
