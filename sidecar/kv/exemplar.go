package kv

import (
	"math"
	"sync/atomic"
	"time"
)

// Exemplar is a traced request whose duration a histogram has counted.
type Exemplar struct {
	TraceID [16]byte
	SpanID  [8]byte
	Seconds float64
	At      time.Time
}

// Exemplars has the latest Exemplar of each power of two, from 2^-24 to 2^7 seconds. Its zero value is ready. Each one takes about
// 100 bytes, and only where requests are traced.
type Exemplars struct {
	latest [lastExemplar - firstExemplar + 1]atomic.Pointer[Exemplar]
}

const firstExemplar, lastExemplar = -24, 7

// Exemplify makes a traced request the Exemplar of a duration that the histogram has counted.
func (x *Exemplars) Exemplify(d time.Duration, traceID [16]byte, spanID [8]byte) {
	d = max(d, 1) // the logarithm of less is not in the range
	_, exponent := math.Frexp(d.Seconds())
	i := min(max(exponent, firstExemplar), lastExemplar) - firstExemplar //guard:exemplar-is-outside-of-the-range
	x.latest[i].Store(&Exemplar{traceID, spanID, d.Seconds(), time.Now()})
}

// Exemplars returns the exemplars from the shortest to the longest.
func (x *Exemplars) Exemplars() (list []Exemplar) {
	for i := range x.latest {
		if e := x.latest[i].Load(); e != nil {
			list = append(list, *e)
		}
	}
	return list
}
