package peer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/sidecar/cache"
)

const (
	// retryAfter is what a caller is told when a bound of this package was reached.
	retryAfter = time.Second
	// maxErrorBytes bounds the text of an error on the wire: it travels in a header.
	maxErrorBytes = 512
	// reasonIDReused is the reason of the violation that tells cache.KindIDReused from KindInvalidValue.
	reasonIDReused = "IDEMPOTENCY_ID_REUSED"
)

// answersTo says to which calls an error is the member's answer.
type answersTo uint8

const (
	toFetch answersTo = 1 << iota
	toWrite
	toNone answersTo = 0
)

// wire is the one table of errors between members. Rows that are answers keep their kind on the way. The caller of a
// fetch asks elsewhere after any other row; that of a write does not know what came of it.
var wire = []struct {
	kind   cache.Kind
	code   codes.Code
	answer answersTo
}{
	{cache.KindInvalidKey, codes.InvalidArgument, toFetch | toWrite},
	{cache.KindInvalidValue, codes.InvalidArgument, toNone}, // told from the row above by its details; see badValue
	{cache.KindIDReused, codes.InvalidArgument, toNone},     // likewise, by the reason in its details
	{cache.KindNotCached, codes.OutOfRange, toFetch},
	{cache.KindOverloaded, codes.ResourceExhausted, toFetch | toWrite},
	{cache.KindUnavailable, codes.Aborted, toFetch | toWrite},
	{cache.KindReadOnly, codes.FailedPrecondition, toWrite},
	{cache.KindConflict, codes.AlreadyExists, toWrite},
	{cache.KindUnknown, codes.Unknown, toWrite},
	{cache.KindDeadline, codes.DeadlineExceeded, toNone},
	{cache.KindCanceled, codes.Canceled, toNone},
	{cache.KindInternal, codes.Internal, toNone},
}

// toStatus turns an error of a dataset into one for the wire.
func toStatus(err error) error {
	kind, code := cache.KindOf(err), codes.Internal
	for _, row := range wire {
		if row.kind == kind {
			code = row.code
		}
	}
	s := withRetry(status.New(code, cut(err.Error())), cache.RetryAfter(err))
	switch kind {
	case cache.KindInvalidValue:
		s = withValue(s, err)
	case cache.KindIDReused:
		s = with(s, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Description: cut(err.Error()), Reason: reasonIDReused},
		}})
	}
	return s.Err()
}

func cut(text string) string { return strings.ToValidUTF8(text[:min(len(text), maxErrorBytes)], "") }

func withRetry(s *status.Status, after time.Duration) *status.Status {
	if after <= 0 {
		return s
	}
	return with(s, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
}

// withValue says which column is wrong.
func withValue(s *status.Status, err error) *status.Status {
	wrong := &origin.ValueError{Reason: err.Error()}
	errors.As(err, &wrong)
	return with(s, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: cut(wrong.Column), Description: cut(wrong.Reason)},
	}})
}

func with(s *status.Status, detail protoadapt.MessageV1) *status.Status {
	detailed, err := s.WithDetails(detail)
	if err != nil {
		return s
	}
	return detailed
}

// fromStatus turns the answers among the errors of a call back into those of a dataset; nil when it is not an answer.
func fromStatus(s *status.Status, call answersTo) *cache.Error {
	wrong := badValue(s)
	switch {
	case call == toWrite && wrong != nil:
		return wrong
	case call == toWrite && s.Code() == codes.ResourceExhausted && retryDelay(s) == 0: //guard:grpcs-own-resourceexhausted-says-nothing-written
		return nil // grpc's own: perhaps the answer was too large
	}
	for _, row := range wire {
		if row.answer&call != 0 && row.code == s.Code() {
			return &cache.Error{Kind: row.kind, RetryAfter: retryDelay(s), Err: errors.New(s.Message())}
		}
	}
	return nil
}

// badValue returns what is wrong with the value or the id of a write; nil if the error is about neither.
func badValue(s *status.Status) *cache.Error {
	if s.Code() != codes.InvalidArgument {
		return nil
	}
	for _, d := range s.Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok && len(bad.GetFieldViolations()) > 0 {
			first := bad.GetFieldViolations()[0]
			if first.GetReason() == reasonIDReused {
				return &cache.Error{Kind: cache.KindIDReused, Err: errors.New(first.GetDescription())}
			}
			return &cache.Error{Kind: cache.KindInvalidValue,
				Err: &origin.ValueError{Column: first.GetField(), Reason: first.GetDescription()}}
		}
	}
	return nil
}

func retryDelay(s *status.Status) time.Duration {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			return max(0, info.GetRetryDelay().AsDuration())
		}
	}
	return 0
}

// failure classes what came of a call that began at began instead of an answer.
func (p *peer) failure(ctx context.Context, began time.Duration, err error) error {
	s := status.Convert(err)
	if e := fromStatus(s, toFetch); e != nil {
		p.hear()
		e.Err = p.about(e.Err)
		return e
	}
	if s.Code() == codes.Unavailable {
		p.fail()
	}
	alive := time.Duration(p.heard.Load()) >= began
	switch cause := ended(ctx); {
	case errors.Is(cause, context.Canceled):
		return &cache.Error{Kind: cache.KindCanceled, Err: p.about(cause)}
	case cause != nil && alive: //guard:slow-database-asked-successor-too
		return &cache.Error{Kind: cache.KindDeadline, Err: p.about(fmt.Errorf("it is alive but slow: %w", cause))}
	}
	return p.unreachable(errors.New(s.Message()))
}

// ended is ctx.Err, but for a deadline that has passed while its timer has not fired yet: the member's own timer may be
// the quicker one.
func ended(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

func (p *peer) unreachable(why error) error {
	p.pool.counters.unreachable.Add(1)
	return p.about(fmt.Errorf("%w: %w", cache.ErrUnreachable, why))
}
