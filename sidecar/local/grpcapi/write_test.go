package grpcapi_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	ringsidev1 "github.com/ringside-cache/ringside/proto/ringside/v1"
	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/local"
	"github.com/ringside-cache/ringside/sidecar/local/localtest"
)

func TestGRPCWrites(t *testing.T) { localtest.EachGRPC(t, testGRPCWrites) }

func testGRPCWrites(t *testing.T, grpcGo bool) {
	stub := localtest.Client(t, localtest.StartWritable(t, local.Config{GRPCGo: grpcGo}).GRPC)
	put1, err := stub.Put(t.Context(), &ringsidev1.PutRequest{Dataset: "raw", Key: "g", Value: []byte("1"),
		IdempotencyId: "w 1",
		Condition:     &ringsidev1.Condition{Row: &ringsidev1.Condition_Absent{Absent: true}}})
	if err != nil || string(put1.GetValue()) != "1" || put1.GetMeta().GetVersion() != 1 || put1.GetMeta().GetEtag() == "" {
		t.Fatalf("%v, %v", put1, err)
	}
	put2, err := stub.Put(t.Context(), &ringsidev1.PutRequest{Dataset: "raw", Key: "g", Value: []byte("2"),
		Condition: &ringsidev1.Condition{Row: &ringsidev1.Condition_Etag{Etag: put1.GetMeta().GetEtag()}}})
	if err != nil || put2.GetMeta().GetVersion() != 2 {
		t.Fatalf("%v, %v", put2, err)
	}
	got, err := stub.Get(t.Context(), &ringsidev1.GetRequest{Dataset: "raw", Key: "g", MinVersion: 2})
	if err != nil || string(got.GetValue()) != "2" {
		t.Errorf("%v, %v", got, err)
	}
	appended, err := stub.Append(t.Context(), &ringsidev1.AppendRequest{Dataset: "raw", Value: []byte("new"), IdempotencyId: "a 1"})
	if err != nil || appended.GetKey() != "row-1" || string(appended.GetValue()) != "new" || appended.GetMeta().GetVersion() != 1 {
		t.Fatalf("%v, %v", appended, err)
	}
	again, err := stub.Append(t.Context(), &ringsidev1.AppendRequest{Dataset: "raw", Value: []byte("new"), IdempotencyId: "a 1"})
	if err != nil || again.GetKey() != "row-1" {
		t.Errorf("again: %v, %v", again, err)
	}
	if got, err := stub.Get(t.Context(), &ringsidev1.GetRequest{Dataset: "raw", Key: "row-1"}); err != nil || string(got.GetValue()) != "new" {
		t.Errorf("%v, %v", got, err)
	}
	deleted, err := stub.Delete(t.Context(), &ringsidev1.DeleteRequest{Dataset: "raw", Key: "g",
		Condition: &ringsidev1.Condition{Row: &ringsidev1.Condition_Version{Version: 2}}})
	if err != nil || deleted.GetVersion() != 3 {
		t.Errorf("%v, %v", deleted, err)
	}
	result, err := stub.Invalidate(t.Context(), &ringsidev1.InvalidateRequest{Dataset: "spoiled", Prefix: "g"})
	if err != nil || result.GetMembers() != 2 || !slices.Equal(result.GetUnreached(), []string{"n3"}) {
		t.Errorf("%v, %v", result, err)
	}
	largest := make([]byte, kv.MaxValueBytes)
	if _, err := stub.Put(t.Context(), &ringsidev1.PutRequest{Dataset: "raw", Key: strings.Repeat("k", 1024),
		Value: largest}); err != nil {
		t.Errorf("the largest value: %v", err)
	}
}

func TestGRPCBatchWrite(t *testing.T) { localtest.EachGRPC(t, testGRPCBatchWrite) }

