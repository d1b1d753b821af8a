package peererror

import (
	"errors"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// gRPC uses RESOURCE_EXHAUSTED when the response to a write that was made is too large.
func TestResourceExhaustedOfGRPCIsNotAnAnswerToAWrite(t *testing.T) {
	if e := FromStatus(status.New(codes.ResourceExhausted, "message larger than max"), Write); e != nil {
		t.Errorf("without RetryInfo: got %+v, want nil", e)
	}
	s := status.Convert(ToStatus(Overloaded(errors.New("busy"))))
	if e := FromStatus(s, Write); e == nil || e.Kind != kv.KindOverloaded || e.RetryAfter != retryAfter {
		t.Errorf("with RetryInfo: got %+v, want overloaded", e)
	}
}

func TestErrorWithoutRetryAfterHasNoDetails(t *testing.T) {
	s := status.Convert(ToStatus(&kv.Error{Kind: kv.KindUnavailable, Err: errors.New("x")}))
	if len(s.Details()) != 0 {
		t.Errorf("got details %v, want none", s.Details())
	}
}

// The caller passes the reason on to its client; the names of origin and dataset are for operators.
func TestReasonOfInvalidKeyTravelsWithoutTheNamesAroundIt(t *testing.T) {
	err := fmt.Errorf("dataset a: %w", fmt.Errorf("origin \"canary\": %w", fmt.Errorf("%w: it is too long", origin.ErrInvalidKey)))
	if m := status.Convert(ToStatus(&kv.Error{Kind: kv.KindInvalidKey, Err: err})).Message(); m != "invalid key: it is too long" {
		t.Errorf("got %q, want the reason alone", m)
	}
}
