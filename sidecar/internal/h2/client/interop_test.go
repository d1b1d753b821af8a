package client

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// startGRPC serves method with grpc-go, and returns a client of it: members of older releases have its client, too.
func startGRPC(t testing.TB, echo func(ctx context.Context, n int) (int, error), options ...grpc.ServerOption) *Client {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(options...)
	s.RegisterService(&grpc.ServiceDesc{ServiceName: "test.Echo", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Echo",
		Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var m wrapperspb.BytesValue
			if err := decode(&m); err != nil {
				return nil, err
			}
			n, err := echo(ctx, len(m.GetValue()))
			return wrapperspb.Bytes(make([]byte, n)), err
		},
	}}}, struct{}{})
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(s.Stop)
	c := New(testConfig(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
	}))
	t.Cleanup(c.Close)
	return c
}

func TestCallsOfAGRPCServer(t *testing.T) {
	t.Parallel()
	c := startGRPC(t, func(_ context.Context, n int) (int, error) { return n, nil }, grpc.MaxConcurrentStreams(8))
	var calls sync.WaitGroup
	for i := range 32 {
		calls.Go(func() {
			for _, size := range []int{0, 1, i, 1000, 70_000, max(0, 3-i) << 20} {
				if n, err := call(t.Context(), c, size); n != size || err != nil {
					t.Errorf("call with %d bytes: got %d, error %v", size, n, err)
				}
			}
		})
	}
	calls.Wait()
	for one := range c.conns {
		if n := len(one.streams); n != 0 {
			t.Errorf("%d streams are left", n)
		}
	}
}

func TestErrorsOfAGRPCServer(t *testing.T) {
	t.Parallel()
	text := "line\nünicode 100%"
	detailed, err := status.New(codes.Aborted, text).WithDetails(&errdetails.ErrorInfo{Reason: "R"})
	if err != nil {
		t.Fatal(err)
	}
	c := startGRPC(t, func(_ context.Context, n int) (int, error) {
		if n == 0 {
			return 0, status.Error(codes.NotFound, text)
		}
		return 0, detailed.Err()
	})
	_, err = call(t.Context(), c, 0)
	if s := status.Convert(err); s.Code() != codes.NotFound || s.Message() != text {
		t.Errorf("got error %v, want NOT_FOUND with %q", err, text)
	}
	_, err = call(t.Context(), c, 1)
	if got, want := fmt.Sprint(status.Convert(err).Proto()), fmt.Sprint(detailed.Proto()); got != want {
		t.Errorf("got status %s, want %s", got, want)
	}
	if err := c.Invoke(t.Context(), "/test.Echo/None", wrapperspb.Bytes(nil), new(wrapperspb.BytesValue)); status.Code(err) != codes.Unimplemented {
		t.Errorf("unknown method: got error %v, want UNIMPLEMENTED", err)
	}
	if _, err := call(t.Context(), c, 0, grpc.Header(nil)); err == nil || !strings.Contains(err.Error(), "option") {
		t.Errorf("got error %v, want one of the option that is not supported", err)
	}
}
