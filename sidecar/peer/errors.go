package peer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ringside-cache/ringside/sidecar/cache"
)

const (
	// retryAfter is what a caller is told when a bound of this package was reached.
	retryAfter = time.Second
	// maxErrorBytes bounds the text of an error on the wire: it travels in a header.
	maxErrorBytes = 512
)

// wire is the one table of errors between members. Rows that are answers keep their kind on the way; the caller of any
// other row asks elsewhere.
var wire = []struct {
	kind   cache.Kind
	code   codes.Code
	answer bool
}{
	{cache.KindInvalidKey, codes.InvalidArgument, true},
	{cache.KindNotCached, codes.OutOfRange, true},
	{cache.KindOverloaded, codes.ResourceExhausted, true},
	{cache.KindUnavailable, codes.Aborted, true},
	{cache.KindDeadline, codes.DeadlineExceeded, false},
	{cache.KindCanceled, codes.Canceled, false},
	{cache.KindInternal, codes.Internal, false},
}

// toStatus turns an error of a dataset into one for the wire.
func toStatus(err error) error {
	code := codes.Internal
	for _, row := range wire {
		if row.kind == cache.KindOf(err) {
			code = row.code
		}
	}
	text := err.Error()
	return withRetry(status.New(code, text[:min(len(text), maxErrorBytes)]), cache.RetryAfter(err)).Err()
}

func withRetry(s *status.Status, after time.Duration) *status.Status {
	if after <= 0 {
		return s
	}
	detailed, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	if err != nil {
		return s
	}
	return detailed
}

// fromStatus turns the answers among the errors of a call back into those of a dataset; nil when it is not an answer.
func fromStatus(s *status.Status) *cache.Error {
	for _, row := range wire {
		if row.answer && row.code == s.Code() {
			return &cache.Error{Kind: row.kind, RetryAfter: retryDelay(s), Err: errors.New(s.Message())}
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
	if e := fromStatus(s); e != nil {
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
	case cause != nil && alive:
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
