package metrics

import (
	"encoding/hex"
	"errors"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

// collector turns the rows of the table into a prometheus.Collector. It keeps no state.
type collector struct {
	source     Source
	metrics    []described[metric]
	histograms []described[histogram]

	distributions []described[distribution]
}

type described[T any] struct {
	row  T
	desc *prometheus.Desc
}

func newCollector(s Source) *collector {
	c := &collector{source: s}
	for _, m := range metrics() {
		c.metrics = append(c.metrics, described[metric]{m, prometheus.NewDesc(m.name, m.help, m.labels, nil)})
	}
	for _, h := range histograms() {
		desc := prometheus.NewDesc(h.name, h.help, []string{h.label}, nil)
		c.histograms = append(c.histograms, described[histogram]{h, desc})
	}
	for _, d := range distributions() {
		c.distributions = append(c.distributions, described[distribution]{d, prometheus.NewDesc(d.name, d.help, d.labels, nil)})
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range c.metrics {
		out <- m.desc
	}
	for _, h := range c.histograms {
		out <- h.desc
	}
	for _, d := range c.distributions {
		out <- d.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	for _, m := range c.metrics {
		m.row.read(&c.source, func(value float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(m.desc, m.row.kind, value, labels...)
		})
	}
	for _, h := range c.histograms {
		h.row.series(&c.source, func(h2 *kv.Histogram, label string) {
			count, sum, buckets := h2.Snapshot()
			out <- withExemplars(prometheus.MustNewConstHistogram(h.desc, count, sum, buckets, label), h2.Exemplars.Exemplars())
		})
	}
	for _, d := range c.distributions {
		d.row.series(&c.source, func(of *kv.Distribution, labels ...string) {
			out <- withExemplars(newTwoForms(d, of.Snapshot(), labels), of.Exemplars.Exemplars())
		})
	}
}

// withExemplars adds traced requests to the buckets of a histogram. Scrapers get them in OpenMetrics and protobuf.
func withExemplars(m prometheus.Metric, traced []kv.Exemplar) prometheus.Metric {
	if len(traced) == 0 {
		return m
	}
	list := make([]prometheus.Exemplar, len(traced))
	for i, x := range traced {
		list[i] = prometheus.Exemplar{Value: x.Seconds, Timestamp: x.At, Labels: prometheus.Labels{
			"trace_id": hex.EncodeToString(x.TraceID[:]), "span_id": hex.EncodeToString(x.SpanID[:]),
		}}
	}
	return prometheus.MustNewMetricWithExemplars(m, list...)
}

// twoForms is a histogram with the buckets of both forms: a scraper gets the native ones if it asks for protobuf, and the others
// in any case.
type twoForms struct {
	prometheus.Metric
	classic prometheus.Metric
}

func newTwoForms(d described[distribution], s kv.DistributionSnapshot, labels []string) twoForms {
	bounds := map[float64]uint64{}
	for e := d.row.first; e <= d.row.last; e += d.row.step {
		bounds[math.Ldexp(1, e)] = s.UpTo(e)
	}
	return twoForms{
		Metric: prometheus.MustNewConstNativeHistogram(d.desc, s.Count, s.Sum, s.Buckets, nil, s.Zero, kv.DistributionSchema,
			kv.DistributionZero, time.Time{}, labels...),
		classic: prometheus.MustNewConstHistogram(d.desc, s.Count, s.Sum, bounds, labels...),
	}
}

// Write implements prometheus.Metric.
func (m twoForms) Write(out *dto.Metric) error {
	var classic dto.Metric
	if err := errors.Join(m.Metric.Write(out), m.classic.Write(&classic)); err != nil {
		return err
	}
	out.Histogram.Bucket = classic.Histogram.Bucket
	return nil
}
