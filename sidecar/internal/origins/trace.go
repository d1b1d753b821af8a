package origins

import (
	"context"

	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// traceparent returns what the comment of a statement names.
func traceparent(ctx context.Context) string {
	parent, _ := tracing.Propagation(ctx)
	return parent
}

// traced gives an error the ids of the trace of ctx, for the log.
func traced(ctx context.Context, err error) error {
	span := tracing.From(ctx)
	if span == nil {
		return err
	}
	traceID, spanID := span.IDs()
	return &kv.TracedError{Err: err, TraceID: traceID, SpanID: spanID}
}

// statements implements guard.Tracer for a dataset.
type statements struct{ dataset, driver string }

// Traced implements guard.Tracer.
func (statements) Traced(ctx context.Context) bool { return tracing.From(ctx) != nil }

// Begin implements guard.Tracer. The statement is part of the trace of the first caller, and the loads of the others link to it.
func (s statements) Begin(ctx context.Context, callers []context.Context, n int) (context.Context, func(error)) {
	span := tracing.From(callers[0]).Child(tracing.Client, "query "+s.dataset)
	span.Set(tracing.Dataset, s.dataset)
	span.Set("db.system.name", systemOf(s.driver))
	span.SetInt(tracing.Keys, n)
	for _, other := range callers[1:] {
		tracing.From(other).Link(span)
	}
	return span.Into(ctx), func(err error) {
		if err != nil {
			span.Fail(kv.KindOf(err).String())
		}
		span.End()
	}
}

// systemOf returns the name that OpenTelemetry has for the databases of a driver.
func systemOf(driver string) string {
	if driver == "postgres" {
		return "postgresql"
	}
	return driver
}
