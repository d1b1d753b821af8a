package cache

import (
	"context"

	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// flightSpan returns the span of a flight that a reader may start, below that of the reader. It is exported only if the flight starts.
func (f *fetcher) flightSpan(reader *tracing.Span, fetches bool, keys int) *tracing.Span {
	if reader == nil { // the name needs memory
		return nil
	}
	name := "load "
	if fetches {
		name = "fetch "
	}
	span := reader.Child(tracing.Internal, name+f.name)
	span.Set(tracing.Dataset, f.name)
	span.SetInt(tracing.Keys, keys)
	return span
}

// joined links a reader to the flight that it waits for, if another one has started that: both belong to the traces of their own
// requests.
func joined(reader, mine *tracing.Span, call *call) {
	if reader == nil {
		return
	}
	if other, _ := call.By().(*tracing.Span); other != mine {
		reader.Link(other) //guard:waiters-do-not-link-to-their-load
	}
}

// requestSpan returns the span of a request to another member, below that of ctx.
func (c *core) requestSpan(ctx context.Context, what string, peer kv.Peer) *tracing.Span {
	span := tracing.From(ctx)
	if span == nil {
		return nil
	}
	span = span.Child(tracing.Client, what+" member")
	span.Set(tracing.Dataset, c.name)
	span.Set("ringside.member", peer.ID())
	return span
}

// fail marks a span with the kind of an error; "not found" is none.
func fail(span *tracing.Span, err error) {
	if span != nil && err != nil {
		span.Fail(kv.KindOf(err).String())
	}
}

// traced gives an error the ids of the trace of ctx, for the log.
func traced(ctx context.Context, err error) error {
	if span := tracing.From(ctx); err != nil && span != nil {
		traceID, spanID := span.IDs()
		return &kv.TracedError{Err: err, TraceID: traceID, SpanID: spanID}
	}
	return err
}
