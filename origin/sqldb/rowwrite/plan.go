package rowwrite

import (
	"slices"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
	"github.com/ringside-cache/ringside/origin/sqldb/tables"
)

// Planner plans the changes of a dataset's rows.
type Planner struct {
	Dataset       origin.Dataset
	Syntax        sqltext.Syntax
	MaxValueBytes int
}

// Check finds what is wrong with a change without the database.
func (p *Planner) Check(c origin.Change) error {
	set := rowset.New(p.Dataset, 0)
	if len(set.ValidKeys([]string{c.Key})) == 0 {
		return set.Result(c.Key).Err
	}
	if c.If.Version != 0 && p.Dataset.Version == "" {
		return origin.InvalidValue("", "the dataset has no version column to compare: set `version`, or use another condition")
	}
	return p.checkSize(c.Data)
}

func (p *Planner) checkSize(data []byte) error {
	if limit := p.MaxValueBytes; len(data) > limit {
		return origin.InvalidValue("", "the value has %d bytes, and the limit is %d", len(data), limit)
	}
	return nil
}

// Plan returns the transaction of a change that Check accepts.
func (p *Planner) Plan(t *tables.Table, c origin.Change) (*Transaction, error) {
	ds := p.Dataset
	key, err := t.KeyParameters(ds, c.Key)
	if err != nil {
		return nil, err
	}
	if c.Delete {
		ds.Columns, ds.Value = ds.Key, "" // only the version is needed
	}
	tx := p.transaction(t, ds, c)
	tx.plan.Key, tx.generatedKey = key, generatedKey(t, ds)
	if !c.Delete {
		if tx.assignments, tx.namedKey, err = p.assignments(t, c); err != nil {
			return nil, err
		}
	}
	if !tx.compares() {
		tx.planSteps(c, parametersOf(tx.assignments))
	}
	tx.Forget()
	return tx, nil
}

func (p *Planner) transaction(t *tables.Table, ds origin.Dataset, c origin.Change) *Transaction {
	return &Transaction{
		Change: c, Query: sqltext.Load(ds, p.Syntax), Rows: rowset.New(ds, p.MaxValueBytes),
		plan:    &sqltext.WritePlan{Syntax: p.Syntax, Dataset: ds},
		View:    t.View,
		columns: p.writable(t.Columns),
	}
}

// generatedKey returns the key column that the database generates, or "".
func generatedKey(t *tables.Table, ds origin.Dataset) string {
	for _, name := range ds.Key {
		if c := t.Column(name); c != nil && c.Generated {
			return name
		}
	}
	return ""
}

func parametersOf(assignments []assignment) []sqltext.Parameter {
	set := make([]sqltext.Parameter, len(assignments))
	for i, a := range assignments {
		set[i] = sqltext.Parameter{Column: a.Name, Value: a.parameter}
	}
	return set
}

// planSteps plans the statements that set these columns. A key that the database generates cannot be inserted.
func (tx *Transaction) planSteps(c origin.Change, set []sqltext.Parameter) {
	if len(set) == 0 && tx.generatedKey != "" && len(tx.columns) > 0 { // the statement must assign something, but not the key
		set = []sqltext.Parameter{{Column: tx.columns[0].Name, Value: sqltext.Unchanged{}}}
	}
	tx.plan.Set, tx.plan.Whole = set, len(set) == len(tx.columns)
	if tx.generatedKey != "" && !c.Delete && c.If == (origin.Condition{}) {
		c.If.Present = true
	}
	tx.Steps = tx.plan.Steps(c)
}

// writable returns the columns that a value may set.
func (p *Planner) writable(columns []rowjson.Column) []rowjson.Column {
	ds := p.Dataset
	return slices.DeleteFunc(slices.Clone(columns), func(c rowjson.Column) bool {
		return slices.Contains(ds.Key, c.Name) || c.Name == ds.Version || c.Generated
	})
}