func testGRPCBatchWrite(t *testing.T, grpcGo bool) {
	stub := localtest.Client(t, localtest.StartWritable(t, local.Config{GRPCGo: grpcGo}).GRPC)
	version := func(n int64) *ringsidev1.Condition {
		return &ringsidev1.Condition{Row: &ringsidev1.Condition_Version{Version: n}}
	}
	rows := []*ringsidev1.RowWrite{
		{Key: "g", Value: []byte("1"), IdempotencyId: "w 1"}, {Key: "a", Value: []byte("2"), Condition: version(1)},
		{Key: "b", Value: []byte("2"), Condition: version(7)}, {Key: "x/y", Delete: true}, {Key: "c", Value: []byte("2"), Condition: version(-1)},
		{Key: "d", Value: []byte("2"), Delete: true}, {Value: []byte("2")}, {Key: "e", IdempotencyId: "é"},
	}
	for range 2 { // the second time, only the row with an id is not written again
		resp, err := stub.BatchWrite(t.Context(), &ringsidev1.BatchWriteRequest{Dataset: "raw", Rows: rows})
		if err != nil || len(resp.GetResults()) != len(rows) {
			t.Fatalf("%v, %v", resp, err)
		}
		for i, want := range []string{"", "", "CONFLICT", "", "INVALID_REQUEST", "INVALID_REQUEST", "INVALID_KEY", "INVALID_REQUEST"} {
			r := resp.GetResults()[i]
			if r.GetKey() != rows[i].GetKey() || r.GetError().GetReason() != want || (r.GetWritten() != nil) != (want == "") {
				t.Errorf("row %d: got %v, want %q", i, r, want)
			}
		}
		if v := resp.GetResults()[0].GetWritten().GetVersion(); v != 1 {
			t.Errorf("got version %d, want 1", v)
		}
		rows[1].Condition = version(2)
	}
	got, err := stub.Get(t.Context(), &ringsidev1.GetRequest{Dataset: "raw", Key: "a", MinVersion: 3})
	if err != nil || string(got.GetValue()) != "2" {
		t.Errorf("%v, %v", got, err)
	}
	for name, q := range map[string]*ringsidev1.BatchWriteRequest{
		"INVALID_BATCH":   {Dataset: "raw"},
		"READ_ONLY":       {Dataset: "blobs", Rows: rows[:1]},
		"UNKNOWN_DATASET": {Dataset: "none", Rows: rows[:1]},
	} {
		_, err := stub.BatchWrite(t.Context(), q)
		if !strings.Contains(fmt.Sprint(status.Convert(err).Details()), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGRPCWriteErrors(t *testing.T) { localtest.EachGRPC(t, testGRPCWriteErrors) }

func testGRPCWriteErrors(t *testing.T, grpcGo bool) {
	stub := localtest.Client(t, localtest.StartWritable(t, local.Config{GRPCGo: grpcGo}).GRPC)
	condition := func(c *ringsidev1.Condition) *ringsidev1.PutRequest {
		return &ringsidev1.PutRequest{Dataset: "raw", Key: "a", Condition: c}
	}
	spoiledPut := func(key string) *ringsidev1.PutRequest { return &ringsidev1.PutRequest{Dataset: "spoiled", Key: key} }
	tests := []struct {
		request any
		code    codes.Code
		reason  string
		field   string
	}{
		{&ringsidev1.PutRequest{Dataset: "blobs", Key: "a"}, codes.FailedPrecondition, "READ_ONLY", ""},
		{&ringsidev1.PutRequest{Dataset: "x"}, codes.NotFound, "UNKNOWN_DATASET", ""},
		{&ringsidev1.AppendRequest{Dataset: "blobs"}, codes.FailedPrecondition, "READ_ONLY", ""},
		{&ringsidev1.AppendRequest{Dataset: "spoiled", Value: []byte("keyless")}, codes.FailedPrecondition, "APPEND_UNSUPPORTED", ""},
		{&ringsidev1.AppendRequest{Dataset: "spoiled", Value: []byte("unknown")}, codes.Unknown, "OUTCOME_UNKNOWN", ""},
		{&ringsidev1.AppendRequest{Dataset: "spoiled", Value: []byte("column")}, codes.InvalidArgument, "INVALID_VALUE", "value.unit"},
		{&ringsidev1.AppendRequest{Dataset: "x"}, codes.NotFound, "UNKNOWN_DATASET", ""},
		{&ringsidev1.AppendRequest{Dataset: "raw", IdempotencyId: "é"}, codes.InvalidArgument, "INVALID_REQUEST", "idempotency_id"},
		{&ringsidev1.AppendRequest{Dataset: "raw", Value: make([]byte, kv.MaxValueBytes+1)}, codes.InvalidArgument, "INVALID_VALUE", "value"},
		{&ringsidev1.PutRequest{Dataset: "raw"}, codes.InvalidArgument, "INVALID_KEY", "key"},
		{&ringsidev1.PutRequest{Dataset: "raw", Key: "a", Value: make([]byte, kv.MaxValueBytes+1)},
			codes.InvalidArgument, "INVALID_VALUE", "value"},
		{&ringsidev1.PutRequest{Dataset: "raw", Key: "a", IdempotencyId: "é"}, codes.InvalidArgument, "INVALID_REQUEST",
			"idempotency_id"},
		{&ringsidev1.PutRequest{Dataset: "raw", Key: "a", IdempotencyId: strings.Repeat("x", 129)}, codes.InvalidArgument,
			"INVALID_REQUEST", "idempotency_id"},
		{condition(&ringsidev1.Condition{Row: &ringsidev1.Condition_Version{Version: 9}}), codes.Aborted, "CONFLICT", ""},
		{condition(&ringsidev1.Condition{Row: &ringsidev1.Condition_Version{}}), codes.InvalidArgument, "INVALID_REQUEST",
			"condition.version"},
		{condition(&ringsidev1.Condition{Row: &ringsidev1.Condition_Etag{Etag: "x"}}), codes.InvalidArgument,
			"INVALID_REQUEST", "condition.etag"},
		{condition(&ringsidev1.Condition{Row: &ringsidev1.Condition_Etag{Etag: `"x"`}}), codes.Aborted, "CONFLICT", ""},
		{condition(&ringsidev1.Condition{Row: &ringsidev1.Condition_Absent{Absent: true}}), codes.Aborted, "CONFLICT", ""},
		{condition(&ringsidev1.Condition{Row: &ringsidev1.Condition_Absent{}}), codes.InvalidArgument, "INVALID_REQUEST",
			"condition.absent"},
		{condition(&ringsidev1.Condition{Row: &ringsidev1.Condition_Present{}}), codes.InvalidArgument, "INVALID_REQUEST",
			"condition.present"},
		{spoiledPut("unknown"), codes.Unknown, "OUTCOME_UNKNOWN", ""}, {spoiledPut("column"), codes.InvalidArgument,
			"INVALID_VALUE", "value.unit"},
		{spoiledPut("value"), codes.InvalidArgument, "INVALID_VALUE", "value"}, {spoiledPut("internal"), codes.Internal,
			"INTERNAL", ""},
		{spoiledPut("panic"), codes.Internal, "INTERNAL", ""},
		{&ringsidev1.DeleteRequest{Dataset: "raw", Key: "none",
			Condition: &ringsidev1.Condition{Row: &ringsidev1.Condition_Present{Present: true}}},
			codes.Aborted, "CONFLICT", ""},
		{&ringsidev1.DeleteRequest{Dataset: "raw", Key: "none",
			Condition: &ringsidev1.Condition{Row: &ringsidev1.Condition_Absent{Absent: true}}},
			codes.InvalidArgument, "INVALID_REQUEST", "condition.absent"},
		{&ringsidev1.GetRequest{Dataset: "spoiled", Key: "a", MinVersion: 9}, codes.FailedPrecondition,
			"VERSION_NOT_REACHED", ""},
		{&ringsidev1.GetRequest{Dataset: "raw", Key: "a", MinVersion: -1}, codes.InvalidArgument, "INVALID_REQUEST",
			"min_version"},
		{&ringsidev1.GetRequest{Dataset: "raw", Key: "a", MaxStale: durationpb.New(-1)}, codes.InvalidArgument,
			"INVALID_REQUEST", "max_stale"},
		{&ringsidev1.InvalidateRequest{Dataset: "raw"}, codes.InvalidArgument, "INVALID_REQUEST", "keys"},
		{&ringsidev1.InvalidateRequest{Dataset: "raw", All: true, Prefix: "x"}, codes.InvalidArgument, "INVALID_REQUEST",
			"keys"},
		{&ringsidev1.InvalidateRequest{Dataset: "raw", Keys: make([]string, 1001)}, codes.InvalidArgument,
			"INVALID_REQUEST", "keys"},
		{&ringsidev1.InvalidateRequest{Dataset: "raw", Prefix: strings.Repeat("x", 1025)}, codes.InvalidArgument,
			"INVALID_REQUEST", "prefix"},
		{&ringsidev1.InvalidateRequest{Dataset: "spoiled", All: true}, codes.ResourceExhausted, "OVERLOADED", ""},
	}
	for i, tt := range tests {
		t.Run(fmt.Sprint(i, " ", tt.reason, " ", tt.field), func(t *testing.T) {
			var err error
			switch q := tt.request.(type) {
			case *ringsidev1.GetRequest:
				_, err = stub.Get(t.Context(), q)
			case *ringsidev1.PutRequest:
				_, err = stub.Put(t.Context(), q)
			case *ringsidev1.AppendRequest:
				_, err = stub.Append(t.Context(), q)
			case *ringsidev1.DeleteRequest:
				_, err = stub.Delete(t.Context(), q)
			case *ringsidev1.InvalidateRequest:
				_, err = stub.Invalidate(t.Context(), q)
			}
			reason, field := details(err)
			if status.Code(err) != tt.code || reason != tt.reason || field != tt.field || strings.Contains(err.Error(),
				"canary") {
				t.Errorf("%v %s %q: %v", status.Code(err), reason, field, err)
			}
		})
	}
}

// details returns the reason of a status, and the field that it names.
func details(err error) (reason, field string) {
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason = d.GetReason()
		case *errdetails.BadRequest:
			field = d.GetFieldViolations()[0].GetField()
		}
	}
	return reason, field
}
