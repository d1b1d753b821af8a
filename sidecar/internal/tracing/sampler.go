package tracing

import (
	"encoding/binary"
	"math/rand/v2"

	"go.opentelemetry.io/otel/trace"
)

// Sampler decides which requests are traced, as the samplers of OpenTelemetry of the same names do, and without an allocation for
// those that are not: the decision comes before anything else is done for a request. The zero value samples nothing.
type Sampler struct {
	// FollowParent makes the decision of a request with a traceparent that of its caller.
	FollowParent bool
	// bound is the number of traces of 2^63 that are sampled.
	bound uint64
}

// Ratio returns a Sampler of a share of the traces, from 0 to 1.
func Ratio(share float64, followParent bool) Sampler {
	return Sampler{FollowParent: followParent, bound: uint64(max(0, min(share, 1)) * (1 << 63))}
}

// sample decides about a request. It returns the id of the trace that begins; not valid for a request that has a parent.
func (s Sampler) sample(parent Parent, hasParent bool) (begun trace.TraceID, sampled bool) {
	switch {
	case hasParent && s.FollowParent:
		return begun, parent.Sampled
	case hasParent:
		return begun, s.includes(binary.BigEndian.Uint64(parent.TraceID[8:]))
	}
	random := rand.Uint64()
	if !s.includes(random) {
		return begun, false
	}
	binary.BigEndian.PutUint64(begun[:], rand.Uint64())
	binary.BigEndian.PutUint64(begun[8:], random|1) // the id must not be zero
	return begun, true
}

// includes goes by the same bits of the id as the SDKs do: members and services with the same share sample the same traces.
func (s Sampler) includes(id uint64) bool { return id>>1 < s.bound }
