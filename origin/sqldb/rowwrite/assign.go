package rowwrite

import (
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
	"github.com/ringside-cache/ringside/origin/sqldb/tables"
)

// assignment is a member of a value for a column of the row.
type assignment struct {
	rowjson.Member
	column    *rowjson.Column
	parameter any
	err       error // why the column cannot store it; not returned if it is what the column holds
}

// assignments returns the columns that a value sets. The second result is its members for columns of the key, except those that
// have the bytes of the key.
func (p *Planner) assignments(t *tables.Table, c origin.Change) (set []assignment, key []rowjson.Member, err error) {
	if name := p.Dataset.Value; name != "" {
		a, err := p.assign(t, rowjson.Member{Name: name, Input: rowjson.PlainInput(string(c.Data))})
		return []assignment{a}, nil, err
	}
	members, err := rowjson.ParseRow(c.Data)
	if err != nil {
		return nil, nil, err
	}
	components, err := origin.SplitKey(c.Key, p.Dataset.Key)
	if err != nil {
		return nil, nil, err
	}
	for _, m := range members {
		switch i := slices.Index(p.Dataset.Key, m.Name); {
		case i >= 0 && c.Key == "": // an append
			if m.Input.Kind != rowjson.Null { //guard:key-of-an-append-ignored
				return nil, nil, origin.InvalidValue(m.Name, "the database generates the key: leave it out")
			}
		case i >= 0:
			if m.Input.Text != components[i] {
				key = append(key, m)
			}
		case m.Name == p.Dataset.Version: // only the database sets it
		default:
			a, err := p.assign(t, m)
			if err != nil {
				return nil, nil, err
			}
			set = append(set, a)
		}
	}
	return set, key, nil
}

func (p *Planner) assign(t *tables.Table, m rowjson.Member) (a assignment, err error) {
	ds, column := p.Dataset, t.Column(m.Name)
	switch {
	case column == nil:
		return a, origin.InvalidValue(m.Name, "there is no such column; the columns are %s", tables.Names(p.writable(t.Columns)))
	case len(ds.Columns) > 0 && !slices.Contains(ds.Columns, m.Name):
		return a, origin.InvalidValue(m.Name, "it is not among `columns` of the dataset, which are %s",
			strings.Join(ds.Columns, ", "))
	case column.Generated && ds.Value != "":
		return a, origin.InvalidValue(m.Name, "the database generates it, so that it cannot be written")
	}
	a = assignment{Member: m, column: column}
	if !column.Generated {
		a.parameter, a.err = column.Decode(m.Input)
	}
	if a.err != nil && !column.Ambiguous(m.Input) {
		return a, a.err
	}
	return a, nil
}

// compareWith plans the steps again for the row that read adds to Rows, if that matters.
func (tx *Transaction) compareWith(read func() error) error {
	if !tx.compares() {
		return nil
	}
	tx.Forget()
	if err := read(); err != nil {
		return err
	}
	return tx.compare()
}

// compares reports whether the row must be read and locked before the steps, for compare: a member of the value may be what
// a column holds although the column does not accept it, or would store it in another form.
func (tx *Transaction) compares() bool {
	return slices.ContainsFunc(tx.assignments, func(a assignment) bool { return a.column.Ambiguous(a.Input) })
}

// compare plans the steps for the row that Rows received: a column that is read as the value has it already is not assigned, so
// that a value which was read can be written back without change.
func (tx *Transaction) compare() error {
	stored, exists := tx.stored()
	tx.Forget()
	if exists && tx.Change.If.Absent {
		return tx.NotMatched()
	}
	var set []sqltext.Parameter
	for _, a := range tx.assignments {
		held, ok := stored[a.Name]
		unchanged := ok && held.Equal(a.Input) //guard:unchanged-value-rewritten
		switch {
		case unchanged && a.column.AutoUpdate && !a.column.Generated:
			set = append(set, sqltext.Parameter{Column: a.Name, Value: sqltext.Unchanged{}})
		case unchanged:
		case a.column.Generated: // perhaps it is what the database generates
			tx.generated = append(tx.generated, a.Member)
		case a.err != nil:
			return a.err
		default:
			set = append(set, sqltext.Parameter{Column: a.Name, Value: a.parameter})
		}
	}
	c := tx.Change
	if exists && c.If == (origin.Condition{}) {
		c.If.Present = true
	}
	tx.planSteps(c, set)
	return nil
}

// stored returns the members of the row that Rows received.
func (tx *Transaction) stored() (members map[string]rowjson.Input, exists bool) {
	row := tx.Rows.Result(tx.Change.Key)
	if tx.Rows.RowsOf(tx.Change.Key) != 1 || row.Err != nil {
		return nil, false
	}
	if name := tx.plan.Dataset.Value; name != "" {
		return map[string]rowjson.Input{name: rowjson.PlainInput(string(row.Value.Data))}, true
	}
	list, err := rowjson.ParseRow(row.Value.Data)
	if err != nil {
		return nil, false
	}
	members = make(map[string]rowjson.Input, len(list))
	for _, m := range list {
		members[m.Name] = m.Input
	}
	return members, true
}

// checkMembers compares members that the statement did not assign with those of the row that it wrote: the key, if it is not
// the key as text (it may be a time), and generated columns.
func (tx *Transaction) checkMembers(row []byte) error {
	if len(tx.namedKey) == 0 && len(tx.generated) == 0 {
		return nil
	}
	members, err := rowjson.ParseRow(row)
	if err != nil {
		return err
	}
	has := func(name string, in rowjson.Input) bool {
		return slices.ContainsFunc(members, func(m rowjson.Member) bool { return m.Name == name && m.Input.Equal(in) })
	}
	for _, m := range tx.namedKey {
		if !has(m.Name, m.Input) { //guard:key-of-value-ignored
			return origin.InvalidValue(m.Name, "it differs from the key of the write: leave it out, or use the same key")
		}
	}
	for _, m := range tx.generated {
		if !has(m.Name, m.Input) { //guard:generated-value-ignored
			return origin.InvalidValue(m.Name, "the database generates it, and with another value: leave it out")
		}
	}
	return nil
}
