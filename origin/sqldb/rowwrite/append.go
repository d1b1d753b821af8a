package rowwrite

import (
	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
	"github.com/ringside-cache/ringside/origin/sqldb/tables"
)

// Append plans the transaction of a new row whose key the database generates. It has one step; the key is known after it, and then
// the row is read by it and verified as that of any other write.
func (p *Planner) Append(t *tables.Table, data []byte) (*Transaction, error) {
	if err := t.CheckAppend(p.Dataset); err != nil {
		return nil, err
	}
	if err := p.checkSize(data); err != nil {
		return nil, err
	}
	c := origin.Change{Data: data}
	tx := p.transaction(t, p.Dataset, c)
	assignments, _, err := p.assignments(t, c)
	if err != nil {
		return nil, err
	}
	for _, a := range assignments {
		switch {
		case a.column.Generated: // perhaps it is what the database generates
			tx.generated = append(tx.generated, a.Member)
		case a.err != nil:
			return nil, a.err
		default:
			tx.plan.Set = append(tx.plan.Set, sqltext.Parameter{Column: a.Name, Value: a.parameter})
		}
	}
	tx.Appends = t.Generates
	tx.Steps = []sqltext.Step{tx.plan.Append(tx.Appends == tables.GeneratedReturned)}
	return tx, nil
}

// SetKey sets the key that the step has generated; empty if the step has inserted no row.
func (tx *Transaction) SetKey(key string) error {
	column := tx.plan.Dataset.Key[0]
	switch {
	case key == "":
		return errSuppressed
	case len(rowset.New(tx.plan.Dataset, 0).ValidKeys([]string{key})) == 0:
		return origin.InvalidValue(column, "the database generates a key by which no row can be read; nothing was written")
	}
	tx.Change.Key = key
	return nil
}
