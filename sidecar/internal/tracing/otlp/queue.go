package otlp

import (
	"context"
	"sync/atomic"

	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// queue is a sdk.SpanProcessor that limits and counts the spans that wait in the one of the SDK, which drops silently.
type queue struct {
	sdk.SpanProcessor
	max              int64
	waiting, dropped atomic.Int64
}

// newQueue returns a queue of at most limit spans, those that are being sent included. failed is called with the error of each
// export that fails.
func newQueue(exporter sdk.SpanExporter, limit int, failed func(error)) (*queue, *sender) {
	q := &queue{max: int64(limit)}
	s := &sender{SpanExporter: exporter, queue: q, report: failed}
	q.SpanProcessor = sdk.NewBatchSpanProcessor(s, sdk.WithMaxQueueSize(limit))
	return q, s
}

// OnEnd implements sdk.SpanProcessor. It never waits.
func (q *queue) OnEnd(s sdk.ReadOnlySpan) {
	if q.waiting.Add(1) > q.max { //guard:spans-without-limit
		q.waiting.Add(-1)
		q.dropped.Add(1)
		return
	}
	q.SpanProcessor.OnEnd(s)
}

// sender is the sdk.SpanExporter of a queue.
type sender struct {
	sdk.SpanExporter
	queue            *queue
	report           func(error)
	exported, failed atomic.Int64
}

// ExportSpans implements sdk.SpanExporter. It returns no error: the SDK would write it to stderr, in a form of its own.
func (s *sender) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := s.SpanExporter.ExportSpans(ctx, spans)
	s.queue.waiting.Add(-int64(len(spans)))
	if err != nil {
		s.failed.Add(int64(len(spans)))
		s.report(err)
		return nil
	}
	s.exported.Add(int64(len(spans)))
	return nil
}
