package h2_test

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/h2"
)

// TestGRPCInterop runs the cases of grpc's interoperability tests (doc/interop-test-descriptions.md of the grpc repository)
// that need neither credentials nor a load balancer. A case that fails ends the test program.
func TestGRPCInterop(t *testing.T) {
	conn := serveInterop(t)
	client := testgrpc.NewTestServiceClient(conn)
	type run = func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption)
	for name, test := range map[string]run{
		"empty_unary": interop.DoEmptyUnaryCall, "large_unary": interop.DoLargeUnaryCall,
		"client_streaming": interop.DoClientStreaming, "server_streaming": interop.DoServerStreaming,
		"ping_pong": interop.DoPingPong, "empty_stream": interop.DoEmptyStream,
		"timeout_on_sleeping_server": interop.DoTimeoutOnSleepingServer,
		"cancel_after_begin":         interop.DoCancelAfterBegin, "cancel_after_first_response": interop.DoCancelAfterFirstResponse,
		"custom_metadata": interop.DoCustomMetadata, "status_code_and_message": interop.DoStatusCodeAndMessage,
		"special_status_message": interop.DoSpecialStatusMessage,
	} {
		t.Run(name, func(t *testing.T) { test(deadline(t), client) })
		t.Run(name+"/gzip", func(t *testing.T) { test(deadline(t), client, grpc.UseCompressor(gzip.Name)) })
	}
	t.Run("unimplemented_service", func(t *testing.T) {
		interop.DoUnimplementedService(deadline(t), testgrpc.NewUnimplementedServiceClient(conn))
	})
	t.Run("unimplemented_method", func(t *testing.T) { interop.DoUnimplementedMethod(deadline(t), conn) })
}

// TestServerStreamWithBackpressure receives more than the windows hold from a server that is faster than its client.
func TestServerStreamWithBackpressure(t *testing.T) {
	client := testgrpc.NewTestServiceClient(serveInterop(t))
	sizes := make([]*testgrpc.ResponseParameters, 64)
	for i := range sizes {
		sizes[i] = &testgrpc.ResponseParameters{Size: int32(100_000 + i)}
	}
	stream, err := client.StreamingOutputCall(deadline(t), &testgrpc.StreamingOutputCallRequest{ResponseParameters: sizes})
	if err != nil {
		t.Fatal(err)
	}
	for i := range sizes {
		if i == 1 {
			if _, err := client.EmptyCall(deadline(t), new(testgrpc.Empty)); err != nil { // another call overtakes the stream
				t.Fatal(err)
			}
		}
		r, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if n := len(r.GetPayload().GetBody()); n != 100_000+i {
			t.Fatalf("message %d has %d bytes; want %d", i, n, 100_000+i)
		}
	}
}

// TestMessageOverTheLimitIsRefused sends a message that the server must not collect.
func TestMessageOverTheLimitIsRefused(t *testing.T) {
	client := testgrpc.NewTestServiceClient(serveInterop(t))
	for _, compressed := range []bool{false, true} {
		var options []grpc.CallOption
		size := 5 << 20
		if compressed {
			options = append(options, grpc.UseCompressor(gzip.Name))
			size = 64 << 20 // 64 KiB when compressed
		}
		_, err := client.UnaryCall(deadline(t), &testgrpc.SimpleRequest{Payload: &testgrpc.Payload{Body: make([]byte, size)}}, options...)
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("compressed: %v: got %v; want RESOURCE_EXHAUSTED", compressed, err)
		}
	}
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func serveInterop(t *testing.T) *grpc.ClientConn {
	t.Helper()
	g := grpc.NewServer(append(h2.GRPCOptions(), grpc.MaxRecvMsgSize(4<<20))...)
	testgrpc.RegisterTestServiceServer(g, interop.NewTestServer())
	s := h2.New(h2.Config{Handler: g, Budget: budget.New(64 << 20), MaxBody: func(string) int64 { return 4 << 20 },
		MessageTimeout: time.Minute}) // a client that compresses 64 MiB with the race detector is slow
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(ln) }() // it ends when ln is closed
	t.Cleanup(func() {
		_ = ln.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		g.Stop()
	})
	conn, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
