package sqldb

import (
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/origin"
)

// assignments are what a value sets. The second result is what it names as key, unless that is the key to the byte.
func (w *rowWriter) assignments(t *table, c origin.Change) (set []assignment, key *given, err error) {
	if name := w.source.dataset.Value; name != "" {
		a, err := w.assignment(t, member{name, given{kind: plain, text: string(c.Data)}})
		return []assignment{a}, nil, err
	}
	members, err := parseRow(c.Data)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range members {
		switch m.name {
		case w.source.dataset.Version: // is the database's alone
		case w.source.dataset.Key:
			if m.given.text != c.Key {
				key = &m.given
			}
		default:
			a, err := w.assignment(t, m)
			if err != nil {
				return nil, nil, err
			}
			set = append(set, a)
		}
	}
	return set, key, nil
}

func (w *rowWriter) assignment(t *table, m member) (assignment, error) {
	ds, column := w.source.dataset, t.column(m.name)
	switch {
	case column == nil:
		return assignment{}, invalid(m.name, "there is no such column; there is %s", namesOf(w.writable(t.columns)))
	case len(ds.Columns) > 0 && !slices.Contains(ds.Columns, m.name):
		return assignment{}, invalid(m.name, "it is not among `columns` of the dataset, which are %s",
			strings.Join(ds.Columns, ", "))
	case column.generated:
		return assignment{}, invalid(m.name, "the database generates it: leave it out")
	}
	v, err := column.take(m.given)
	return assignment{m.name, v}, err
}

// checkKey compares what the value named as key with what the row has, where that is not the key as text: a time, say.
func (e *edit) checkKey(row []byte) error {
	if e.namedKey == nil {
		return nil
	}
	members, err := parseRow(row)
	for _, m := range members {
		same := m.given.text == e.namedKey.text && m.given.kind == e.namedKey.kind
		if err == nil && m.name == e.keyColumn && same {
			return nil
		}
	}
	return invalid(e.keyColumn, "it is not the key that is written: leave it out, or give that")
}

// checkWriter finds what of a dataset no write can be made of.
func checkWriter(ds origin.Dataset) error {
	if ds.Value != "" && (ds.Value == ds.Key || ds.Value == ds.Version) {
		return invalid(ds.Value, "`value` must be another column than `key` and `version`, which a value does not set")
	}
	return nil
}
