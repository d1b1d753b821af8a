package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ringside-cache/ringside/sidecar/kv"
)

// collector turns the rows of the table into a prometheus.Collector. It keeps no state.
type collector struct {
	source     Source
	metrics    []described[metric]
	histograms []described[histogram]
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
			out <- prometheus.MustNewConstHistogram(h.desc, count, sum, buckets, label)
		})
	}
}
