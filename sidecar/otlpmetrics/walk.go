package otlpmetrics

import (
	"errors"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/ringside-cache/ringside/sidecar/internal/metricrow"
)

// A message is read in place: the generated types take up to a hundred times its bytes, of points that are empty. The numbers are
// those of the fields in opentelemetry/proto/metrics/v1/metrics.proto and common/v1/common.proto.

var errMalformed = errors.New("the message is not an ExportMetricsServiceRequest of OTLP")

// field is one field of a message.
type field struct {
	number protowire.Number
	kind   protowire.Type
	bytes  []byte // of protowire.BytesType
	bits   uint64 // of other types
}

// is reports whether it is the field with that number, of that type: others are unknown.
func (f field) is(number protowire.Number, kind protowire.Type) bool {
	return f.number == number && f.kind == kind
}

// each calls yield with the fields of a message until it returns an error.
func each(message []byte, yield func(field) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return errMalformed
		}
		message = message[n:]
		f := field{number: number, kind: kind}
		switch kind {
		case protowire.VarintType:
			f.bits, n = protowire.ConsumeVarint(message)
		case protowire.Fixed64Type:
			f.bits, n = protowire.ConsumeFixed64(message)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(message)
		default:
			n = protowire.ConsumeFieldValue(number, kind, message)
		}
		if n < 0 {
			return errMalformed
		}
		message = message[n:]
		if err := yield(f); err != nil {
			return err
		}
	}
	return nil
}

// sub calls yield with the messages of a repeated field.
func sub(message []byte, number protowire.Number, yield func([]byte) error) error {
	return each(message, func(f field) error {
		if f.is(number, protowire.BytesType) {
			return yield(f.bytes)
		}
		return nil
	})
}

// visitor gets the points of a message.
type visitor struct {
	rules *metricrow.Rules
	// point gets a point with a number, whose metric has a rule. It is valid until it returns.
	point func(*metricrow.Point) error
	// rejected gets points that cannot be rows.
	rejected func(points int, metric string, why error)
}

// walk visits all points of an ExportMetricsServiceRequest. An error is that of the message or of point.
func (v *visitor) walk(message []byte) error {
	ofResource, ofPoint := v.rules.Sizes()
	p := &metricrow.Point{Resource: make([]metricrow.Value, ofResource), Point: make([]metricrow.Value, ofPoint)}
	return sub(message, 1, func(resourceMetrics []byte) error {
		clear(p.Resource)
		err := sub(resourceMetrics, 1, func(resource []byte) error {
			return attributes(resource, 1, v.rules.Resource, p.Resource)
		})
		if err != nil {
			return err
		}
		return sub(resourceMetrics, 2, func(scopeMetrics []byte) error { return v.scope(scopeMetrics, p) })
	})
}

func (v *visitor) scope(scopeMetrics []byte, p *metricrow.Point) error {
	p.Scope = ""
	err := sub(scopeMetrics, 1, func(scope []byte) error {
		return each(scope, func(f field) error { return text(f, 1, &p.Scope) })
	})
	if err != nil {
		return err
	}
	return sub(scopeMetrics, 2, func(metric []byte) error { return v.metric(metric, p) })
}

// The fields of a Metric that hold its points, and why those of the others cannot be rows.
const gauge, sum = 5, 7

var unsupported = map[protowire.Number]error{
	9:  errors.New("it is a histogram; gauges and cumulative sums can be rows"),
	10: errors.New("it is an exponential histogram; gauges and cumulative sums can be rows"),
	11: errors.New("it is a summary; gauges and cumulative sums can be rows"),
}

var (
	errNoRule      = errors.New("no rule of otlp.rows lists it")
	errDelta       = errors.New("it is a sum of changes, whose newest one is not the state; let the exporter send cumulative sums")
	errNoValue     = errors.New("the point has no value")
	errNoTime      = errors.New("the point has no time")
	errNotRecorded = errors.New("the point says that no value was recorded")
)

