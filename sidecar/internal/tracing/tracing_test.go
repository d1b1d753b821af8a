package tracing_test

import (
	"context"
	"encoding/binary"
	"strings"
	"testing"
	"time"
	"unsafe"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
)

// header is the header of a request.
type header map[string]string

func (h header) Joined(name string) string { return h[name] }

const (
	sampledParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	otherParent   = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
)

func newTracer(s tracing.Sampler) (*tracing.Tracer, *tracetest.SpanRecorder) {
	recorder := tracetest.NewSpanRecorder()
	return tracing.New(sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder)).Tracer("test"), s), recorder
}

func begin(t *tracing.Tracer, h header) (context.Context, *tracing.Span) {
	return tracing.Request(context.Background(), t, h, tracing.Server, "request", time.Now())
}

func TestSamplerDecides(t *testing.T) {
	for name, want := range map[string]struct {
		sampler                     tracing.Sampler
		sampled, notSampled, absent bool
	}{
		"parentbased_always_on":  {tracing.Ratio(1, true), true, false, true},
		"parentbased_always_off": {tracing.Ratio(0, true), true, false, false},
		"always_on":              {tracing.Ratio(1, false), true, true, true},
		"always_off":             {tracing.Ratio(0, false), false, false, false},
	} {
		tracer, _ := newTracer(want.sampler)
		for parent, sampled := range map[string]bool{
			sampledParent: want.sampled, otherParent: want.notSampled, "": want.absent, "malformed": want.absent,
		} {
			if _, span := begin(tracer, header{"traceparent": parent}); (span != nil) != sampled {
				t.Errorf("%s, %q: got a span: %v, want %v", name, parent, span != nil, sampled)
			}
		}
		if _, span := begin(tracer.Followed(), header{}); span != nil {
			t.Errorf("%s: another member begins a trace", name)
		}
	}
	var off *tracing.Tracer
	if _, span := begin(off.Followed(), header{"traceparent": sampledParent}); span != nil {
		t.Error("there is a span without a tracer")
	}
}

// Services with the same share sample the same traces.
func TestRatioIsThatOfOpenTelemetry(t *testing.T) {
	tracer, _ := newTracer(tracing.Ratio(.25, false))
	theirs, n := sdk.TraceIDRatioBased(.25), 0
	for i := range uint64(1000) {
		var id trace.TraceID
		binary.BigEndian.PutUint64(id[8:], i*0x9E3779B97F4A7C15+1)
		_, span := begin(tracer, header{"traceparent": "00-" + id.String() + "-b7ad6b7169203331-00"})
		want := theirs.ShouldSample(sdk.SamplingParameters{TraceID: id}).Decision == sdk.RecordAndSample
		if (span != nil) != want {
			t.Fatalf("%s: got %v, want %v", id, span != nil, want)
		}
		if want {
			n++
		}
	}
	if n < 200 || n > 300 {
		t.Errorf("%d of 1000 are sampled", n)
	}
}

func TestSpansFormATrace(t *testing.T) {
	tracer, recorder := newTracer(tracing.Ratio(0, true))
	ctx, root := begin(tracer, header{"traceparent": sampledParent, "tracestate": "vendor=1"})
	if tracing.From(ctx) != root {
		t.Fatal("the context does not have the span")
	}
	parent, state := tracing.Propagation(ctx)
	if !strings.HasPrefix(parent, sampledParent[:36]) || !strings.HasSuffix(parent, "-01") || parent == sampledParent || state != "vendor=1" {
		t.Errorf("got %q, %q", parent, state)
	}
	child := root.Child(tracing.Internal, "load")
	child.Set(tracing.Dataset, "rows")
	child.Fail("unavailable")
	child.End()
	root.Link(child)
	root.Rename("renamed")
	root.End()
	spans := recorder.Ended()
	if len(spans) != 2 || spans[0].Parent().SpanID() != spans[1].SpanContext().SpanID() || spans[1].Name() != "renamed" ||
		len(spans[1].Links()) != 1 {
		t.Errorf("got %v", spans)
	}
}

func TestTraceStateHasALimit(t *testing.T) {
	tracer, _ := newTracer(tracing.Ratio(0, true))
	for state, want := range map[string]string{
		"a=1,b=2": "a=1,b=2", "malformed": "", "a=" + strings.Repeat("x", 600): "", "a=" + strings.Repeat("x", 250) + ",b=" + strings.Repeat("x", 250) + ",c=" + strings.Repeat("x", 9): "",
	} {
		ctx, _ := begin(tracer, header{"traceparent": sampledParent, "tracestate": state})
		if _, got := tracing.Propagation(ctx); got != want {
			t.Errorf("%.20q: got %q, want %q", state, got, want)
		}
	}
}

// The field may lie in the buffer of a connection, which the next request overwrites.
func TestTraceStateIsCopied(t *testing.T) {
	tracer, _ := newTracer(tracing.Ratio(0, true))
	ctx, _ := tracing.Request(context.Background(), tracer, overwriting{}, tracing.Server, "request", time.Now())
	overwritten(0)
	if _, got := tracing.Propagation(ctx); got != "vendor=1" {
		t.Errorf("got %q", got)
	}
}

var buffer = []byte("vendor=1")

func overwritten(with byte) {
	for i := range buffer {
		buffer[i] = with
	}
}

// overwriting is a header in a buffer.
type overwriting struct{}

func (overwriting) Joined(name string) string {
	if name == tracing.ParentField {
		return sampledParent
	}
	return unsafe.String(&buffer[0], len(buffer))
}

func TestRequestThatIsNotSampledAllocatesNothing(t *testing.T) {
	ratio, _ := newTracer(tracing.Ratio(0, true))
	for name, h := range map[string]header{"parent": {"traceparent": otherParent, "tracestate": "a=1"}, "none": {}} {
		ctx := context.Background()
		n := testing.AllocsPerRun(100, func() {
			_, span := tracing.Request(ctx, ratio, h, tracing.Server, "request", time.Time{})
			span.Set(tracing.Dataset, "rows")
			span.Child(tracing.Internal, "load").End()
			span.End()
		})
		if n > 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
}
