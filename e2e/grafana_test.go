package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// dashboard has the fields that Grafana's schema of dashboards requires (kinds/dashboard in its repository, schemaVersion 41),
// and those that these tests check.
type dashboard struct {
	file          string
	UID           string
	Title         string
	SchemaVersion int
	Tags          []string
	Panels        []panel
	Templating    struct{ List []variable }
}

type panel struct {
	ID          int
	Type        string
	Title       string
	Description string
	GridPos     struct{ X, Y, W, H int }
	Datasource  datasource
	Targets     []struct {
		RefID      string
		Expr       string
		Datasource datasource
	}
	FieldConfig struct {
		Defaults struct {
			Unit       string
			Min        *float64
			Custom     *struct{ ScaleDistribution struct{ Type string } }
			Thresholds struct {
				Steps []struct{ Value *float64 }
			}
		}
	}
}

type datasource struct{ Type, UID string }

type variable struct {
	Type, Name, Definition, AllValue string
	IncludeAll                       bool
	Datasource                       datasource
}

var labelValues = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)

// asQuery returns the query whose labels are the values of the variable.
func (v variable) asQuery(t *testing.T) string {
	t.Helper()
	match := labelValues.FindStringSubmatch(v.Definition)
	if match == nil {
		t.Fatalf("variable %s: %q is not label_values(metric, label)", v.Name, v.Definition)
	}
	return "group by (" + match[2] + ") (" + match[1] + ")"
}

func dashboards(t *testing.T) (all []dashboard) {
	t.Helper()
	files, err := filepath.Glob("../deploy/grafana/*.json")
	if err != nil || len(files) != 4 {
		t.Fatalf("dashboards %v (%v); want fleet, dataset, pod and injector", files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d := dashboard{file: filepath.Base(file)}
		if err := json.Unmarshal(b, &d); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, d)
	}
	return all
}

func TestDashboardsFollowGrafanasSchema(t *testing.T) {
	uids := map[string]bool{}
	for _, d := range dashboards(t) {
		if len(d.UID) < 8 || len(d.UID) > 40 || uids[d.UID] || d.Title == "" || d.SchemaVersion != 41 ||
			!slices.Contains(d.Tags, "ringside") {
			t.Errorf("%s: uid %q (8 to 40 bytes, unique), title %q, schemaVersion %d, tags %v",
				d.file, d.UID, d.Title, d.SchemaVersion, d.Tags)
		}
		uids[d.UID] = true
		d.checkPanels(t)
		d.checkVariables(t)
	}
}

// units are the ids of Grafana's value formats (packages/grafana-data/src/valueFormats/categories.ts).
var units = []string{"none", "short", "percentunit", "s", "bytes", "ops", "reqps"}

func (d dashboard) checkPanels(t *testing.T) {
	t.Helper()
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if p.ID == 0 || ids[p.ID] || p.Title == "" || !slices.Contains([]string{"stat", "timeseries"}, p.Type) {
			t.Errorf("%s: panel %q: id %d (above 0, unique), type %q", d.file, p.Title, p.ID, p.Type)
		}
		ids[p.ID] = true
		if unit := p.FieldConfig.Defaults.Unit; !slices.Contains(units, unit) {
			t.Errorf("%s: panel %q: unit %q", d.file, p.Title, unit)
		}
		if len(p.Description) < 20 {
			t.Errorf("%s: panel %q: the description is %q", d.file, p.Title, p.Description)
		}
		// A logarithmic scale has no zero, and a certificate may have expired.
		defaults := p.FieldConfig.Defaults
		if log := defaults.Custom != nil && defaults.Custom.ScaleDistribution.Type == "log"; defaults.Min == nil && !log && !strings.Contains(p.Title, "ertificate") {
			t.Errorf("%s: panel %q: its range has no minimum", d.file, p.Title)
		}
		if steps := p.FieldConfig.Defaults.Thresholds.Steps; len(steps) == 0 || steps[0].Value != nil {
			t.Errorf("%s: panel %q: the first threshold must be null, which is minus infinity", d.file, p.Title)
		}
		d.checkPlace(t, p, cells)
		d.checkTargets(t, p)
	}
}

