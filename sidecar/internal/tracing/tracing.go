// Package tracing makes the spans of requests: W3C Trace Context in, OpenTelemetry out. A request that is not sampled costs a look
// at its traceparent and no allocation. Package otlp exports the spans.
//
// A span has no key and no value: keys may be personal data, and traces leave the cluster. It has names of datasets, members and
// origins, counts, and kinds of errors.
package tracing

import (
	"context"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// maxStateBytes limits the tracestate that is kept and sent on: the least that each member of a trace must propagate (W3C Trace
// Context, 3.3.1.5). A longer one is dropped.
const maxStateBytes = 512

// Tracer makes the spans of requests. A nil Tracer makes none. It is safe for concurrent use.
type Tracer struct {
	tracer  trace.Tracer
	sampler Sampler
}

// New returns a Tracer whose spans are those of t, which must record each that it starts: the Sampler has decided.
func New(t trace.Tracer, s Sampler) *Tracer { return &Tracer{t, s} }

// Followed returns a Tracer of the same spans that begins no trace, for requests of other members: those have decided.
func (t *Tracer) Followed() *Tracer {
	if t == nil {
		return nil
	}
	return &Tracer{t.tracer, Sampler{FollowParent: true}}
}

// Header gives access to the fields of a request's header. Several lines of a field are joined with commas.
type Header interface {
	Joined(name string) string
}

// The names of the fields, in the form in which HTTP/2 and gRPC have them.
const (
	ParentField = "traceparent"
	StateField  = "tracestate"
)

// Request starts the span of a request that has arrived at a time, and returns a context with it: ctx and nil if it is not sampled.
// The Header is not kept.
func Request[H Header](ctx context.Context, t *Tracer, h H, kind Kind, name string, began time.Time) (context.Context, *Span) {
	if t == nil {
		return ctx, nil
	}
	parent, hasParent := ParseParent(h.Joined(ParentField))
	begun, sampled := t.sampler.sample(parent, hasParent)
	if !sampled { //guard:request-that-is-not-sampled-gets-a-span
		return ctx, nil
	}
	return t.start(ctx, parent, h.Joined(StateField), begun, kind, name, began)
}

func (t *Tracer) start(ctx context.Context, parent Parent, state string, begun trace.TraceID, kind Kind, name string,
	began time.Time,
) (context.Context, *Span) {
	under := context.Background()
	if parent.TraceID.IsValid() {
		of := trace.SpanContextConfig{TraceID: parent.TraceID, SpanID: parent.SpanID, TraceFlags: trace.FlagsSampled, Remote: true}
		if len(state) <= maxStateBytes { //guard:long-tracestate-is-kept
			// A malformed one is ignored (3.3). It may lie in the buffer of a connection.
			of.TraceState, _ = trace.ParseTraceState(strings.Clone(state)) //guard:tracestate-in-a-buffer-is-kept
		}
		under = trace.ContextWithRemoteSpanContext(under, trace.NewSpanContext(of))
	} else {
		under = context.WithValue(under, idKey{}, begun)
	}
	_, span := t.tracer.Start(under, name, trace.WithSpanKind(kind), trace.WithTimestamp(began))
	s := &Span{t.tracer, span}
	return s.Into(ctx), s
}

type idKey struct{}

// BegunTrace returns the id of the trace that Request has decided to begin.
func BegunTrace(ctx context.Context) (trace.TraceID, bool) {
	id, ok := ctx.Value(idKey{}).(trace.TraceID)
	return id, ok
}

// Span is a part of a sampled request. All methods of a nil Span do nothing. It is safe for concurrent use.
type Span struct {
	tracer trace.Tracer
	span   trace.Span
}

// Kind is what a span is in its trace.
type Kind = trace.SpanKind

// The kinds of spans.
const (
	Server   = trace.SpanKindServer   // a request that has come over the network
	Client   = trace.SpanKindClient   // a request to another member, or a statement
	Internal = trace.SpanKindInternal // work that several requests may share
)

type spanKey struct{}

// Into returns a context with the span.
func (s *Span) Into(ctx context.Context) context.Context {
	if s == nil {
		return ctx
	}
	return context.WithValue(ctx, spanKey{}, s)
}

// From returns the span of a context; nil if it has none.
func From(ctx context.Context) *Span {
	s, _ := ctx.Value(spanKey{}).(*Span)
	return s
}

// Child starts a span below s.
func (s *Span) Child(kind Kind, name string) *Span {
	if s == nil {
		return nil
	}
	_, span := s.tracer.Start(trace.ContextWithSpan(context.Background(), s.span), name, trace.WithSpanKind(kind))
	return &Span{s.tracer, span}
}

// Link says that s has waited for, or caused, the work of other, which may belong to another trace.
func (s *Span) Link(other *Span) {
	if s != nil && other != nil {
		s.span.AddLink(trace.Link{SpanContext: other.span.SpanContext()})
	}
}

// Set adds an attribute.
func (s *Span) Set(name, value string) {
	if s != nil {
		s.span.SetAttributes(attribute.String(name, value))
	}
}

// SetInt adds an attribute.
func (s *Span) SetInt(name string, value int) {
	if s != nil {
		s.span.SetAttributes(attribute.Int(name, value))
	}
}

// The attributes of more than one place.
const (
	Dataset = "ringside.dataset"
	Keys    = "ringside.keys" // how many
	Source  = "ringside.source"
)

// Rename replaces the name that the span began with.
func (s *Span) Rename(name string) {
	if s != nil {
		s.span.SetName(name)
	}
}

// Fail marks the span as failed, with the kind of the error: its text may have keys and values, and is in the log.
func (s *Span) Fail(kind string) {
	if s != nil {
		s.span.SetAttributes(attribute.String("error.type", kind))
		s.span.SetStatus(codes.Error, "")
	}
}

// End ends the span. A span that does not end is not exported.
func (s *Span) End() {
	if s != nil {
		s.span.End()
	}
}

// Propagation returns the fields that make the receiver of a request continue the trace of ctx; empty if it is not traced.
func Propagation(ctx context.Context) (parent, state string) {
	s := From(ctx)
	if s == nil {
		return "", ""
	}
	c := s.span.SpanContext()
	return format(c), c.TraceState().String()
}

// IDs returns the ids of the trace and of the span.
func (s *Span) IDs() (traceID, spanID string) {
	c := s.span.SpanContext()
	return c.TraceID().String(), c.SpanID().String()
}

// Histogram keeps the latest trace of each of its buckets.
type Histogram interface {
	Exemplify(d time.Duration, traceID [16]byte, spanID [8]byte)
}

// Exemplify makes the span an example of a duration that h has counted.
func (s *Span) Exemplify(h Histogram, d time.Duration) {
	if s != nil {
		c := s.span.SpanContext()
		h.Exemplify(d, c.TraceID(), c.SpanID())
	}
}
