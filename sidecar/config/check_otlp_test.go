package config

import (
	"strings"
	"testing"

	"github.com/ringside-cache/ringside/origin/drivers"
)

func TestProblemsOfMetricsThatAreRows(t *testing.T) {
	const writable = oneDataset + "    version: ver\n    writable: true\n"
	const on = "listen: {otlp: 127.0.0.1:4317}\n"
	const rule = "otlp: {rows: {r: {metrics: [cpu, mem.*], dataset: metrics, key: '{resource.host}', columns: {v: '{value}'}}}}\n"
	replaced := func(old, replacement string) string {
		if !strings.Contains(rule, old) {
			t.Fatalf("%q is not in the rule", old)
		}
		return writable + on + strings.Replace(rule, old, replacement, 1)
	}
	for _, test := range []struct{ name, text, want string }{
		{"fine", writable + on + rule, ""},
		{"no listener", writable + rule, "otlp.rows: no metrics are received, because listen.otlp is off"},
		{"no rules", writable + on, "listen.otlp: is on, but otlp.rows is empty"},
		{"read-only", oneDataset + on + rule, "otlp.rows.r.dataset: metrics is read-only; set writable"},
		{"no dataset", replaced("dataset: metrics", "dataset: other"), `otlp.rows.r.dataset: no dataset is named "other"; want one of: metrics`},
		{"no metrics", replaced("[cpu, mem.*]", "[]"), "otlp.rows.r.metrics: is missing"},
		{"a pattern", replaced("mem.*", "me*m"), `otlp.rows.r.metrics: want names of metrics, of which the last byte may be *; got "me*m"`},
		{"twice", replaced("mem.*", "cpu"), "otlp.rows.r.metrics: cpu is listed twice"},
		{"no key", replaced("key: '{resource.host}', ", ""), "otlp.rows.r.key: want a template for each of the 1 columns of the key of metrics; got 0"},
		{"two columns", replaced("'{resource.host}'", "[a, b]"), "otlp.rows.r.key: want a template for each of the 1 columns"},
		{"no placeholder", replaced("{value}", "{valeu}"), "otlp.rows.r.columns.v: {valeu} is no placeholder; use {name}"},
		{"not closed", replaced("{value}", "{value"), "otlp.rows.r.columns.v: {value is no placeholder"},
		{"no columns", replaced("{v: '{value}'}", "{}"), "otlp.rows.r.columns: is empty"},
		{"a column of the key", replaced("{v:", "{cnf_id:"), "otlp.rows.r.columns.cnf_id: is a column of the key"},
		{"the version", replaced("{v:", "{ver:"), "otlp.rows.r.columns.ver: is the version column"},
		{"wrong ack", strings.Replace(writable+on+rule, "otlp: {rows", "otlp: {ack: maybe, rows", 1), `otlp.ack: want one of committed, accepted; got "maybe"`},
		{"no unit", strings.Replace(writable+on+rule, "otlp: {rows", "otlp: {memory: 16, rows", 1), "otlp.memory: want 1MiB or more"},
	} {
		_, err := Source{Getenv: environ{}.get, Drivers: drivers.All()}.Parse([]byte(test.text))
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}
