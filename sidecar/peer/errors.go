package peer

import (
	"context"
	"errors"
	"fmt"
	"github.com/ringside-cache/ringside/ring"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ringside-cache/ringside/sidecar/kv"
	"github.com/ringside-cache/ringside/sidecar/peer/peererror"
)

// errUnimplemented is the error of a call that the member's release does not have.
var errUnimplemented = errors.New("its release does not have this call")

// fetchError classifies the error of a fetch. The end of ctx is no error of the member: the caller knows whether there is time
// to ask another one.
func (p *peer) fetchError(ctx context.Context, err error) error {
	s := status.Convert(err)
	if e := peererror.FromStatus(s, peererror.Fetch); e != nil {
		p.hear()
		e.Err = p.annotate(e.Err)
		return e
	}
	switch s.Code() {
	case codes.Unavailable:
		p.countFailure()
	case codes.Unimplemented:
		return p.unreachable(errUnimplemented)
	}
	switch cause := contextErr(ctx); {
	case errors.Is(cause, context.Canceled):
		return &kv.Error{Kind: kv.KindCanceled, Err: p.annotate(cause)}
	case cause != nil: //guard:end-of-request-counts-as-unreachable
		return &kv.Error{Kind: kv.KindDeadline, Err: p.annotate(cause)}
	}
	return p.unreachable(errors.New(s.Message()))
}

// contextErr is ctx.Err, and also reports a deadline that has passed before the timer of ctx fires: the member's own timer
// may fire first.
func contextErr(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// writeError classifies the error of a write. sent: gRPC created a stream to the member.
func (p *peer) writeError(err error, sent bool) error {
	s := status.Convert(err)
	if e := peererror.FromStatus(s, peererror.Write); e != nil {
		p.hear()
		e.Err = p.annotate(e.Err)
		return e
	}
	if s.Code() == codes.Unavailable {
		p.countFailure()
	}
	//guard:write-sent-to-two-members
	if !sent || s.Code() == codes.NotFound { // another member may have the dataset
		return p.unreachable(errors.New(s.Message()))
	}
	return peererror.UnknownOutcome(p.annotate(
		fmt.Errorf("the write was sent, and its outcome is unknown: %s", s.Message())))
}

func (p *peer) unreachable(why error) error {
	p.pool.counters.unreachable.Add(1)
	return p.annotate(fmt.Errorf("%w: %w", kv.ErrUnreachable, why))
}

// annotate adds the member to err.
func (p *peer) annotate(err error) error {
	return annotate(p.member, err)
}

func annotate(m ring.Member, err error) error {
	return fmt.Errorf("member %s at %s: %w", m.ID, m.Addr, err)
}
