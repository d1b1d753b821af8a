package service

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

func TestExplanationsAreWithinTheLimitOfFetches(t *testing.T) {
	c := Config{
		Datasets: func(name string) (Dataset, bool) { return nil, name == "metrics" },
		Explain:  func(string, string) []byte { return []byte("x") },
		History:  func(int64) []byte { return nil },
	}
	well := New(c)
	for _, tt := range []struct {
		dataset, key string
		want         codes.Code
	}{
		{"metrics", "k", codes.OK}, {"other", "k", codes.NotFound}, {"metrics", "", codes.InvalidArgument},
		{"metrics", strings.Repeat("k", kv.MaxKeyBytes+1), codes.InvalidArgument}, {strings.Repeat("d", 200), "k", codes.InvalidArgument},
	} {
		_, err := well.Explain(context.Background(), &peerv1.ExplainRequest{Dataset: tt.dataset, Key: tt.key})
		if status.Code(err) != tt.want {
			t.Errorf("%.20s/%.20s: got %v, want %s", tt.dataset, tt.key, err, tt.want)
		}
	}
	c.MaxInFlight = -1
	full := New(c)
	_, err := full.Explain(context.Background(), &peerv1.ExplainRequest{Dataset: "metrics", Key: "k"})
	if status.Code(err) != codes.ResourceExhausted || full.Stats().Refused != 1 || full.Stats().InFlight != 0 {
		t.Errorf("got %v, %+v; want RESOURCE_EXHAUSTED and one refused", err, full.Stats())
	}
	if _, err := full.History(context.Background(), nil); status.Code(err) != codes.ResourceExhausted || full.Stats().InFlight != 0 {
		t.Errorf("history: got %v, %+v; want RESOURCE_EXHAUSTED", err, full.Stats())
	}
}
