// Package peererror has the table of errors between members: each kind of error of a dataset ⇄ a gRPC status, and which of
// them are a member's answer.
package peererror

import (
	"errors"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ringside-cache/ringside/origin"
	peerv1 "github.com/ringside-cache/ringside/proto/ringside/peer/v1"
	"github.com/ringside-cache/ringside/ring/printable"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

const (
	// retryAfter is the retry delay of an error caused by a limit of a member.
	retryAfter = time.Second
	// maxRetryAfter limits the retry delay that another member reports: clients wait that long.
	maxRetryAfter = time.Minute
	// reasonIDReused distinguishes kv.KindIDReused from kv.KindInvalidValue.
	reasonIDReused = "IDEMPOTENCY_ID_REUSED"
	// reasonDataError distinguishes kv.KindDataError from kv.KindUnavailable.
	reasonDataError = "DATA_ERROR"
)

// Calls is a set of calls.
type Calls uint8

const (
	// Fetch is Fetch and FetchBatch.
	Fetch Calls = 1 << iota
	// Write is Write and WriteBatch.
	Write
	none Calls = 0
)

// table is the only table of errors between members. answer names the calls for which the row is the member's answer; the
// error then keeps its kind. After any other error, the caller of a fetch asks another member, and the outcome of a write
// is unknown.
var table = []struct {
	kind   kv.Kind
	code   codes.Code
	answer Calls
}{
	{kv.KindInvalidKey, codes.InvalidArgument, Fetch | Write},
	{kv.KindInvalidValue, codes.InvalidArgument, none}, // distinguished from the row above by its details; see writeError
	{kv.KindIDReused, codes.InvalidArgument, none},     // likewise
	{kv.KindNotCached, codes.OutOfRange, Fetch},
	{kv.KindOverloaded, codes.ResourceExhausted, Fetch | Write},
	{kv.KindUnavailable, codes.Aborted, Fetch | Write},
	{kv.KindDataError, codes.Aborted, none}, // distinguished from the row above by its details
	{kv.KindReadOnly, codes.FailedPrecondition, Write},
	{kv.KindConflict, codes.AlreadyExists, Write},
	{kv.KindUnknown, codes.Unknown, Write},
	{kv.KindDeadline, codes.DeadlineExceeded, none},
	{kv.KindCanceled, codes.Canceled, none},
	{kv.KindInternal, codes.Internal, none},
}

// ToStatus converts an error of a dataset to a gRPC status error.
func ToStatus(err error) error {
	kind, code := kv.KindOf(err), codes.Internal
	for _, row := range table {
		if row.kind == kind {
			code = row.code
		}
	}
	text := err.Error()
	if kind == kv.KindInvalidKey {
		text = kv.Reason(err) // the caller's client sees it
	}
	s := withRetry(status.New(code, truncate(text)), kv.RetryAfter(err))
	switch kind {
	case kv.KindInvalidValue:
		s = withValueError(s, err)
	case kv.KindDataError:
		s = withDetail(s, &errdetails.ErrorInfo{
			Reason: reasonDataError, Metadata: map[string]string{"cause": strconv.Itoa(int(origin.CauseOf(err)))},
		})
	case kv.KindIDReused:
		s = withViolation(s, &errdetails.BadRequest_FieldViolation{
			Description: truncate(err.Error()), Reason: reasonIDReused,
		})
	}
	return s.Err()
}

// FromStatus converts a status that is the member's answer to a call back to an error of a dataset. It returns nil for any
// other status.
func FromStatus(s *status.Status, call Calls) *kv.Error {
	invalid := writeError(s)
	switch {
	case call == Write && invalid != nil:
		return invalid
	case call == Write && s.Code() == codes.ResourceExhausted && retryDelay(s) == 0: //guard:grpc-resourceexhausted-is-not-an-answer
		return nil // sent by gRPC itself, for example because the response is too large
	}
	if e := dataError(s); e != nil {
		return e
	}
	for _, row := range table {
		if row.answer&call != 0 && row.code == s.Code() {
			return &kv.Error{Kind: row.kind, RetryAfter: retryDelay(s), Err: errors.New(truncate(s.Message()))}
		}
	}
	return nil
}

// ToFetchError converts a status error to one in a FetchBatchResponse.
func ToFetchError(err error) *peerv1.FetchError {
	s := status.Convert(err)
	return &peerv1.FetchError{Code: int32(s.Code()), Message: s.Message(), RetryAfterNs: int64(retryDelay(s))}
}

// FromFetchError is the inverse of ToFetchError. It truncates the text.
func FromFetchError(e *peerv1.FetchError) error {
	s := status.New(codes.Code(e.GetCode()), truncate(e.GetMessage()))
	return withRetry(s, time.Duration(e.GetRetryAfterNs())).Err()
}

// Encode converts an error of a dataset to the status in a WriteBatchResponse.
func Encode(err error) []byte {
	b, failed := proto.Marshal(status.Convert(ToStatus(err)).Proto())
	if failed != nil {
		return []byte{} // texts are valid UTF-8: see truncate
	}
	return b
}

// Decode is the inverse of Encode, for an answer of another member. What cannot be decoded is an unknown outcome.
func Decode(b []byte) error {
	var s spb.Status
	if err := proto.Unmarshal(b, &s); err != nil || s.GetCode() == int32(codes.OK) {
		return status.Error(codes.Internal, "the member has sent no valid outcome")
	}
	return status.FromProto(&s).Err()
}

// Overloaded is the error of a call that a limit refuses.
func Overloaded(err error) *kv.Error {
	return &kv.Error{Kind: kv.KindOverloaded, RetryAfter: retryAfter, Err: err}
}

// UnknownOutcome is the error of a write that was sent and not answered.
func UnknownOutcome(err error) *kv.Error {
	return &kv.Error{Kind: kv.KindUnknown, RetryAfter: retryAfter, Err: err}
}

// truncate makes the text of an error safe for a header and for a log.
func truncate(text string) string { return printable.Text(text) }

func withRetry(s *status.Status, after time.Duration) *status.Status {
	if after <= 0 {
		return s
	}
	return withDetail(s, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
}

// withValueError adds the name of the invalid column.
func withValueError(s *status.Status, err error) *status.Status {
	invalid := &origin.ValueError{Reason: kv.Reason(err)}
	errors.As(err, &invalid)
	return withViolation(s, &errdetails.BadRequest_FieldViolation{
		Field: truncate(invalid.Column), Description: truncate(invalid.Reason),
	})
}

func withViolation(s *status.Status, v *errdetails.BadRequest_FieldViolation) *status.Status {
	return withDetail(s, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{v}})
}

func withDetail(s *status.Status, detail protoadapt.MessageV1) *status.Status {
	detailed, err := s.WithDetails(detail)
	if err != nil {
		return s
	}
	return detailed
}

// writeError returns the error in the value or the id of a write that s reports, or nil.
func writeError(s *status.Status) *kv.Error {
	if s.Code() != codes.InvalidArgument {
		return nil
	}
	for _, d := range s.Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok && len(bad.GetFieldViolations()) > 0 {
			first := bad.GetFieldViolations()[0]
			if first.GetReason() == reasonIDReused {
				return &kv.Error{Kind: kv.KindIDReused, Err: errors.New(truncate(first.GetDescription()))}
			}
			return &kv.Error{Kind: kv.KindInvalidValue,
				Err: &origin.ValueError{Column: truncate(first.GetField()), Reason: truncate(first.GetDescription())}}
		}
	}
	return nil
}

// dataError returns the data error that s reports, or nil.
func dataError(s *status.Status) *kv.Error {
	if s.Code() != codes.Aborted {
		return nil
	}
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetReason() == reasonDataError {
			cause, _ := strconv.ParseUint(info.GetMetadata()["cause"], 10, 8) // 0 if it is none
			if cause == 0 {
				cause = uint64(origin.UnknownCause)
			}
			return &kv.Error{Kind: kv.KindDataError, Err: &origin.DataError{
				Cause: min(origin.DataCause(cause), origin.UnknownCause), Text: truncate(s.Message())}}
		}
	}
	return nil
}

// retryDelay returns the delay in the RetryInfo of s, or 0.
func retryDelay(s *status.Status) time.Duration {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return min(max(0, info.GetRetryDelay().AsDuration()), maxRetryAfter)
		}
	}
	return 0
}
