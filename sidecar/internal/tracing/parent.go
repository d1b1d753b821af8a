package tracing

import (
	"encoding/hex"
	"strings"

	"go.opentelemetry.io/otel/trace"
)

// Parent is the span that caused a request, as its traceparent names it.
type Parent struct {
	TraceID trace.TraceID
	SpanID  trace.SpanID
	Sampled bool
}

// The parts of a traceparent of version 00 (W3C Trace Context, 3.2.2): version, trace-id, parent-id and flags, with a dash between them.
const (
	traceAt, spanAt, flagsAt = 3, 36, 53
	parentBytes              = 55
)

// ParseParent parses a traceparent without an allocation. It reports false for one that is absent or malformed, which is ignored as
// the standard requires. A later version may have more fields at the end (4.1).
func ParseParent(s string) (p Parent, ok bool) {
	if len(s) < parentBytes || s[2] != '-' || s[spanAt-1] != '-' || s[flagsAt-1] != '-' {
		return Parent{}, false
	}
	version, flags := [1]byte{}, [1]byte{}
	if !decodeLower(version[:], s[:2]) || !decodeLower(p.TraceID[:], s[traceAt:spanAt-1]) ||
		!decodeLower(p.SpanID[:], s[spanAt:flagsAt-1]) || !decodeLower(flags[:], s[flagsAt:parentBytes]) {
		return Parent{}, false
	}
	switch {
	case version[0] == 0xff, !p.TraceID.IsValid(), !p.SpanID.IsValid(): //guard:invalid-trace-id-is-accepted
		return Parent{}, false
	case version[0] == 0 && len(s) > parentBytes, len(s) > parentBytes && s[parentBytes] != '-':
		return Parent{}, false
	}
	p.Sampled = flags[0]&byte(trace.FlagsSampled) != 0
	return p, true
}

// decodeLower decodes lower-case hexadecimal digits; capital ones are malformed.
func decodeLower(dst []byte, s string) bool {
	for i := range dst {
		high, low := strings.IndexByte(hexDigits, s[2*i]), strings.IndexByte(hexDigits, s[2*i+1])
		if high < 0 || low < 0 {
			return false
		}
		dst[i] = byte(high<<4 | low)
	}
	return true
}

const hexDigits = "0123456789abcdef"

// format returns the traceparent of a sampled span.
func format(c trace.SpanContext) string {
	b := make([]byte, 0, parentBytes)
	traceID, spanID := c.TraceID(), c.SpanID()
	b = hex.AppendEncode(append(b, "00-"...), traceID[:])
	b = hex.AppendEncode(append(b, '-'), spanID[:])
	return string(append(b, "-01"...))
}