func (v *visitor) metric(metric []byte, p *metricrow.Point) error {
	p.Metric, p.Unit = "", ""
	var data field // the last one of a oneof counts
	err := each(metric, func(f field) error {
		if f.kind == protowire.BytesType && (f.number == gauge || f.number == sum || unsupported[f.number] != nil) {
			data = f
		}
		if err := text(f, 1, &p.Metric); err != nil {
			return err
		}
		return text(f, 3, &p.Unit)
	})
	if err != nil {
		return err
	}
	points, temporality := 0, uint64(0)
	err = each(data.bytes, func(f field) error {
		switch {
		case f.is(1, protowire.BytesType):
			points++
		case f.is(2, protowire.VarintType):
			temporality = f.bits
		}
		return nil
	})
	const cumulative = 2
	switch why := unsupported[data.number]; {
	case err != nil || points == 0:
		return err
	case !v.rules.Has(p.Metric):
		v.rejected(points, p.Metric, errNoRule)
	case why != nil:
		v.rejected(points, p.Metric, why)
	case data.number == sum && temporality != cumulative: //guard:sum-of-changes-is-written-as-the-state
		v.rejected(points, p.Metric, errDelta)
	default:
		return sub(data.bytes, 1, func(point []byte) error { return v.number(point, p) })
	}
	return nil
}

// number visits a NumberDataPoint.
func (v *visitor) number(point []byte, p *metricrow.Point) error {
	p.Value, p.Time = nil, 0
	clear(p.Point)
	var flags uint64
	err := each(point, func(f field) error {
		switch {
		case f.is(3, protowire.Fixed64Type):
			p.Time = int64(min(f.bits, math.MaxInt64))
		case f.is(4, protowire.Fixed64Type):
			p.Value = math.Float64frombits(f.bits)
		case f.is(6, protowire.Fixed64Type):
			p.Value = int64(f.bits)
		case f.is(8, protowire.VarintType):
			flags = f.bits
		}
		return nil
	})
	if err == nil {
		err = attributes(point, 7, v.rules.Point, p.Point)
	}
	switch {
	case err != nil:
		return err
	case flags&1 != 0:
		v.rejected(1, p.Metric, errNotRecorded)
	case p.Value == nil:
		v.rejected(1, p.Metric, errNoValue)
	case p.Time == 0:
		v.rejected(1, p.Metric, errNoTime)
	default:
		return v.point(p)
	}
	return nil
}

// attributes sets the values of the attributes (repeated KeyValue) of a message that a rule names.
func attributes(message []byte, number protowire.Number, find func([]byte) (int, bool), into []metricrow.Value) error {
	return sub(message, number, func(keyValue []byte) error {
		var name, anyValue []byte
		err := each(keyValue, func(f field) error {
			switch {
			case f.is(1, protowire.BytesType):
				name = f.bytes
			case f.is(2, protowire.BytesType):
				anyValue = f.bytes
			}
			return nil
		})
		if at, ok := find(name); ok && err == nil {
			into[at], err = scalar(anyValue)
		}
		return err
	})
}

// scalar returns the value of an AnyValue; nil if it is a list, a map or bytes.
func scalar(anyValue []byte) (v metricrow.Value, err error) {
	err = each(anyValue, func(f field) error {
		switch {
		case f.is(1, protowire.BytesType):
			s := ""
			if err := text(f, 1, &s); err != nil {
				return err
			}
			v = s
		case f.is(2, protowire.VarintType):
			v = f.bits != 0
		case f.is(3, protowire.VarintType):
			v = int64(f.bits)
		case f.is(4, protowire.Fixed64Type):
			v = math.Float64frombits(f.bits)
		case f.kind == protowire.BytesType && f.number >= 5 && f.number <= 7:
			v = nil
		}
		return nil
	})
	return v, err
}

// text sets s if f is the string field with that number.
func text(f field, number protowire.Number, s *string) error {
	if !f.is(number, protowire.BytesType) {
		return nil
	}
	if !utf8.Valid(f.bytes) {
		return errMalformed
	}
	*s = string(f.bytes)
	return nil
}
