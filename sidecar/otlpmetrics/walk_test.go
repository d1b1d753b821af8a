package otlpmetrics

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"testing"

	metricsservice "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	metricsv1 "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"github.com/ringside-cache/ringside/sidecar/internal/metricrow"
)

func rulesOfTest(t testing.TB) *metricrow.Rules {
	t.Helper()
	rules, err := metricrow.Compile(map[string]metricrow.Rule{"r": {
		Metrics: []string{"cpu", "mem.*"}, Dataset: "rows", Key: []string{"{resource.host}/{name}"},
		Columns: map[string]string{"v": "{value}", "a": "{point.a}", "u": "{unit} of {scope}"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func stringOf(s string) *commonv1.AnyValue {
	return &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: s}}
}

func sampleRequest() *metricsservice.ExportMetricsServiceRequest {
	point := func(m *metricsv1.NumberDataPoint) *metricsv1.Metric_Gauge {
		m.Attributes = []*commonv1.KeyValue{{Key: "a", Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_IntValue{IntValue: -7}}}}
		return &metricsv1.Metric_Gauge{Gauge: &metricsv1.Gauge{DataPoints: []*metricsv1.NumberDataPoint{m}}}
	}
	double := &metricsv1.NumberDataPoint{TimeUnixNano: 5, Value: &metricsv1.NumberDataPoint_AsDouble{AsDouble: 1.5}}
	integer := &metricsv1.NumberDataPoint{TimeUnixNano: 6, Value: &metricsv1.NumberDataPoint_AsInt{AsInt: math.MinInt64}}
	return &metricsservice.ExportMetricsServiceRequest{ResourceMetrics: []*metricsv1.ResourceMetrics{{
		Resource: &resourcev1.Resource{Attributes: []*commonv1.KeyValue{{Key: "host", Value: stringOf("h")}}},
		ScopeMetrics: []*metricsv1.ScopeMetrics{{Scope: &commonv1.InstrumentationScope{Name: "s"}, Metrics: []*metricsv1.Metric{
			{Name: "cpu", Unit: "1", Data: point(double)}, {Name: "mem.used", Data: point(integer)},
			{Name: "other", Data: point(&metricsv1.NumberDataPoint{})},
			{Name: "cpu", Data: &metricsv1.Metric_Histogram{Histogram: &metricsv1.Histogram{DataPoints: []*metricsv1.HistogramDataPoint{{}, {}}}}},
		}}},
	}}}
}

// seen is what a visitor has seen of a message: the points, and how many were rejected.
type seen struct {
	Points   []metricrow.Point
	Rejected int
}

func visit(rules *metricrow.Rules, message []byte) (s seen, err error) {
	v := visitor{rules: rules, rejected: func(n int, _ string, _ error) { s.Rejected += n }}
	v.point = func(p *metricrow.Point) error {
		c := *p
		c.Resource, c.Point = append([]metricrow.Value{}, p.Resource...), append([]metricrow.Value{}, p.Point...)
		s.Points = append(s.Points, c)
		_, _ = rules.Row(p) // it must not panic
		return nil
	}
	return s, v.walk(message)
}

// decoded is what the generated types say of the same message.
func decoded(rules *metricrow.Rules, m *metricsservice.ExportMetricsServiceRequest) (s seen) {
	ofResource, ofPoint := rules.Sizes()
	for _, rm := range m.ResourceMetrics {
		resource := make([]metricrow.Value, ofResource)
		setAll(rm.GetResource().GetAttributes(), rules.Resource, resource)
		for _, sm := range rm.ScopeMetrics {
			for _, metric := range sm.Metrics {
				points, rejected := numbers(metric)
				if !rules.Has(metric.GetName()) {
					points, rejected = nil, rejected+len(points)
				}
				s.Rejected += rejected
				for _, p := range points {
					one := metricrow.Point{
						Metric: metric.GetName(), Unit: metric.GetUnit(), Scope: sm.GetScope().GetName(), Time: int64(min(p.TimeUnixNano, math.MaxInt64)),
						Resource: resource, Point: make([]metricrow.Value, ofPoint),
					}
					setAll(p.Attributes, rules.Point, one.Point)
					switch v := p.Value.(type) {
					case *metricsv1.NumberDataPoint_AsDouble:
						one.Value = v.AsDouble
					case *metricsv1.NumberDataPoint_AsInt:
						one.Value = v.AsInt
					}
					if one.Value == nil || one.Time == 0 || p.Flags&1 != 0 {
						s.Rejected++
						continue
					}
					s.Points = append(s.Points, one)
				}
			}
		}
	}
	return s
}

func numbers(m *metricsv1.Metric) (points []*metricsv1.NumberDataPoint, rejected int) {
	switch d := m.Data.(type) {
	case *metricsv1.Metric_Gauge:
		return d.Gauge.GetDataPoints(), 0
	case *metricsv1.Metric_Sum:
		if d.Sum.GetAggregationTemporality() != metricsv1.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE {
			return nil, len(d.Sum.GetDataPoints())
		}
		return d.Sum.GetDataPoints(), 0
	case *metricsv1.Metric_Histogram:
		return nil, len(d.Histogram.GetDataPoints())
	case *metricsv1.Metric_ExponentialHistogram:
		return nil, len(d.ExponentialHistogram.GetDataPoints())
	case *metricsv1.Metric_Summary:
		return nil, len(d.Summary.GetDataPoints())
	}
	return nil, 0
}

func setAll(list []*commonv1.KeyValue, find func([]byte) (int, bool), into []metricrow.Value) {
	for _, kv := range list {
		at, ok := find([]byte(kv.GetKey()))
		if !ok {
			continue
		}
		into[at] = nil
		switch v := kv.GetValue().GetValue().(type) {
		case *commonv1.AnyValue_StringValue:
			into[at] = v.StringValue
		case *commonv1.AnyValue_BoolValue:
			into[at] = v.BoolValue
		case *commonv1.AnyValue_IntValue:
			into[at] = v.IntValue
		case *commonv1.AnyValue_DoubleValue:
			into[at] = v.DoubleValue
		}
	}
}

// same compares as text: a NaN differs from itself.
func same(a, b seen) bool { return fmt.Sprintf("%#v", a) == fmt.Sprintf("%#v", b) }

func TestWalkSeesWhatTheTypesHave(t *testing.T) {
	rules, m := rulesOfTest(t), sampleRequest()
	message, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	got, err := visit(rules, message)
	if want := decoded(rules, m); err != nil || !same(got, want) || len(got.Points) != 2 || got.Rejected != 3 {
		t.Fatalf("got  %#v, %v\nwant %#v", got, err, want)
	}
	row, err := rules.Row(&got.Points[0])
	want := metricrow.Row{Dataset: "rows", Key: "h/cpu", Value: []byte(`{"a":-7,"u":"1 of s","v":1.5}`)}
	if err != nil || !reflect.DeepEqual(row, want) {
		t.Errorf("got %s %s, %v", row.Key, row.Value, err)
	}
}

// FuzzWalk: any bytes are either malformed or points, and a valid message has the points that the generated types have.
func FuzzWalk(f *testing.F) {
	rules := rulesOfTest(f)
	message, err := proto.Marshal(sampleRequest())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(message)
	f.Add([]byte{0x0a, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := visit(rules, data)
		if err == nil {
			for i := range got.Points {
				if row, err := rules.Row(&got.Points[i]); err == nil && !json.Valid(row.Value) {
					t.Errorf("%q is not JSON", row.Value)
				}
			}
		}
		m := &metricsservice.ExportMetricsServiceRequest{}
		if proto.Unmarshal(data, m) != nil {
			return
		}
		canonical, err := proto.Marshal(m)
		if err != nil {
			return
		}
		if got, err := visit(rules, canonical); err != nil || !same(got, decoded(rules, m)) {
			t.Errorf("got  %#v, %v\nwant %#v", got, err, decoded(rules, m))
		}
	})
}
