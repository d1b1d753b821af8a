package metricrow

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/ringside-cache/ringside/origin"
)

// Value is a scalar: a string, a bool, an int64 or a float64; nil if there is none.
type Value any

// Point is one data point with what its row may have of it.
type Point struct {
	Metric, Unit, Scope string
	Time                int64 // nanoseconds since 1970
	Value               Value
	// Resource and Point are the attributes that the rules name, by the indices of Rules.Resource and Rules.Point.
	Resource, Point []Value
}

// Row is what a dataset has of a point.
type Row struct {
	Dataset, Key string
	Value        []byte // a JSON object
}

// Resource returns the index of an attribute of a resource, if a rule names it.
func (r *Rules) Resource(name []byte) (at int, ok bool) {
	at, ok = r.resource.index[string(name)]
	return at, ok
}

// Point returns the index of an attribute of a point, if a rule names it.
func (r *Rules) Point(name []byte) (at int, ok bool) {
	at, ok = r.point.index[string(name)]
	return at, ok
}

// Sizes returns how many attributes of resources and of points the rules name.
func (r *Rules) Sizes() (resource, point int) { return len(r.resource.index), len(r.point.index) }

// Has reports whether a metric has a rule.
func (r *Rules) Has(metric string) bool { return r.find(metric) != nil }

var errNotFinite = errors.New("the value is not a finite number, which no column can hold")

// Row returns the row of a point whose metric has a rule. An error is about the point.
func (r *Rules) Row(p *Point) (Row, error) {
	one := r.find(p.Metric)
	if f, ok := p.Value.(float64); ok && (math.IsNaN(f) || math.IsInf(f, 0)) { //guard:value-that-is-no-number-is-written
		return Row{}, errNotFinite
	}
	key := make([]string, len(one.key))
	for i, t := range one.key {
		var err error
		if key[i], err = t.text(p); err != nil {
			return Row{}, fmt.Errorf("its key: %w", err)
		}
	}
	b := []byte{'{'}
	for i, c := range one.columns {
		v, err := c.template.value(p)
		if err != nil {
			return Row{}, fmt.Errorf("column %s: %w", c.name, err)
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(appendJSON(b, c.name), ':'), appendJSON(nil, v)...)
	}
	return Row{Dataset: one.dataset, Key: origin.JoinKey(key...), Value: append(b, '}')}, nil
}

func appendJSON(b []byte, v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // a scalar, and no number that is not finite: see get
	}
	return append(b, text...)
}

// value returns that of a template, with its type if it is one placeholder. An attribute that is missing is null.
func (t template) value(p *Point) (Value, error) {
	if len(t) == 1 && t[0].kind != text {
		return t[0].get(p)
	}
	return t.text(p)
}

// text returns the text of a template.
func (t template) text(p *Point) (string, error) {
	b := []byte{}
	for _, part := range t {
		v, err := part.get(p)
		if err != nil {
			return "", err
		}
		switch v := v.(type) {
		case nil:
			return "", fmt.Errorf("it has no attribute %s", part.text)
		case string:
			b = append(b, v...)
		case bool:
			b = strconv.AppendBool(b, v)
		case int64:
			b = strconv.AppendInt(b, v, 10)
		case float64:
			b = strconv.AppendFloat(b, v, 'g', -1, 64)
		}
	}
	return string(b), nil
}

// get returns the value of a part; nil if it is an attribute that is missing.
func (a part) get(p *Point) (Value, error) {
	switch a.kind {
	case metricName:
		return p.Metric, nil
	case unit:
		return p.Unit, nil
	case scope:
		return p.Scope, nil
	case value:
		return p.Value, nil
	case moment:
		return time.Unix(0, p.Time).UTC().Format("2006-01-02T15:04:05.000000Z"), nil
	case resourceAttribute:
		return finite(p.Resource[a.at])
	case pointAttribute:
		return finite(p.Point[a.at])
	}
	return a.text, nil
}

func finite(v Value) (Value, error) {
	if f, ok := v.(float64); ok && (math.IsNaN(f) || math.IsInf(f, 0)) {
		return nil, errNotFinite
	}
	return v, nil
}
