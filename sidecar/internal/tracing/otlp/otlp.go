// Package otlp exports spans to an OpenTelemetry collector, as the standard OTEL_* variables of the environment say. Without them it
// starts nothing.
package otlp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"

	"github.com/ringside-cache/ringside/sidecar/internal/tracing"
)

const (
	// DefaultMaxQueue is the default of OTEL_BSP_MAX_QUEUE_SIZE. A span holds about 2 KiB.
	DefaultMaxQueue = 2048
	// mostQueue limits OTEL_BSP_MAX_QUEUE_SIZE: 64 MiB.
	mostQueue = 32 << 10
	// flushTimeout is how long the end of the process waits for the last spans to be sent.
	flushTimeout = 2 * time.Second
	// The rest of what one span may hold: ours have fewer, except that a batch may wait for many loads.
	maxAttributes, maxAttributeBytes, maxLinks = 32, 256, 64
)

// Identity is what the spans say of this process. Variables of the environment take precedence.
type Identity struct{ Node, Version string }

// Exporter sends the spans of a Tracer. A nil Exporter has none.
type Exporter struct {
	provider *sdk.TracerProvider
	queue    *queue
	sender   *sender
	// Tracer makes the spans.
	Tracer *tracing.Tracer
}

// Open returns the Exporter that the environment asks for; nil if it asks for none. An error is for the log: a variable that all
// programs of a cluster get must not keep the sidecar from starting, which then makes no spans. failed is called with the error of
// each export that fails; the SDK calls one export at a time.
func Open(ctx context.Context, who Identity, failed func(error)) (*Exporter, error) {
	s, on, err := settingsOf(os.Getenv)
	if err != nil || !on {
		return nil, err
	}
	exporter, err := newExporter(ctx, s.protocol)
	if err != nil {
		return nil, fmt.Errorf("open the exporter of spans: %w", withoutURL(err))
	}
	q, sender := newQueue(exporter, s.maxQueue, failed)
	e := &Exporter{queue: q, sender: sender}
	e.provider = sdk.NewTracerProvider(
		sdk.WithSpanProcessor(q), sdk.WithResource(resourceOf(ctx, who)), sdk.WithIDGenerator(ids{}),
		sdk.WithSampler(sdk.AlwaysSample()), // tracing.Sampler has decided
		sdk.WithRawSpanLimits(sdk.SpanLimits{
			AttributeValueLengthLimit: maxAttributeBytes, AttributeCountLimit: maxAttributes, LinkCountLimit: maxLinks,
		}))
	e.Tracer = tracing.New(e.provider.Tracer("github.com/ringside-cache/ringside"), s.sampler)
	return e, nil
}

// withoutURL returns an error whose text has no credentials: an endpoint may have them.
func withoutURL(error) error {
	return errors.New("an OTEL_EXPORTER_OTLP_* variable is not valid: look at the endpoint, the headers and the certificates")
}

func newExporter(ctx context.Context, protocol string) (sdk.SpanExporter, error) {
	if protocol == "grpc" {
		return otlptracegrpc.New(ctx)
	}
	return otlptracehttp.New(ctx)
}

func resourceOf(ctx context.Context, who Identity) *resource.Resource {
	// No detector of the process: its command line may have secrets.
	r, _ := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes( // what is malformed in the environment is left out
		semconv.ServiceName("ringside"), semconv.ServiceVersion(who.Version), semconv.ServiceInstanceID(who.Node)),
		resource.WithFromEnv())
	return r
}

// Close sends the spans that wait, for a limited time.
func (e *Exporter) Close(ctx context.Context) {
	if e == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	_ = e.provider.Shutdown(ctx) // the queue has counted and reported it
}

// Stats are counters of spans since the start, and how many wait.
type Stats struct{ Exported, Failed, Dropped, Waiting, MaxWaiting int64 }

// Stats returns what has become of the spans.
func (e *Exporter) Stats() Stats {
	q := e.queue
	return Stats{e.sender.exported.Load(), e.sender.failed.Load(), q.dropped.Load(), q.waiting.Load(), q.max}
}

// settings is what the environment says.
type settings struct {
	protocol string
	sampler  tracing.Sampler
	maxQueue int
}

// settingsOf reads the variables that decide before the SDK does. Empty ones are as those that are not set. Spans are exported if a variable
// names an exporter or a collector; OpenTelemetry's own default, a collector on localhost, would make each sidecar look for one.
func settingsOf(getenv func(string) string) (s settings, on bool, err error) {
	first := func(names ...string) string {
		for _, name := range names {
			if value := strings.TrimSpace(getenv(name)); value != "" {
				return value
			}
		}
		return ""
	}
	exporter := first("OTEL_TRACES_EXPORTER")
	endpoint := first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
	switch {
	case strings.EqualFold(first("OTEL_SDK_DISABLED"), "true"), exporter == "none", exporter == "" && endpoint == "":
		return s, false, nil
	case exporter != "" && exporter != "otlp":
		return s, false, fmt.Errorf("OTEL_TRACES_EXPORTER=%q: use otlp or none", exporter)
	}
	s.protocol = cmp.Or(first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"), "http/protobuf")
	if !slices.Contains([]string{"grpc", "http/protobuf"}, s.protocol) {
		return s, false, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL=%q: use grpc or http/protobuf", s.protocol)
	}
	if s.sampler, err = samplerOf(first("OTEL_TRACES_SAMPLER"), first("OTEL_TRACES_SAMPLER_ARG")); err != nil {
		return s, false, err
	}
	s.maxQueue = DefaultMaxQueue
	if text := first("OTEL_BSP_MAX_QUEUE_SIZE"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n <= 0 {
			return s, false, fmt.Errorf("OTEL_BSP_MAX_QUEUE_SIZE=%q: want a number of spans", text)
		}
		s.maxQueue = min(n, mostQueue)
	}
	return s, true, nil
}

// samplerOf returns the Sampler of a name of the specification (Environment Variable Specification, General SDK Configuration).
func samplerOf(name, arg string) (tracing.Sampler, error) {
	kind, follows := strings.CutPrefix(cmp.Or(name, "parentbased_always_on"), "parentbased_")
	switch kind {
	case "always_on":
		return tracing.Ratio(1, follows), nil
	case "always_off":
		return tracing.Ratio(0, follows), nil
	case "traceidratio":
		share, err := strconv.ParseFloat(cmp.Or(arg, "1"), 64)
		if err != nil || share < 0 || share > 1 {
			return tracing.Sampler{}, fmt.Errorf("OTEL_TRACES_SAMPLER_ARG=%q: want a number from 0 to 1", arg)
		}
		return tracing.Ratio(share, follows), nil
	}
	return tracing.Sampler{}, fmt.Errorf(
		"OTEL_TRACES_SAMPLER=%q: use always_on, always_off or traceidratio, or one of them with parentbased_ before it", name)
}
