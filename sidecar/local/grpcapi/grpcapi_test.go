package grpcapi_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/api"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

func TestGRPCGet(t *testing.T) { localtest.EachGRPC(t, testGRPCGet) }

func testGRPCGet(t *testing.T, grpcGo bool) {
	stub := localtest.Client(t, localtest.Start(t, local.Config{GRPCGo: grpcGo}).GRPC)
	q := &ringsidev1.GetRequest{Dataset: "cnf-metrics", Key: "a"}
	for _, want := range []ringsidev1.Source{ringsidev1.Source_SOURCE_LOAD, ringsidev1.Source_SOURCE_HIT} {
		got, err := stub.Get(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		m := got.GetMeta()
		if string(got.GetValue()) != `{"cnf_id":"a"}` || m.GetSource() != want || m.GetEtag() == "" || m.GetStale() ||
			m.GetTimeLeft().AsDuration() < 50*time.Minute || m.GetAge().AsDuration() < 0 {
			t.Errorf("%v", got)
		}
	}
	q.NoCache = true
	if got, err := stub.Get(t.Context(), q); err != nil || got.GetMeta().GetSource() != ringsidev1.Source_SOURCE_LOAD {
		t.Errorf("no_cache: %v, %v", got, err)
	}
}

func TestGRPCErrors(t *testing.T) { localtest.EachGRPC(t, testGRPCErrors) }

func testGRPCErrors(t *testing.T, grpcGo bool) {
	s := localtest.Start(t, local.Config{GRPCGo: grpcGo, RequestTimeout: time.Second})
	stub := localtest.Client(t, s.GRPC)
	tests := []struct {
		dataset, key string
		cached       bool
		code         codes.Code
		reason       string
		retry        time.Duration
		field        string
	}{
		{"cnf_metrics", "a", false, codes.NotFound, "UNKNOWN_DATASET", 0, ""},
		{"blobs", "none", false, codes.NotFound, "NOT_FOUND", 0, ""},
		{"blobs", "", false, codes.InvalidArgument, "INVALID_KEY", 0, "key"},
		{"blobs", strings.Repeat("k", 1025), false, codes.InvalidArgument, "INVALID_KEY", 0, "key"},
		{"blobs", "never-read", true, codes.FailedPrecondition, "NOT_CACHED", 0, ""},
		{"failing", "overloaded", false, codes.ResourceExhausted, "OVERLOADED", 1500 * time.Millisecond, ""},
		{"failing", "unavailable", false, codes.Unavailable, "ORIGIN_UNAVAILABLE", time.Second, ""},
		{"failing", "invalid", false, codes.InvalidArgument, "INVALID_KEY", 0, "key"},
		{"failing", "canceled", false, codes.Canceled, "CANCELED", time.Second, ""},
		{"failing", "wait", false, codes.DeadlineExceeded, "DEADLINE", 0, ""},
		{"failing", "internal", false, codes.Internal, "INTERNAL", 0, ""},
		{"failing", "panic", false, codes.Internal, "INTERNAL", 0, ""},
	}
	for _, tt := range tests {
		t.Run(tt.reason, func(t *testing.T) {
			_, err := stub.Get(t.Context(), &ringsidev1.GetRequest{Dataset: tt.dataset, Key: tt.key, OnlyIfCached: tt.cached})
			if status.Code(err) != tt.code || strings.Contains(err.Error(), "canary") {
				t.Fatalf("%v, want %v", err, tt.code)
			}
			var info *errdetails.ErrorInfo
			var retry *errdetails.RetryInfo
			var bad *errdetails.BadRequest
			for _, d := range status.Convert(err).Details() {
				switch d := d.(type) {
				case *errdetails.ErrorInfo:
					info = d
				case *errdetails.RetryInfo:
					retry = d
				case *errdetails.BadRequest:
					bad = d
				}
			}
			if info.GetReason() != tt.reason || info.GetDomain() != "ringside.dev" {
				t.Errorf("%v", info)
			}
			if retry.GetRetryDelay().AsDuration() != tt.retry {
				t.Errorf("%v", retry)
			}
			if (tt.field != "") != (bad != nil) || bad != nil && bad.FieldViolations[0].GetField() != tt.field {
				t.Errorf("%v", bad)
			}
			if tt.reason == "UNKNOWN_DATASET" && info.GetMetadata()["near"] != "cnf-metrics" {
				t.Errorf("%v", info)
			}
		})
	}
	if n := s.Config().Errors.Defects(); n != 2 {
		t.Errorf("%d defects", n)
	}
	if count, _, _ := s.Stats().GRPC.Duration.Snapshot(); count != uint64(len(tests)) {
		t.Errorf("%d durations of %d calls", count, len(tests))
	}
}

func TestGRPCBatchGet(t *testing.T) { localtest.EachGRPC(t, testGRPCBatchGet) }

func testGRPCBatchGet(t *testing.T, grpcGo bool) {
	stub := localtest.Client(t, localtest.Start(t, local.Config{GRPCGo: grpcGo}).GRPC)
	q := &ringsidev1.BatchGetRequest{Dataset: "blobs", Keys: []string{"x/y", "none", ""}}
	got, err := stub.BatchGet(t.Context(), q)
	if err != nil || len(got.GetResults()) != 3 {
		t.Fatalf("%v, %v", got, err)
	}
	r := got.GetResults()
	if string(r[0].GetFound().GetValue()) != "slash" || r[0].GetKey() != "x/y" {
		t.Errorf("%v", r[0])
	}
	if e := r[1].GetError(); codes.Code(e.GetCode()) != codes.NotFound || e.GetReason() != "NOT_FOUND" {
		t.Errorf("%v", r[1])
	}
	if e := r[2].GetError(); codes.Code(e.GetCode()) != codes.InvalidArgument {
		t.Errorf("%v", r[2])
	}
	for _, n := range []int{0, api.MaxBatchKeys + 1} {
		q.Keys = make([]string, n)
		_, err = stub.BatchGet(t.Context(), q)
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%d keys: %v", n, err)
		}
	}
	got, err = stub.BatchGet(t.Context(), &ringsidev1.BatchGetRequest{Dataset: "failing", Keys: []string{"overloaded"}})
	if err != nil || got.GetResults()[0].GetError().GetRetryAfter().AsDuration() != 1500*time.Millisecond {
		t.Errorf("%v, %v", got, err)
	}
}

func TestTooLargeMessageIsRefused(t *testing.T) { localtest.EachGRPC(t, testTooLargeMessageIsRefused) }

func testTooLargeMessageIsRefused(t *testing.T, grpcGo bool) {
	stub := localtest.Client(t, localtest.Start(t, local.Config{GRPCGo: grpcGo, MaxBodyBytes: 100}).GRPC)
	_, err := stub.Get(t.Context(), &ringsidev1.GetRequest{Dataset: strings.Repeat("x", 200+(8<<10))})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("%v", err)
	}
}
