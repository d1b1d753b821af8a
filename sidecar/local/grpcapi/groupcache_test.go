package grpcapi_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ringside-cache/ringside/proto/groupcachepb"
	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/internal/apierror"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

// Both names are on the wire: existing clients are not rebuilt.
func TestGroupCacheWireFormat(t *testing.T) {
	if groupcachepb.GroupCache_Get_FullMethodName != "/groupcachepb.GroupCache/Get" {
		t.Error(groupcachepb.GroupCache_Get_FullMethodName)
	}
	q, err := proto.Marshal(&groupcachepb.GetRequest{Group: "g", Key: "k"})
	if err != nil || string(q) != "\x0a\x01g\x12\x01k" {
		t.Errorf("%q, %v", q, err)
	}
	r, err := proto.Marshal(&groupcachepb.GetResponse{Value: []byte("v")})
	if err != nil || string(r) != "\x0a\x01v" {
		t.Errorf("%q, %v", r, err)
	}
}

func TestGroupCacheIsOnEveryListener(t *testing.T) {
	s, routed := localtest.StartRouted(t, local.Config{}, nil)
	for name, address := range map[string]string{"grpc": s.GRPC, "unix": "unix://" + s.Unix, "peer": routed} {
		t.Run(name, func(t *testing.T) {
			stub := groupcachepb.NewGroupCacheClient(localtest.Connect(t, address))
			got, err := stub.Get(t.Context(), &groupcachepb.GetRequest{Group: "cnf-metrics", Key: "a"})
			if err != nil || string(got.GetValue()) != `{"cnf_id":"a"}` {
				t.Errorf("%v, %v", got, err)
			}
			got, err = stub.Get(t.Context(), &groupcachepb.GetRequest{Group: "cnf-metrics", Key: "none"})
			if status.Code(err) != codes.NotFound {
				t.Errorf("absent: %v, %v", got, err)
			}
		})
	}
}

func TestGroupCacheReturnsTheErrorsOfGet(t *testing.T) {
	localtest.EachGRPC(t, testGroupCacheReturnsTheErrorsOfGet)
}

func testGroupCacheReturnsTheErrorsOfGet(t *testing.T, grpcGo bool) {
	s := localtest.Start(t, local.Config{GRPCGo: grpcGo,
		RequestTimeout: time.Second, Errors: apierror.NewLog(func(apierror.Line) {}), // equal errors have equal ids
	})
	conn := localtest.Connect(t, s.GRPC)
	old, stub := groupcachepb.NewGroupCacheClient(conn), ringsidev1.NewCacheClient(conn)
	for _, tt := range []struct {
		group, key string
		code       codes.Code
	}{
		{"", "a", codes.NotFound},
		{"cnf_metrics", "a", codes.NotFound},
		{"blobs", "none", codes.NotFound},
		{"blobs", "", codes.InvalidArgument},
		{"blobs", strings.Repeat("k", 1025), codes.InvalidArgument},
		{"failing", "", codes.InvalidArgument}, // this dataset itself accepts every key
		{"failing", "overloaded", codes.ResourceExhausted},
		{"failing", "unavailable", codes.Unavailable},
		{"failing", "wait", codes.DeadlineExceeded},
		{"failing", "internal", codes.Internal},
		{"failing", "panic", codes.Internal},
	} {
		_, want := stub.Get(t.Context(), &ringsidev1.GetRequest{Dataset: tt.group, Key: tt.key})
		_, err := old.Get(t.Context(), &groupcachepb.GetRequest{Group: tt.group, Key: tt.key})
		if status.Code(err) != tt.code || !proto.Equal(status.Convert(err).Proto(), status.Convert(want).Proto()) {
			t.Errorf("%s/%.20s: %v, want %v as of Get: %v", tt.group, tt.key, err, tt.code, want)
		}
		if strings.Contains(fmt.Sprint(err), "canary") {
			t.Errorf("%s/%.20s: %v", tt.group, tt.key, err)
		}
	}
	if n := s.Config().Errors.Defects(); n != 4 {
		t.Errorf("%d defects", n)
	}
	if count, _, _ := s.Stats().GRPC.Duration.Snapshot(); count != 22 {
		t.Errorf("%d durations of 22 calls", count)
	}
}