// checkPlace checks that each panel is on the grid of 24 columns, and that no two panels overlap.
func (d dashboard) checkPlace(t *testing.T, p panel, cells map[[2]int]string) {
	t.Helper()
	g := p.GridPos
	if g.X < 0 || g.Y < 0 || g.W < 1 || g.H < 1 || g.X+g.W > 24 {
		t.Errorf("%s: panel %q is off the grid: %+v", d.file, p.Title, g)
	}
	for x := g.X; x < g.X+g.W; x++ {
		for y := g.Y; y < g.Y+g.H; y++ {
			if other, taken := cells[[2]int{x, y}]; taken {
				t.Fatalf("%s: panels %q and %q overlap", d.file, p.Title, other)
			}
			cells[[2]int{x, y}] = p.Title
		}
	}
}

// The user selects the data source: a dashboard with a fixed one works in one Grafana only.
var chosen = datasource{"prometheus", "${datasource}"}

func (d dashboard) checkTargets(t *testing.T, p panel) {
	t.Helper()
	refs := map[string]bool{}
	for _, target := range p.Targets {
		if target.RefID == "" || refs[target.RefID] || target.Expr == "" || target.Datasource != chosen {
			t.Errorf("%s: panel %q: query %+v", d.file, p.Title, target)
		}
		refs[target.RefID] = true
	}
	if len(p.Targets) == 0 || p.Datasource != chosen {
		t.Errorf("%s: panel %q has no query, or data source %v", d.file, p.Title, p.Datasource)
	}
}

func (d dashboard) checkVariables(t *testing.T) {
	t.Helper()
	defined := []string{"__rate_interval"} // Grafana's own
	for i, v := range d.Templating.List {
		if isSource := v.Type == "datasource" && v.Name == "datasource"; isSource != (i == 0) {
			t.Errorf("%s: variable %d is %+v: the data source must be first, because other variables use it", d.file, i, v)
		}
		if v.Type == "query" && v.Datasource != chosen {
			t.Errorf("%s: variable %s uses the data source %v", d.file, v.Name, v.Datasource)
		}
		if v.Type == "query" && (!v.IncludeAll || v.AllValue != ".*") { // also what has no such label
			t.Errorf("%s: variable %s has no All that matches everything", d.file, v.Name)
		}
		defined = append(defined, v.Name)
	}
	for _, name := range []string{"cluster", "namespace"} {
		if !slices.Contains(defined, name) {
			t.Errorf("%s: there is no variable %s", d.file, name)
		}
	}
	used := regexp.MustCompile(`\$(\w+)`)
	merging := regexp.MustCompile(`\b(sum|count|min|max|avg|group) (by \((cluster, namespace(, \w+)*)\) )?\(`)
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			for _, match := range merging.FindAllStringSubmatch(target.Expr, -1) {
				if match[2] == "" {
					t.Errorf("%s: panel %q adds up clusters and namespaces: %s", d.file, p.Title, target.Expr)
				}
			}
			for _, selector := range regexp.MustCompile(`\{[^}]*\}`).FindAllString(target.Expr, -1) {
				if !strings.HasPrefix(selector, `{cluster=~"$cluster", namespace=~"$namespace"`) {
					t.Errorf("%s: panel %q shows other clusters or namespaces: %s", d.file, p.Title, target.Expr)
				}
			}
			for _, match := range used.FindAllStringSubmatch(target.Expr, -1) {
				if !slices.Contains(defined, match[1]) {
					t.Errorf("%s: panel %q uses $%s, which is not defined", d.file, p.Title, match[1])
				}
			}
		}
	}
}
