package api

import (
	"slices"
	"strings"
	"testing"
)

func TestSimilarNames(t *testing.T) {
	all := NewCatalog(Served{Dataset: &named{name: "routes"}}, Served{Dataset: &named{name: "cnf-metrics"}},
		Served{Dataset: &named{name: "cnf-state"}}).All()
	for requested, want := range map[string][]string{
		"route": {"routes"}, "Routes": {"routes"}, "ruotes": {"routes"}, "cnf": {"cnf-metrics", "cnf-state"},
		"cnf_metric": {"cnf-metrics"},
		"":           {}, "zzz": {}, strings.Repeat("r", 1000): {},
	} {
		if got := similarNames(requested, all); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", requested, got, want)
		}
	}
}
