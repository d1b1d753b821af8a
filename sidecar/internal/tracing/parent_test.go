package tracing

import (
	"context"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const sampledParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestParseParent(t *testing.T) {
	for s, want := range map[string]struct{ ok, sampled bool }{
		sampledParent: {true, true},
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00":      {true, false},
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03":      {true, true}, // random (level 2)
		"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01":      {true, true}, // a later version
		"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more": {true, true},
		"cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01more":  {},
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more": {},
		"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01":      {},
		"00-00000000000000000000000000000000-b7ad6b7169203331-01":      {},
		"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01":      {},
		"00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01":      {},
		"00-0af7651916cd43dd8448eb211c80319-b7ad6b71692033311-01":      {},
		"00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01":      {},
		sampledParent + ", " + sampledParent:                           {}, // two lines
		"":                                                             {},
		" ":                                                            {}, // a line without a value
		strings.Repeat("-", 55):                                        {},
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0":       {},
		"00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01":      {},
	} {
		p, ok := ParseParent(s)
		if ok != want.ok || p.Sampled != want.sampled {
			t.Errorf("%q: got %v, sampled %v; want %v, %v", s, ok, p.Sampled, want.ok, want.sampled)
		}
	}
}

// The propagator of OpenTelemetry, which needs memory, accepts the same and reads it in the same way.
func FuzzParseParent(f *testing.F) {
	for _, s := range []string{sampledParent, "", "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x", strings.Repeat("0", 55)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, ok := ParseParent(s)
		c := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": s}))
		if !ok {
			return // it may be stricter
		}
		if !c.IsValid() && s[:2] == "00" && s[53] == '0' && s[54] <= '3' {
			t.Errorf("%q is accepted, and not by OpenTelemetry", s)
		}
		if c.IsValid() && (c.TraceID() != p.TraceID || c.SpanID() != p.SpanID || c.IsSampled() != p.Sampled) {
			t.Errorf("%q: got %+v, OpenTelemetry has %+v", s, p, c)
		}
	})
}

func FuzzOpenTelemetryParent(f *testing.F) {
	f.Add(sampledParent)
	f.Fuzz(func(t *testing.T, s string) {
		c := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": s}))
		if _, ok := ParseParent(s); c.IsValid() && !ok {
			t.Errorf("%q is rejected, and OpenTelemetry has %+v", s, c)
		}
	})
}
