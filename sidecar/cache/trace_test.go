package cache

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/ringside-cache/ringside/origin/origintest"
	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
	"github.com/ringside-cache/ringside/sidecar/kv"
)

// noHeader is a request without a traceparent.
type noHeader struct{}

func (noHeader) Joined(string) string { return "" }

// traced returns the context of a traced request, and its span.
func newTraces() (begin func() (context.Context, *tracing.Span), ended func() []string, recorder *tracetest.SpanRecorder) {
	recorder = tracetest.NewSpanRecorder()
	tracer := tracing.New(sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder)).Tracer("test"), tracing.Ratio(1, true))
	begin = func() (context.Context, *tracing.Span) {
		return tracing.Request(context.Background(), tracer, noHeader{}, tracing.Server, "request", time.Now())
	}
	ended = func() (names []string) {
		for _, s := range recorder.Ended() {
			names = append(names, s.Name())
		}
		return names
	}
	return begin, ended, recorder
}

func TestReadersOfOneLoadLinkToIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(map[string]string{"k": "v"})
		d := newDataset(t, o, nil, testPolicy())
		begin, _, recorder := newTraces()
		release := o.Block()
		var running sync.WaitGroup
		for range 3 {
			running.Go(func() {
				ctx, span := begin()
				if _, err := d.Get(ctx, "k", kv.ReadOptions{}); err != nil {
					t.Error(err)
				}
				span.End()
			})
			synctest.Wait()
		}
		release()
		running.Wait()
		synctest.Wait()
		var load sdk.ReadOnlySpan
		links := 0
		for _, s := range recorder.Ended() {
			if s.Name() == "load test" {
				load = s
			}
		}
		if load == nil {
			t.Fatal("there is no load")
		}
		for _, s := range recorder.Ended() {
			for _, l := range s.Links() {
				if links++; l.SpanContext.SpanID() != load.SpanContext().SpanID() {
					t.Errorf("%s links to another span", s.Name())
				}
			}
		}
		if links != 2 || len(recorder.Ended()) != 4 {
			t.Errorf("got %d links in %d spans, want 2 in 4", links, len(recorder.Ended()))
		}
		if x := d.Stats().LoadTime.Exemplars.Exemplars(); len(x) != 1 || x[0].TraceID != [16]byte(load.SpanContext().TraceID()) {
			t.Errorf("the exemplar of the load is %+v", x)
		}
	})
}

func TestReadOfAnotherMembersKeyIsTraced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 2, origintest.New(map[string]string{"k": "v"}), testPolicy())
		begin, ended, _ := newTraces()
		ctx, span := begin()
		if _, err := c.members[1].Get(ctx, "k", kv.ReadOptions{}); err != nil {
			t.Fatal(err)
		}
		span.End()
		synctest.Wait()
		if got, want := ended(), []string{"load test", "fetch from member", "fetch test", "request"}; !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
			t.Errorf("got the spans %v, want %v", got, want)
		}
	})
}

func TestErrorOfATracedReadHasTheTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := origintest.New(nil)
		o.Fail(errors.New("down"))
		d := newDataset(t, o, nil, testPolicy())
		begin, _, _ := newTraces()
		ctx, span := begin()
		traceID, spanID := span.IDs()
		_, err := d.Get(ctx, "k", kv.ReadOptions{})
		traced, ok := errors.AsType[*kv.TracedError](err)
		if !ok || traced.TraceID != traceID || traced.SpanID != spanID || kv.KindOf(err) != kv.KindUnavailable {
			t.Errorf("got %v with %+v", err, traced)
		}
		if _, err := d.Get(t.Context(), "k", kv.ReadOptions{}); errors.As(err, &traced) {
			t.Errorf("a read that is not traced has %+v", traced)
		}
	})
}
