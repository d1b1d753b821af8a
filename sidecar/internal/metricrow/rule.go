// Package metricrow turns data points of OpenTelemetry metrics into rows of datasets, by rules of the configuration.
package metricrow

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Rule says which metrics are rows of a dataset. Key and the values of Columns are templates: text with placeholders
//
//	{name} {unit} {scope} {value} {time} {resource.ATTRIBUTE} {point.ATTRIBUTE}
//
// A column whose template is one placeholder gets the value with its type; others get text.
type Rule struct {
	Metrics []string // names; one that ends with * is a prefix
	Dataset string
	Key     []string          // one template for each column of the key
	Columns map[string]string // :: column → template
}

// Error is what is wrong with a rule.
type Error struct {
	Rule  string // its name
	Field string // metrics, key or columns.NAME
	Err   error
}

func (e *Error) Error() string { return fmt.Sprintf("%s.%s: %v", e.Rule, e.Field, e.Err) }

// Rules are compiled rules. They are safe for concurrent use.
type Rules struct {
	exact    map[string]*rule // :: name → its rule
	prefixes []prefixed       // the longest first
	resource *names           // the attributes that any rule needs
	point    *names
}

type prefixed struct {
	prefix string
	rule   *rule
}

type rule struct {
	dataset string
	key     []template
	columns []column // sorted by name
}

type column struct {
	name     string
	template template
}

// template is text and placeholders in turn.
type template []part

// part is text, or a placeholder of a kind.
type part struct {
	kind kind
	text string // of text; the name of an attribute
	at   int    // of an attribute: its index in names
}

type kind uint8

const (
	text kind = iota
	metricName
	unit
	scope
	value
	moment
	resourceAttribute
	pointAttribute
)

var kinds = map[string]kind{"name": metricName, "unit": unit, "scope": scope, "value": value, "time": moment}

// names are attributes that placeholders name.
type names struct {
	index map[string]int
}

func (n *names) add(name string) int {
	at, ok := n.index[name]
	if !ok {
		at = len(n.index)
		n.index[name] = at
	}
	return at
}

// Compile compiles rules, by their names. The errors are of type *Error, joined.
func Compile(rules map[string]Rule) (*Rules, error) {
	r := &Rules{exact: map[string]*rule{}, resource: &names{map[string]int{}}, point: &names{map[string]int{}}}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		one := rules[name]
		fail := func(field string, err error) {
			if err != nil {
				errs = append(errs, &Error{name, field, err})
			}
		}
		compiled := &rule{dataset: one.Dataset}
		fail("metrics", r.index(one.Metrics, compiled))
		for _, t := range one.Key {
			parsed, err := r.parse(t)
			compiled.key = append(compiled.key, parsed)
			fail("key", err)
		}
		for _, c := range slices.Sorted(maps.Keys(one.Columns)) {
			parsed, err := r.parse(one.Columns[c])
			compiled.columns = append(compiled.columns, column{c, parsed})
			fail("columns."+c, err)
		}
	}
	slices.SortStableFunc(r.prefixes, func(a, b prefixed) int { return len(b.prefix) - len(a.prefix) })
	return r, errors.Join(errs...)
}

// index makes metrics those of a rule.
func (r *Rules) index(metrics []string, to *rule) error {
	if len(metrics) == 0 {
		return errors.New("is missing; list the names of metrics")
	}
	for _, m := range metrics {
		prefix, isPrefix := strings.CutSuffix(m, "*")
		same := func(p prefixed) bool { return p.prefix == prefix }
		switch {
		case m == "" || strings.Contains(prefix, "*"):
			return fmt.Errorf("want names of metrics, of which the last byte may be *; got %q", m)
		case r.exact[m] != nil, isPrefix && slices.ContainsFunc(r.prefixes, same):
			return fmt.Errorf("%s is listed twice; a metric has one rule", m)
		case isPrefix:
			r.prefixes = append(r.prefixes, prefixed{prefix, to})
		default:
			r.exact[m] = to
		}
	}
	return nil
}

// parse parses a template.
func (r *Rules) parse(t string) (parsed template, err error) {
	if t == "" {
		return nil, errors.New("is empty; want text with placeholders, such as {resource.host.name}")
	}
	for t != "" {
		before, rest, found := strings.Cut(t, "{")
		if before != "" {
			parsed = append(parsed, part{kind: text, text: before})
		}
		if !found {
			return parsed, nil
		}
		name, after, closed := strings.Cut(rest, "}")
		p, ok := r.placeholder(name)
		if !closed || !ok {
			return nil, fmt.Errorf("{%s is no placeholder; use {name}, {unit}, {scope}, {value}, {time}, {resource.ATTRIBUTE} or {point.ATTRIBUTE}", rest)
		}
		parsed, t = append(parsed, p), after
	}
	return parsed, nil
}

func (r *Rules) placeholder(name string) (part, bool) {
	if attribute, ok := strings.CutPrefix(name, "resource."); ok && attribute != "" {
		return part{resourceAttribute, attribute, r.resource.add(attribute)}, true
	}
	if attribute, ok := strings.CutPrefix(name, "point."); ok && attribute != "" {
		return part{pointAttribute, attribute, r.point.add(attribute)}, true
	}
	k, ok := kinds[name]
	return part{kind: k}, ok
}

// find returns the rule of a metric, or nil.
func (r *Rules) find(name string) *rule {
	if exact := r.exact[name]; exact != nil {
		return exact
	}
	for _, p := range r.prefixes {
		if strings.HasPrefix(name, p.prefix) {
			return p.rule
		}
	}
	return nil
}
