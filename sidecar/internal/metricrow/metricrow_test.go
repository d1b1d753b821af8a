package metricrow

import (
	"math"
	"strings"
	"testing"
)

func compile(t *testing.T, rules map[string]Rule) *Rules {
	t.Helper()
	r, err := Compile(rules)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRowOfAPoint(t *testing.T) {
	r := compile(t, map[string]Rule{"r": {Metrics: []string{"m"}, Dataset: "d", Key: []string{"{resource.a}", "x/{point.n}"}, Columns: map[string]string{
		"value": "{value}", "time": "{time}", "text": "{name} in {unit} of {scope}: {value}", "fixed": `"ok"`, "n": "{point.n}", "missing": "{point.missing}",
	}}})
	resource, point := r.Sizes()
	p := &Point{Metric: "m", Unit: "s", Scope: "lib", Time: 1_500_000, Value: int64(-3), Resource: make([]Value, resource), Point: make([]Value, point)}
	at, _ := r.Resource([]byte("a"))
	p.Resource[at] = "50%"
	at, _ = r.Point([]byte("n"))
	p.Point[at] = true
	row, err := r.Row(p)
	want := `{"fixed":"\"ok\"","missing":null,"n":true,"text":"m in s of lib: -3","time":"1970-01-01T00:00:00.001500Z","value":-3}`
	if err != nil || row.Dataset != "d" || row.Key != "50%25/x%2Ftrue" || string(row.Value) != want {
		t.Errorf("got %s %s %s, %v", row.Dataset, row.Key, row.Value, err)
	}
	p.Point[at] = nil
	if _, err := r.Row(p); err == nil || !strings.Contains(err.Error(), "its key: it has no attribute n") {
		t.Errorf("without an attribute of the key: got %v", err)
	}
}

func TestRowsHaveFiniteValues(t *testing.T) {
	r := compile(t, map[string]Rule{"r": {Metrics: []string{"m"}, Key: []string{"k"}, Columns: map[string]string{"v": "{value}", "a": "{point.a}"}}})
	for _, f := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		for _, p := range []*Point{{Metric: "m", Value: f, Point: []Value{nil}}, {Metric: "m", Value: 1.5, Point: []Value{f}}} {
			if row, err := r.Row(p); err == nil {
				t.Errorf("%v: got %s, want an error", p, row.Value)
			}
		}
	}
}

// The exact name is preferred, and then the longest prefix.
func TestRuleOfAMetric(t *testing.T) {
	all := map[string]Rule{}
	for name, metrics := range map[string][]string{"exact": {"a.b"}, "long": {"a.*"}, "short": {"*"}} {
		all[name] = Rule{Metrics: metrics, Dataset: name, Key: []string{"k"}, Columns: map[string]string{"v": "{value}"}}
	}
	r := compile(t, all)
	for metric, want := range map[string]string{"a.b": "exact", "a.c": "long", "a.": "long", "b": "short"} {
		if got := r.find(metric).dataset; got != want {
			t.Errorf("%s: got the rule %s, want %s", metric, got, want)
		}
	}
	if compile(t, nil).Has("a") {
		t.Error("a metric has a rule, and there is none")
	}
}
