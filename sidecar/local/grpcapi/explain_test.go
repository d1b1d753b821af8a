package grpcapi_test

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

func TestExplain(t *testing.T) {
	s := localtest.Start(t, local.Config{Explain: func(_ context.Context, dataset, key string) ([]byte, error) {
		if key == "busy" {
			return nil, &kv.Error{Kind: kv.KindOverloaded, Err: errors.New("too many")}
		}
		return []byte(dataset + " " + key), nil
	}})
	stub := localtest.Client(t, s.GRPC)
	for _, tt := range []struct {
		dataset, key string
		want         codes.Code
	}{
		{"cnf-metrics", "a/b", codes.OK}, {"cnf-metrics", "", codes.InvalidArgument}, {"nope", "a", codes.NotFound}, {"cnf-metrics", "busy", codes.ResourceExhausted},
	} {
		got, err := stub.Explain(t.Context(), &ringsidev1.ExplainRequest{Dataset: tt.dataset, Key: tt.key})
		if status.Code(err) != tt.want || err == nil && string(got.GetJson()) != "cnf-metrics a/b" {
			t.Errorf("%s/%s: got %s, %v; want %s", tt.dataset, tt.key, got.GetJson(), err, tt.want)
		}
	}
	_, err := localtest.Client(t, localtest.Start(t, local.Config{}).GRPC).Explain(t.Context(), &ringsidev1.ExplainRequest{Dataset: "cnf-metrics", Key: "a"})
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("where nothing explains: got %v, want UNIMPLEMENTED", err)
	}
}
