package sqldb

import (
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// assignments are what a value sets. The second result is what it names as key, unless that is the key to the byte.
func (w *rowWriter) assignments(t *Table, c origin.Change) (set []sqltext.Parameter, key *rowjson.Input, err error) {
	if name := w.source.dataset.Value; name != "" {
		a, err := w.assignment(t, rowjson.Member{Name: name, Input: rowjson.PlainInput(string(c.Data))})
		return []sqltext.Parameter{a}, nil, err
	}
	members, err := rowjson.ParseRow(c.Data)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range members {
		switch m.Name {
		case w.source.dataset.Version: // is the database's alone
		case w.source.dataset.Key:
			if m.Input.Text != c.Key {
				key = &m.Input
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

func (w *rowWriter) assignment(t *Table, m rowjson.Member) (sqltext.Parameter, error) {
	ds, column := w.source.dataset, t.Column(m.Name)
	switch {
	case column == nil:
		return sqltext.Parameter{}, origin.InvalidValue(m.Name, "there is no such column; there is %s", namesOf(w.writable(t.Columns)))
	case len(ds.Columns) > 0 && !slices.Contains(ds.Columns, m.Name):
		return sqltext.Parameter{}, origin.InvalidValue(m.Name, "it is not among `columns` of the dataset, which are %s",
			strings.Join(ds.Columns, ", "))
	case column.Generated:
		return sqltext.Parameter{}, origin.InvalidValue(m.Name, "the database generates it: leave it out")
	}
	v, err := column.Decode(m.Input)
	return sqltext.Parameter{Column: m.Name, Value: v}, err
}

// checkKey compares what the value named as key with what the row has, where that is not the key as text: a time, say.
func (e *WriteTransaction) checkKey(row []byte) error {
	if e.namedKey == nil {
		return nil
	}
	members, err := rowjson.ParseRow(row)
	for _, m := range members {
		same := m.Input.Text == e.namedKey.Text && m.Input.Kind == e.namedKey.Kind
		if err == nil && m.Name == e.keyColumn && same {
			return nil
		}
	}
	return origin.InvalidValue(e.keyColumn, "it is not the key that is written: leave it out, or give that")
}
