package config

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/sidecar/internal/httpview"
)

// View returns how HTTP clients see the dataset, with the faults of its fields.
func (d Dataset) View() (*httpview.View, []httpview.Problem) {
	if len(d.Key) == 0 {
		return d.HTTP.Compile([]string{""})
	}
	return d.HTTP.Compile(d.Key)
}

// http checks how HTTP clients see the datasets: each alone, and that no name and no path is one of two.
func (k *checker) http() {
	names, paths := map[string]string{}, map[*httpview.Template]string{} // :: name, path → field that has it
	for _, n := range slices.Sorted(maps.Keys(k.config.Datasets)) {
		names[n] = "datasets." + n
	}
	for _, n := range slices.Sorted(maps.Keys(k.config.Datasets)) {
		path, d := "datasets."+n, k.config.Datasets[n]
		view, problems := d.View()
		for _, p := range problems {
			k.problem(path+"."+p.Field, "%s", p.Text)
		}
		switch {
		case len(d.Headers) == 0:
		case k.drivers.ValuesField(k.config.Origins[d.Origin].Driver) != "":
			k.problem(path+".headers", "the fields are columns of a row; the values of a service have none")
		case d.Value != "":
			k.problem(path+".headers", "the fields are columns of the row, and value makes one column the value; use columns instead of value")
		case d.Many():
			k.problem(path+".headers", "the fields are columns of one row; remove rows: many, or headers")
		}
		for _, a := range d.Alias {
			if other, taken := names[a]; taken {
				k.problem(path+".alias", "%q is also the name or an alias of %s", a, other)
			}
			names[a] = path
		}
		if view == nil {
			continue
		}
		for _, t := range view.Paths {
			for o, other := range paths {
				if t.Overlaps(o) {
					k.problem(path+".paths", "%s and %s of %s have paths in common; each path must lead to one dataset", t, o, other)
				}
			}
			paths[t] = path
		}
	}
}

// requestHeader is a header field as Envoy names it.
var requestHeader = regexp.MustCompile(`^(:path|:method|:authority|[a-z0-9][a-z0-9_-]*)$`)

func (k *checker) extAuthz() {
	e := k.config.ExtAuthz
	d, ok := k.config.Datasets[e.Dataset]
	switch {
	case e == ExtAuthz{}:
	case !ok:
		k.problem("ext_authz.dataset", "no dataset is named %q; want one of: %s", e.Dataset,
			cmp.Or(strings.Join(slices.Sorted(maps.Keys(k.config.Datasets)), ", "), "there are none"))
	case len(d.Key) > 1:
		k.problem("ext_authz.dataset", "%s has a key of several columns; a header field is one", e.Dataset)
	case !requestHeader.MatchString(e.Header):
		k.problem("ext_authz.header", "want a header field in lower case, :path, :method or :authority; got %q", e.Header)
	}
}
