package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/ringside-cache/ringside/origin"
)

// changer is what differs between databases that are written to.
type changer interface {
	// table reads what the catalog says of a table whose key is a column.
	table(ctx context.Context, conn *sql.Conn, name, key string) (*table, error)
	// mark is how a statement of many parameters names its n-th one, from 1.
	mark(n int) string
	// returns reports whether a change can return its row, in the same form as a query.
	returns() bool
	// upserts reports whether INSERT knows ON CONFLICT (key).
	upserts() bool
	// firstVersion is an expression for the version of a new row, perhaps with a parameter of d: microseconds since 1970,
	// more than any row of the key can have had that began so, too, and then grew by one with each write.
	firstVersion(d *draft) string
	// list runs a statement whose first column is the key, and gives its rows to c.
	list(ctx context.Context, conn *sql.Conn, st *statement, args []assignment, c *collector) error
	// exactly is the format of a condition that a column of text has the bytes of a parameter, where = may mean less.
	exactly() string
	// writable says what of a table keeps its rows from being written safely.
	writable(ctx context.Context, conn *sql.Conn, ds origin.Dataset) error
	// rehearses returns how a transaction begins that is to be rolled back, and what comes before a statement so that
	// it is judged there.
	rehearses() (begin, prefix string)
	// change makes an edit in one transaction. An error that wraps origin.ErrUnknown means that its COMMIT was sent; all
	// others mean that nothing was written, and driver.ErrBadConn or errAgain that another attempt may succeed.
	change(ctx context.Context, conn *sql.Conn, e *edit) error
}

// assignment is a column and what it shall hold.
type assignment struct {
	column string
	value  any
}

// step is one statement of an edit. Its parameters are assignments, so that an error can name the column.
type step struct {
	sql  string
	args []assignment
}

// draft is a step being written.
type draft struct {
	dialect dialect
	sql     strings.Builder
	args    []assignment
}

func (d *draft) add(format string, args ...any) {
	fmt.Fprintf(&d.sql, format, args...)
}

// value adds a parameter, and returns how the statement names it.
func (d *draft) value(a assignment) string {
	d.args = append(d.args, a)
	return d.dialect.mark(len(d.args))
}

func (d *draft) step() step { return step{d.sql.String(), d.args} }

// plan writes the statements of one change.
type plan struct {
	dialect dialect
	dataset origin.Dataset
	key     assignment
	set     []assignment
	whole   bool // set has every column that can be written
}

// steps returns the statements to try, until one of them meets the row.
func (p *plan) steps(c origin.Change) []step {
	switch {
	case c.Delete:
		return []step{p.delete(c.If)}
	case c.If.Present, c.If.Version != 0:
		return []step{p.update(c.If)}
	case c.If.Absent && p.dataset.Value == "":
		return []step{p.insert(false)}
	case c.If.Absent: // a row whose value is NULL is absent to readers
		return []step{p.update(c.If), p.insert(false)}
	case p.whole && p.dialect.upserts(): //guard:part-row-refused-leaves-out
		return []step{p.insert(true)}
	}
	// An upsert of a part is refused for what it leaves out, even when there is a row that has it.
	return []step{p.update(c.If), p.insert(true)}
}

func (p *plan) update(cond origin.Condition) step {
	d := &draft{dialect: p.dialect}
	d.add("UPDATE %s AS t SET ", quoteTable(p.dialect, p.dataset.Table))
	for i, a := range p.set {
		d.add("%s%s = %s", comma(i), p.dialect.quote(a.column), d.value(a))
	}
	p.nextVersion(d, "")
	p.where(d, cond)
	p.returning(d)
	return d.step()
}

func comma(i int) string { return []string{"", ", "}[min(i, 1)] }

// nextVersion ends a list of assignments, which must not be empty.
func (p *plan) nextVersion(d *draft, of string) {
	column := p.dialect.quote(p.dataset.Version)
	switch {
	case p.dataset.Version != "":
		d.add("%s%s = COALESCE(%s%s, 0) + 1", comma(len(p.set)), column, of, column)
	case len(p.set) == 0:
		key := p.dialect.quote(p.dataset.Key)
		d.add("%s = %s%s", key, of, key)
	}
}

func (p *plan) where(d *draft, cond origin.Condition) {
	d.add(" WHERE %s = %s", p.dialect.quote(p.dataset.Key), d.value(p.key))
	if cond.Version != 0 {
		d.add(" AND %s = %s", p.dialect.quote(p.dataset.Version), d.value(assignment{p.dataset.Version, cond.Version}))
	}
	switch {
	case p.dataset.Value != "" && cond.Absent:
		d.add(" AND %s IS NULL", p.dialect.quote(p.dataset.Value))
	case p.dataset.Value != "" && cond != origin.Condition{}: //guard:row-whose-value-null-there-writers
		d.add(" AND %s IS NOT NULL", p.dialect.quote(p.dataset.Value))
	}
}

func (p *plan) returning(d *draft) {
	if p.dialect.returns() {
		d.add(" RETURNING t.%s, %s", p.dialect.quote(p.dataset.Key), selected(p.dataset, p.dialect))
	}
}

func (p *plan) insert(replace bool) step {
	d := &draft{dialect: p.dialect}
	d.add("INSERT INTO %s%s (%s", quoteTable(p.dialect, p.dataset.Table), p.alias(), p.dialect.quote(p.dataset.Key))
	marks := d.value(p.key)
	for _, a := range p.set {
		d.add(", %s", p.dialect.quote(a.column))
		marks += ", " + d.value(a)
	}
	if p.dataset.Version != "" {
		d.add(", %s", p.dialect.quote(p.dataset.Version))
		marks += ", " + p.dialect.firstVersion(d) //guard:row-comes-back-older-than-before
	}
	d.add(") VALUES (%s)", marks)
	p.onConflict(d, replace)
	p.returning(d)
	return d.step()
}

// alias lets an upsert tell the row that is there from the new one.
func (p *plan) alias() string {
	if p.dialect.upserts() {
		return " AS t"
	}
	return ""
}

func (p *plan) onConflict(d *draft, replace bool) {
	if !p.dialect.upserts() {
		return
	}
	d.add(" ON CONFLICT (%s) DO ", p.dialect.quote(p.dataset.Key))
	if !replace {
		d.add("NOTHING")
		return
	}
	d.add("UPDATE SET ")
	for i, a := range p.set {
		column := p.dialect.quote(a.column)
		d.add("%s%s = excluded.%s", comma(i), column, column)
	}
	p.nextVersion(d, "t.")
}

func (p *plan) delete(cond origin.Condition) step {
	d := &draft{dialect: p.dialect}
	d.add("DELETE FROM %s", quoteTable(p.dialect, p.dataset.Table))
	if p.dialect.returns() {
		d.add(" AS t")
	}
	p.where(d, cond)
	p.returning(d)
	return d.step()
}
