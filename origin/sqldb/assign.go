package sqldb

import (
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// assignments returns the columns that a value sets. The second result is its key member, unless that has the bytes of the key.
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
		case w.source.dataset.Version: // only the database sets it
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
		return sqltext.Parameter{}, origin.InvalidValue(m.Name, "there is no such column; the columns are %s", namesOf(w.writable(t.Columns)))
	case len(ds.Columns) > 0 && !slices.Contains(ds.Columns, m.Name):
		return sqltext.Parameter{}, origin.InvalidValue(m.Name, "it is not among `columns` of the dataset, which are %s",
			strings.Join(ds.Columns, ", "))
	case column.Generated:
		return sqltext.Parameter{}, origin.InvalidValue(m.Name, "the database generates it: leave it out")
	}
	v, err := column.Decode(m.Input)
	return sqltext.Parameter{Column: m.Name, Value: v}, err
}

// checkKey compares the key member of the value with that of the row, if it is not the key as text: it may be a time.
func (tx *WriteTransaction) checkKey(row []byte) error {
	if tx.namedKey == nil {
		return nil
	}
	members, err := rowjson.ParseRow(row)
	for _, m := range members {
		same := m.Input.Text == tx.namedKey.Text && m.Input.Kind == tx.namedKey.Kind
		if err == nil && m.Name == tx.keyColumn && same {
			return nil
		}
	}
	return origin.InvalidValue(tx.keyColumn, "it differs from the key of the write: leave it out, or use the same key")
}
