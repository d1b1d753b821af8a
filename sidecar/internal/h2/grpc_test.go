package h2

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/body"
	"github.com/ringside-cache/ringside/sidecar/internal/h2/frame"
)

// testService has a unary method and a stream in both directions.
type testService struct {
	unary  func(ctx context.Context) error
	stream func(grpc.ServerStream) error
}

func (s testService) server() *grpc.Server {
	g := grpc.NewServer(GRPCOptions()...)
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: "t", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "u", Handler: func(_ any, ctx context.Context, decode func(any) error,
			intercept grpc.UnaryServerInterceptor) (any, error) {
			q := new(wrapperspb.BytesValue)
			if err := decode(q); err != nil {
				return nil, err
			}
			return intercept(ctx, q, &grpc.UnaryServerInfo{}, func(ctx context.Context, _ any) (any, error) {
				return q, s.unary(ctx)
			})
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "s", ClientStreams: true, ServerStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error { return s.stream(stream) }}},
	}, nil)
	return g
}

func message(size int) []byte {
	b := make([]byte, size)
	b[0], b[1], b[2], b[3] = 0x0a, byte(size-4&0x7f|0x80), byte((size-4)>>7&0x7f|0x80), byte((size-4)>>14) // field 1
	return b
}

// A grpc.Server would read all messages of a stream, however slowly its handler asks for them.
func TestStreamReadsMessagesWhenItsHandlerAsksForThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, next, received := budget.New(64<<20), make(chan struct{}), make(chan int, 100)
		c := connect(t, serving(Config{Budget: b, Handler: testService{stream: func(stream grpc.ServerStream) error {
			for range next {
				m := new(wrapperspb.BytesValue)
				if err := stream.RecvMsg(m); err != nil {
					return err
				}
				received <- len(m.GetValue())
			}
			return nil
		}}.server()}))
		var all []byte
		const count, size = 40, 20 << 10
		for range count {
			all = append(all, framed(message(size))...)
		}
		id := c.call("/t/s")
		sent := c.send(id, all, false)
		c.settle()
		if most := frame.InitialWindow + 3*size; sent > most || used(b, budget.Requests) > int64(most+body.ChunkBytes+wideBytes) {
			t.Errorf("the client could send %d bytes, %d are charged; want at most %d", sent, used(b, budget.Requests), most)
		}
		for range count {
			next <- struct{}{}
			c.settle()
			sent += c.send(id, all[sent:], false)
			if n := used(b, budget.Requests); n > frame.InitialWindow+4*size+body.ChunkBytes+2*wideBytes {
				t.Errorf("%d bytes are charged", n)
			}
		}
		c.settle()
		if len(received) != count || <-received != size-4 || sent != len(all) {
			t.Errorf("%d messages received, %d of %d bytes sent", len(received), sent, len(all))
		}
		time.Sleep(time.Minute) // between messages, a stream has no deadline
		c.send(id, nil, true)
		close(next)
		c.expectStatus(id, "0")
	})
}

// ServeHTTP of a grpc.Server returns when the client is gone, and its handler later.
func TestHandlersOfGRPCCountUntilTheyReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop, running := make(chan struct{}), 0
		c := connect(t, serving(Config{MaxStreams: 3, Handler: testService{unary: func(context.Context) error {
			running++
			<-stop
			return nil
		}}.server()}))
		for range 10 {
			id := c.unary("/t/u", message(100))
			c.settle()
			c.do(c.framer.WriteRSTStream(id, http2.ErrCodeCancel))
			c.settle()
		}
		if running != 3 {
			t.Errorf("%d handlers are running, want 3", running)
		}
		close(stop)
		c.settle()
		c.expectStatus(c.unary("/t/u", message(100)), "0")
	})
}

// The client of grpc-go, with deadlines, errors and large messages in both directions.
func TestClientOfGRPC(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := testService{
		unary: func(ctx context.Context) error {
			if _, ok := ctx.Deadline(); !ok {
				return nil
			}
			<-ctx.Done()
			return status.FromContextError(ctx.Err()).Err()
		},
		stream: func(stream grpc.ServerStream) error {
			for {
				m := new(wrapperspb.BytesValue)
				if err := stream.RecvMsg(m); err == io.EOF {
					return status.Error(codes.Aborted, "the end")
				} else if err != nil {
					return err
				}
				if err := stream.SendMsg(m); err != nil {
					return err
				}
			}
		},
	}.server()
	defer g.Stop()
	s := New(Config{Handler: g, Budget: budget.New(64 << 20)})
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	conn, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	q, a := wrapperspb.Bytes(make([]byte, 1<<20)), new(wrapperspb.BytesValue)
	if err := conn.Invoke(t.Context(), "/t/u", q, a); err != nil || len(a.GetValue()) != 1<<20 {
		t.Errorf("got %d bytes, %v", len(a.GetValue()), err)
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := conn.Invoke(short, "/t/u", q, a); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v, want that the deadline is exceeded", err)
	}
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/t/s")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		a := new(wrapperspb.BytesValue)
		if err := stream.SendMsg(wrapperspb.Bytes(make([]byte, i*50_000))); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(a); err != nil || len(a.GetValue()) != i*50_000 {
			t.Fatalf("message %d: got %d bytes, %v", i, len(a.GetValue()), err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(a); status.Code(err) != codes.Aborted || status.Convert(err).Message() != "the end" {
		t.Errorf("got %v", err)
	}
	if err := conn.Invoke(t.Context(), "/t/none", q, a); status.Code(err) != codes.Unimplemented {
		t.Errorf("got %v, want unimplemented", err)
	}
	ln.Close()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	<-served
}
