package otlp

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/trace"

	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
)

func TestSettings(t *testing.T) {
	const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"
	for name, c := range map[string]struct {
		env     map[string]string
		on      bool
		problem string
	}{
		"nothing":        {},
		"empty":          {env: map[string]string{endpoint: " "}},
		"endpoint":       {env: map[string]string{endpoint: "http://x:4318"}, on: true},
		"of traces":      {env: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x:4318"}, on: true},
		"exporter":       {env: map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, on: true},
		"none":           {env: map[string]string{endpoint: "http://x:4318", "OTEL_TRACES_EXPORTER": "none"}},
		"disabled":       {env: map[string]string{endpoint: "http://x:4318", "OTEL_SDK_DISABLED": "TRUE"}},
		"other exporter": {env: map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}, problem: "OTEL_TRACES_EXPORTER"},
		"protocol":       {env: map[string]string{endpoint: "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, problem: "PROTOCOL"},
		"sampler":        {env: map[string]string{endpoint: "http://x", "OTEL_TRACES_SAMPLER": "xray"}, problem: "OTEL_TRACES_SAMPLER"},
		"ratio": {env: map[string]string{endpoint: "http://x", "OTEL_TRACES_SAMPLER": "traceidratio",
			"OTEL_TRACES_SAMPLER_ARG": "2"}, problem: "OTEL_TRACES_SAMPLER_ARG"},
		"queue": {env: map[string]string{endpoint: "http://x", "OTEL_BSP_MAX_QUEUE_SIZE": "many"}, problem: "OTEL_BSP_MAX_QUEUE_SIZE"},
	} {
		_, on, err := settingsOf(func(name string) string { return c.env[name] })
		if on != c.on || (err != nil) != (c.problem != "") || err != nil && !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: got %v, %v; want %v, %q", name, on, err, c.on, c.problem)
		}
	}
	s, _, err := settingsOf(func(name string) string {
		return map[string]string{endpoint: "http://x", "OTEL_BSP_MAX_QUEUE_SIZE": "999999999", "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
			"OTEL_TRACES_SAMPLER_ARG": "0.5"}[name]
	})
	if err != nil || s.maxQueue != mostQueue || s.sampler != tracing.Ratio(.5, true) {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestNothingStartsWithoutVariables(t *testing.T) {
	e, err := Open(t.Context(), Identity{}, nil)
	if e != nil || err != nil {
		t.Errorf("got %v, %v; want nothing", e, err)
	}
	e.Close(t.Context())
}

// header is a traceparent.
type header string

func (h header) Joined(name string) string {
	if name == tracing.ParentField {
		return string(h)
	}
	return ""
}

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestExporterSendsOverHTTP(t *testing.T) {
	paths := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { paths <- r.URL.Path }))
	defer server.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	e, err := Open(t.Context(), Identity{"node", "v1"}, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []header{parent, ""} { // continued, and begun
		_, span := tracing.Request(t.Context(), e.Tracer, h, tracing.Server, "request", time.Now())
		span.End()
	}
	e.Close(t.Context())
	if path := <-paths; path != "/v1/traces" {
		t.Errorf("got %q", path)
	}
	if s := e.Stats(); s != (Stats{Exported: 2, MaxWaiting: DefaultMaxQueue}) {
		t.Errorf("got %+v", s)
	}
}

// stuck is an exporter whose collector does not answer, and then fails.
type stuck struct{ release chan struct{} }

func (s stuck) ExportSpans(context.Context, []sdk.ReadOnlySpan) error {
	<-s.release
	return errors.New("no answer")
}

func (stuck) Shutdown(context.Context) error { return nil }

func TestSpansThatWaitHaveALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failures := 0
		exporter := stuck{make(chan struct{})}
		q, sender := newQueue(exporter, 10, func(error) { failures++ })
		provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(q))
		tracer := tracing.New(provider.Tracer("test"), tracing.Ratio(1, true))
		for range 100 {
			_, span := tracing.Request(t.Context(), tracer, header(parent), tracing.Server, "request", time.Now())
			span.End()
			synctest.Wait()
		}
		if waiting, dropped := q.waiting.Load(), q.dropped.Load(); waiting != 10 || dropped != 90 {
			t.Errorf("%d spans wait and %d are dropped, want 10 and 90", waiting, dropped)
		}
		close(exporter.release)
		if err := provider.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if waiting, failed := q.waiting.Load(), sender.failed.Load(); waiting != 0 || failed != 10 || failures == 0 {
			t.Errorf("%d spans wait and %d failed, %d reports; want 0 and 10", waiting, failed, failures)
		}
	})
}
