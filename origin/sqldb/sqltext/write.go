package sqltext

import (
	"fmt"
	"strings"

	"github.com/ringside-cache/ringside/origin"
)

// assignment is a column and what it shall hold.
type Parameter struct {
	Column string
	Value  any
}

// step is one statement of an edit. Its parameters are assignments, so that an error can name the column.
type Step struct {
	SQL        string
	Parameters []Parameter
}

// draft is a step being written.
type Builder struct {
	Syntax     Syntax
	sql        strings.Builder
	parameters []Parameter
}

func (d *Builder) Add(format string, args ...any) {
	fmt.Fprintf(&d.sql, format, args...)
}

// value adds a parameter, and returns how the statement names it.
func (d *Builder) Parameter(a Parameter) string {
	d.parameters = append(d.parameters, a)
	return d.Syntax.Parameter(len(d.parameters))
}

func (d *Builder) Step() Step { return Step{d.sql.String(), d.parameters} }

// plan writes the statements of one change.
type WritePlan struct {
	Syntax  Syntax
	Dataset origin.Dataset
	Key     Parameter
	Set     []Parameter
	Whole   bool // set has every column that can be written
}

// steps returns the statements to try, until one of them meets the row.
func (p *WritePlan) Steps(c origin.Change) []Step {
	switch {
	case c.Delete:
		return []Step{p.delete(c.If)}
	case c.If.Present, c.If.Version != 0:
		return []Step{p.update(c.If)}
	case c.If.Absent && p.Dataset.Value == "":
		return []Step{p.insert(false)}
	case c.If.Absent: // a row whose value is NULL is absent to readers
		return []Step{p.update(c.If), p.insert(false)}
	case p.Whole && p.Syntax.Upsert(): //guard:partial-update-rejected
		return []Step{p.insert(true)}
	}
	// An upsert of a part is refused for what it leaves out, even when there is a row that has it.
	return []Step{p.update(c.If), p.insert(true)}
}

func (p *WritePlan) update(cond origin.Condition) Step {
	d := &Builder{Syntax: p.Syntax}
	d.Add("UPDATE %s AS t SET ", QuoteTable(p.Syntax, p.Dataset.Table))
	for i, a := range p.Set {
		d.Add("%s%s = %s", comma(i), p.Syntax.Quote(a.Column), d.Parameter(a))
	}
	p.nextVersion(d, "")
	p.where(d, cond)
	p.returning(d)
	return d.Step()
}

func comma(i int) string { return []string{"", ", "}[min(i, 1)] }

// nextVersion ends a list of assignments, which must not be empty.
func (p *WritePlan) nextVersion(d *Builder, of string) {
	column := p.Syntax.Quote(p.Dataset.Version)
	switch {
	case p.Dataset.Version != "":
		d.Add("%s%s = COALESCE(%s%s, 0) + 1", comma(len(p.Set)), column, of, column)
	case len(p.Set) == 0:
		key := p.Syntax.Quote(p.Dataset.Key)
		d.Add("%s = %s%s", key, of, key)
	}
}

func (p *WritePlan) where(d *Builder, cond origin.Condition) {
	d.Add(" WHERE %s = %s", p.Syntax.Quote(p.Dataset.Key), d.Parameter(p.Key))
	if cond.Version != 0 {
		d.Add(" AND %s = %s", p.Syntax.Quote(p.Dataset.Version), d.Parameter(Parameter{p.Dataset.Version, cond.Version}))
	}
	switch {
	case p.Dataset.Value != "" && cond.Absent:
		d.Add(" AND %s IS NULL", p.Syntax.Quote(p.Dataset.Value))
	case p.Dataset.Value != "" && cond != origin.Condition{}: //guard:null-value-present-to-writers
		d.Add(" AND %s IS NOT NULL", p.Syntax.Quote(p.Dataset.Value))
	}
}

func (p *WritePlan) returning(d *Builder) {
	if p.Syntax.Returning() {
		d.Add(" RETURNING t.%s, %s", p.Syntax.Quote(p.Dataset.Key), Selected(p.Dataset, p.Syntax))
	}
}

func (p *WritePlan) insert(replace bool) Step {
	d := &Builder{Syntax: p.Syntax}
	d.Add("INSERT INTO %s%s (%s", QuoteTable(p.Syntax, p.Dataset.Table), p.alias(), p.Syntax.Quote(p.Dataset.Key))
	marks := d.Parameter(p.Key)
	for _, a := range p.Set {
		d.Add(", %s", p.Syntax.Quote(a.Column))
		marks += ", " + d.Parameter(a)
	}
	if p.Dataset.Version != "" {
		d.Add(", %s", p.Syntax.Quote(p.Dataset.Version))
		marks += ", " + p.Syntax.FirstVersion(d) //guard:recreated-row-has-older-version
	}
	d.Add(") VALUES (%s)", marks)
	p.onConflict(d, replace)
	p.returning(d)
	return d.Step()
}

// alias lets an upsert tell the row that is there from the new one.
func (p *WritePlan) alias() string {
	if p.Syntax.Upsert() {
		return " AS t"
	}
	return ""
}

func (p *WritePlan) onConflict(d *Builder, replace bool) {
	if !p.Syntax.Upsert() {
		return
	}
	d.Add(" ON CONFLICT (%s) DO ", p.Syntax.Quote(p.Dataset.Key))
	if !replace {
		d.Add("NOTHING")
		return
	}
	d.Add("UPDATE SET ")
	for i, a := range p.Set {
		column := p.Syntax.Quote(a.Column)
		d.Add("%s%s = excluded.%s", comma(i), column, column)
	}
	p.nextVersion(d, "t.")
}

func (p *WritePlan) delete(cond origin.Condition) Step {
	d := &Builder{Syntax: p.Syntax}
	d.Add("DELETE FROM %s", QuoteTable(p.Syntax, p.Dataset.Table))
	if p.Syntax.Returning() {
		d.Add(" AS t")
	}
	p.where(d, cond)
	p.returning(d)
	return d.Step()
}

// values are the parameters as the driver takes them.
func (s Step) Values() []any {
	values := make([]any, len(s.Parameters))
	for i, a := range s.Parameters {
		values[i] = a.Value
	}
	return values
}
