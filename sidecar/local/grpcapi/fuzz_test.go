package grpcapi_test

import (
	"bytes"
	"context"
	"net"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/proto/groupcachepb"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

// wire is a codec that sends and keeps bytes as they are.
type wire struct{}

func (wire) Marshal(v any) ([]byte, error)   { return *v.(*[]byte), nil }
func (wire) Unmarshal(b []byte, v any) error { *v.(*[]byte) = slices.Clone(b); return nil }
func (wire) Name() string                    { return "proto" }

// method is one that applications call, with empty messages of its request and its answer.
type method struct {
	name            string
	request, answer func() proto.Message
}

var methods = []method{
	{ringsidev1.Cache_Get_FullMethodName,
		func() proto.Message { return new(ringsidev1.GetRequest) },
		func() proto.Message { return new(ringsidev1.GetResponse) }},
	{ringsidev1.Cache_BatchGet_FullMethodName,
		func() proto.Message { return new(ringsidev1.BatchGetRequest) },
		func() proto.Message { return new(ringsidev1.BatchGetResponse) }},
	{groupcachepb.GroupCache_Get_FullMethodName,
		func() proto.Message { return new(groupcachepb.GetRequest) },
		func() proto.Message { return new(groupcachepb.GetResponse) }},
	{ringsidev1.Cache_Put_FullMethodName,
		func() proto.Message { return new(ringsidev1.PutRequest) },
		func() proto.Message { return new(ringsidev1.PutResponse) }},
	{ringsidev1.Cache_BatchWrite_FullMethodName,
		func() proto.Message { return new(ringsidev1.BatchWriteRequest) },
		func() proto.Message { return new(ringsidev1.BatchWriteResponse) }},
	{ringsidev1.Cache_Delete_FullMethodName,
		func() proto.Message { return new(ringsidev1.DeleteRequest) },
		func() proto.Message { return new(ringsidev1.DeleteResponse) }},
	{ringsidev1.Cache_Invalidate_FullMethodName,
		func() proto.Message { return new(ringsidev1.InvalidateRequest) },
		func() proto.Message { return new(ringsidev1.InvalidateResponse) }},
}

// FuzzGRPC sends any bytes as the message of each method: the server answers with a message or a documented code, and
// meets no defect.
func FuzzGRPC(f *testing.F) {
	for i, q := range []proto.Message{
		&ringsidev1.GetRequest{Dataset: "blobs", Key: "a"},
		&ringsidev1.BatchGetRequest{Dataset: "blobs", Keys: []string{"a", "none", ""}},
		&groupcachepb.GetRequest{Group: "blobs", Key: "x/y"},
		&ringsidev1.PutRequest{Dataset: "blobs", Key: "x/y", Value: []byte("v"), IdempotencyId: "i",
			Condition: &ringsidev1.Condition{Row: &ringsidev1.Condition_Etag{Etag: `"e"`}}},
		&ringsidev1.BatchWriteRequest{Dataset: "blobs", Rows: []*ringsidev1.RowWrite{{Key: "x/y", Value: []byte("v")}, {Key: "a", Delete: true}, {}}},
		&ringsidev1.DeleteRequest{Dataset: "blobs", Key: "x/y",
			Condition: &ringsidev1.Condition{Row: &ringsidev1.Condition_Version{Version: 7}}},
		&ringsidev1.InvalidateRequest{Dataset: "blobs", Keys: []string{"a"}, Prefix: "b"},
		&ringsidev1.GetRequest{Dataset: "blobs", Key: "never-read", NoCache: true, OnlyIfCached: true},
	} {
		seed, err := proto.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), seed)
	}
	f.Add(uint8(0), []byte("\x0a\x05blobs\x12\x02\xff\xfe")) // a key that is not UTF-8
	f.Add(uint8(1), bytes.Repeat([]byte("\x12\x00"), api.MaxBatchKeys+1))
	f.Add(uint8(2), []byte("\x0a\xff\xff\xff\xff\x0f"))
	f.Add(uint8(0), bytes.Repeat([]byte("k"), 1000))
	s := local.New(local.Config{MaxBodyBytes: 4096}, local.NewCatalog(local.Served{Dataset: localtest.NewWritable(f, "blobs", origintest.New(localtest.Rows()))}))
	conn := overMemory(f, s)
	f.Fuzz(func(t *testing.T, which uint8, message []byte) {
		m := methods[int(which)%len(methods)]
		var answer []byte
		err := conn.Invoke(t.Context(), m.name, &message, &answer, grpc.ForceCodec(wire{}))
		if err == nil {
			err = proto.Unmarshal(answer, m.answer())
		}
		if code := status.Code(err); !slices.Contains(expected(m, message), code) {
			t.Errorf("%s %q: %v", m.name, message, err)
		}
		if n := s.Config().Errors.Defects(); n != 0 {
			t.Fatalf("%s %q: %d defects", m.name, message, n)
		}
	})
}

// expected returns the codes that a message may get. One that is not protobuf never reaches the service: grpc
// itself returns INTERNAL.
func expected(m method, message []byte) []codes.Code {
	if proto.Unmarshal(message, m.request()) != nil {
		return []codes.Code{codes.Internal, codes.ResourceExhausted}
	}
	return []codes.Code{codes.OK, codes.NotFound, codes.InvalidArgument, codes.FailedPrecondition, codes.ResourceExhausted,
		codes.Aborted}
}

// overMemory serves s without a network and returns a connection to it.
func overMemory(f *testing.F, s *local.Server) *grpc.ClientConn {
	f.Helper()
	ln := bufconn.Listen(64 << 10)
	go func() { _ = s.ServeGRPC(ln) }() // Shutdown makes it return nil
	conn, err := grpc.NewClient("passthrough:///memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return ln.DialContext(ctx) }))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		_ = conn.Close()
		_ = s.Shutdown(context.Background())
	})
	return conn
}
