package config

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/sidecar/internal/metricrow"
)

// otlp checks which metrics are rows of which datasets.
func (k *checker) otlp() {
	o, closed := k.config.OTLP, k.config.Listen.otlp() == off
	k.oneOf("otlp.ack", o.ack(), words["otlp.ack"])
	switch {
	case closed && len(o.Rows) > 0:
		k.problem("otlp.rows", "no metrics are received, because listen.otlp is off; set it, for example to 127.0.0.1:4317")
	case !closed && len(o.Rows) == 0:
		k.problem("listen.otlp", "is on, but otlp.rows is empty: every metric would be rejected")
	}
	for _, name := range slices.Sorted(maps.Keys(o.Rows)) {
		k.otlpRows("otlp.rows."+name, o.Rows[name])
	}
	_, err := metricrow.Compile(o.Rules())
	for _, wrong := range unwrap(err) {
		if one, ok := errors.AsType[*metricrow.Error](wrong); ok {
			k.problem("otlp.rows."+one.Rule+"."+one.Field, "%v", one.Err)
		}
	}
}

// unwrap returns the errors that errors.Join has joined.
func unwrap(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	return joined.Unwrap()
}

func (k *checker) otlpRows(path string, r OTLPRows) {
	d, ok := k.config.Datasets[r.Dataset]
	switch {
	case !ok:
		k.problem(path+".dataset", "no dataset is named %q; want one of: %s", r.Dataset,
			cmp.Or(strings.Join(slices.Sorted(maps.Keys(k.config.Datasets)), ", "), "there are none"))
		return
	case !d.Writable:
		k.problem(path+".dataset", "%s is read-only; set writable", r.Dataset)
	case !d.JSON() || d.Many():
		k.problem(path+".dataset", "%s needs rows: one and no value: points are written to columns", r.Dataset)
	}
	if len(r.Key) != len(d.Key) {
		k.problem(path+".key", "want a template for each of the %d columns of the key of %s; got %d", len(d.Key), r.Dataset, len(r.Key))
	}
	if len(r.Columns) == 0 {
		k.problem(path+".columns", "is empty; want at least one column, such as value: \"{value}\"")
	}
	for _, c := range slices.Sorted(maps.Keys(r.Columns)) {
		switch {
		case slices.Contains(d.Key, c):
			k.problem(path+".columns."+c, "is a column of the key; key has its template")
		case c == d.Version:
			k.problem(path+".columns."+c, "is the version column, which each write raises")
		case len(d.Columns) > 0 && !slices.Contains(d.Columns, c):
			k.problem(path+".columns."+c, "is none of the columns of %s", r.Dataset)
		}
	}
}
