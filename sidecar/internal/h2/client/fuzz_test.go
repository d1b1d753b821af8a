package client

import (
	"bytes"
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ringside-cache/ringside/sidecar/internal/budget"
)

// FuzzResponses sends any bytes after the SETTINGS of the server to a call and a stream: the client must survive them, keep
// little, and give back what it has taken of the budget.
func FuzzResponses(f *testing.F) {
	for _, script := range []func(*server, uint32){
		answering(10),
		func(s *server, id uint32) {
			s.header(id, true, ":status", "200", "grpc-status", "5", "grpc-message", "none")
		},
		func(s *server, id uint32) { _ = s.framer.WriteRSTStream(id, http2.ErrCodeRefusedStream) },
		func(s *server, id uint32) { _ = s.framer.WriteGoAway(0, http2.ErrCodeNo, nil) },
		func(s *server, id uint32) { _ = s.framer.WritePing(false, [8]byte{}); s.answer(id+2, 100) },
	} {
		var out bytes.Buffer
		s := &server{framer: http2.NewFramer(&out, nil)}
		s.hpack = hpack.NewEncoder(&s.block)
		script(s, 1)
		f.Add(out.Bytes())
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		synctest.Test(t, func(t *testing.T) {
			b, s := budget.New(1<<20), &server{}
			config := testConfig(func(context.Context) (net.Conn, error) { return s.serveOn(), nil })
			config.Budget = b
			c := New(config)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := c.Connect(ctx); err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = call(ctx, c, 1, grpc.MaxCallRecvMsgSize(1000)) }()
			stream, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method, grpc.MaxCallRecvMsgSize(1000))
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for err := stream.SendMsg(wrapperspb.Bytes(nil)); err == nil; {
					err = stream.RecvMsg(new(wrapperspb.BytesValue))
				}
			}()
			synctest.Wait()
			go s.write(func() { _, _ = s.conn.Write(input) })
			time.Sleep(time.Second)
			c.mu.Lock()
			for one := range c.conns {
				one.mu.Lock()
				for _, open := range one.streams {
					if n := cap(open.buf); n > 2*(64<<10) {
						t.Errorf("a stream keeps %d bytes", n)
					}
				}
				if n := len(one.out); n > 2*maxOut {
					t.Errorf("%d bytes wait to be sent", n)
				}
				one.mu.Unlock()
			}
			c.mu.Unlock()
			c.Close()
			s.conn.Close()
			synctest.Wait()
			if n := b.Stats()[budget.Connections].Used; n != 0 {
				t.Errorf("%d bytes are taken at the end", n)
			}
		})
	})
}
