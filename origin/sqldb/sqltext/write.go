package sqltext

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/origin"
)

// Parameter is a parameter of a statement, and the column that it is compared with or assigned to; errors name the column.
type Parameter struct {
	Column string
	Value  any
}

// Unchanged is the value of a column that is assigned its own value: otherwise the database would change it (ON UPDATE).
type Unchanged struct{}

// Step is one statement of a write or a list.
type Step struct {
	SQL        string
	Parameters []Parameter
	Creates    bool // it may create a row, with the version FirstVersion
}

// Builder writes a Step.
type Builder struct {
	Syntax     Syntax
	sql        strings.Builder
	parameters []Parameter
}

// Add appends formatted text.
func (b *Builder) Add(format string, args ...any) {
	fmt.Fprintf(&b.sql, format, args...)
}

// Parameter adds a parameter, and returns its name in the statement.
func (b *Builder) Parameter(p Parameter) string {
	b.parameters = append(b.parameters, p)
	return b.Syntax.Parameter(len(b.parameters))
}

// Step returns the statement.
func (b *Builder) Step() Step { return Step{SQL: b.sql.String(), Parameters: b.parameters} }

// WritePlan writes the statements of one change.
type WritePlan struct {
	Syntax  Syntax
	Dataset origin.Dataset
	Key     []Parameter // one for each column
	Set     []Parameter
	Whole   bool // Set has every column that can be written
}

// Steps returns the statements to run until one of them matches the row.
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
	// The database rejects an upsert of some columns because of those that it omits, even if the row exists.
	return []Step{p.update(c.If), p.insert(true)}
}

func (p *WritePlan) update(cond origin.Condition) Step {
	b := &Builder{Syntax: p.Syntax}
	b.Add("UPDATE %s AS t SET ", QuoteTable(p.Syntax, p.Dataset.Table))
	for i, a := range p.Set {
		b.Add("%s%s = %s", comma(i), p.Syntax.Quote(a.Column), p.assigned(b, a))
	}
	p.nextVersion(b, "")
	p.where(b, cond)
	p.returning(b)
	return b.Step()
}

func (p *WritePlan) assigned(b *Builder, a Parameter) string {
	if a.Value == (Unchanged{}) {
		return p.Syntax.Quote(a.Column)
	}
	return b.Parameter(a)
}

func comma(i int) string { return []string{"", ", "}[min(i, 1)] }

// nextVersion ends a list of assignments, which must not be empty.
func (p *WritePlan) nextVersion(b *Builder, of string) {
	column := p.Syntax.Quote(p.Dataset.Version)
	switch {
	case p.Dataset.Version != "":
		b.Add("%s%s = COALESCE(%s%s, 0) + 1", comma(len(p.Set)), column, of, column)
	case len(p.Set) == 0:
		key := p.Syntax.Quote(p.Key[0].Column)
		b.Add("%s = %s%s", key, of, key)
	}
}

func (p *WritePlan) where(b *Builder, cond origin.Condition) {
	b.Add(" WHERE %s", AndAll(p.Dataset.Key, func(i int, column string) string {
		return p.Syntax.Quote(column) + " = " + b.Parameter(p.Key[i])
	}))
	if cond.Version != 0 {
		b.Add(" AND %s = %s", p.Syntax.Quote(p.Dataset.Version), b.Parameter(Parameter{p.Dataset.Version, cond.Version}))
	}
	switch {
	case p.Dataset.Value != "" && cond.Absent:
		b.Add(" AND %s IS NULL", p.Syntax.Quote(p.Dataset.Value))
	case p.Dataset.Value != "" && cond != origin.Condition{}: //guard:null-value-present-to-writers
		b.Add(" AND %s IS NOT NULL", p.Syntax.Quote(p.Dataset.Value))
	}
}

func (p *WritePlan) returning(b *Builder) {
	if p.Syntax.Returning() {
		b.Add(" RETURNING %s, %s", KeyTexts(p.Dataset, p.Syntax), Selected(p.Dataset, p.Syntax))
	}
}

func (p *WritePlan) insert(replace bool) Step {
	b := &Builder{Syntax: p.Syntax}
	b.Add("INSERT INTO %s%s (", QuoteTable(p.Syntax, p.Dataset.Table), p.alias())
	p.values(b, slices.Concat(p.Key, p.Set))
	p.onConflict(b, replace)
	p.returning(b)
	s := b.Step()
	s.Creates = true
	return s
}

// values ends the first part of an INSERT, after the bracket before the columns.
func (p *WritePlan) values(b *Builder, set []Parameter) {
	marks := ""
	for i, a := range set {
		b.Add("%s%s", comma(i), p.Syntax.Quote(a.Column))
		marks += comma(i) + b.Parameter(a)
	}
	if p.Dataset.Version != "" {
		b.Add("%s%s", comma(len(set)), p.Syntax.Quote(p.Dataset.Version))
		marks += comma(len(set)) + p.Syntax.FirstVersion(b) //guard:recreated-row-has-older-version
	}
	b.Add(") VALUES (%s)", marks)
}

// Append returns the statement that inserts a row whose key the database generates, and returns the key as a read prints it,
// if it can.
func (p *WritePlan) Append(returning bool) Step {
	b := &Builder{Syntax: p.Syntax}
	b.Add("INSERT INTO %s ", QuoteTable(p.Syntax, p.Dataset.Table))
	if len(p.Set) == 0 && p.Dataset.Version == "" && p.Syntax.Upsert() { // () is not a list of columns where ON CONFLICT exists
		b.Add("DEFAULT VALUES")
	} else {
		b.Add("(")
		p.values(b, p.Set)
	}
	if returning {
		b.Add(" RETURNING %s", p.Syntax.KeyText(p.Syntax.Quote(p.Dataset.Key[0])))
	}
	return b.Step()
}

// Renew returns the statement that gives a row which the transaction has created a first version as of now.
func (p *WritePlan) Renew() Step {
	b := &Builder{Syntax: p.Syntax}
	b.Add("UPDATE %s AS t SET %s = %s", QuoteTable(p.Syntax, p.Dataset.Table), p.Syntax.Quote(p.Dataset.Version), p.Syntax.FirstVersion(b))
	p.where(b, origin.Condition{})
	p.returning(b)
	return b.Step()
}

// alias lets an upsert distinguish the existing row from the new one.
func (p *WritePlan) alias() string {
	if p.Syntax.Upsert() {
		return " AS t"
	}
	return ""
}

func (p *WritePlan) onConflict(b *Builder, replace bool) {
	if !p.Syntax.Upsert() {
		return
	}
	b.Add(" ON CONFLICT (%s) DO ", strings.Join(QuoteAll(p.Syntax, "", p.Dataset.Key), ", "))
	if !replace {
		b.Add("NOTHING")
		return
	}
	b.Add("UPDATE SET ")
	for i, a := range p.Set {
		column := p.Syntax.Quote(a.Column)
		b.Add("%s%s = excluded.%s", comma(i), column, column)
	}
	p.nextVersion(b, "t.")
}

func (p *WritePlan) delete(cond origin.Condition) Step {
	b := &Builder{Syntax: p.Syntax}
	b.Add("DELETE FROM %s", QuoteTable(p.Syntax, p.Dataset.Table))
	if p.Syntax.Returning() {
		b.Add(" AS t")
	}
	p.where(b, cond)
	p.returning(b)
	return b.Step()
}

// Values returns the parameters for the driver.
func (s Step) Values() []any {
	values := make([]any, len(s.Parameters))
	for i, a := range s.Parameters {
		values[i] = a.Value
	}
	return values
}
