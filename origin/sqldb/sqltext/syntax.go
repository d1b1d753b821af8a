// Package sqltext writes the SQL statements that load and change the rows of a dataset. It is pure.
package sqltext

import (
	"fmt"
	"strings"
)

// Syntax is how one kind of database writes SQL.
type Syntax interface {
	// Quote quotes an identifier.
	Quote(name string) string
	// KeyText returns the expression whose text is compared with the requested keys.
	KeyText(column string) string
	// KeyBytes returns an expression that is equal for two rows if that text has the same bytes.
	KeyBytes(column string) string
	// KeyLike returns the condition that this text matches a pattern of LIKE with the escape character |, which may be text from
	// outside. It may ignore case and accents.
	KeyLike(column, pattern string) string
	// SelectKeys returns the SELECT of the rows of a table, as t, whose columns equal one of the keys of the statement's
	// parameters.
	SelectKeys(selected, table string, columns []string) string
	// Batch is how a batch query of the configuration compares key columns with its parameters.
	Batch(columns []string) string
	// Parameter is the n-th parameter, from 1, of a statement with several.
	Parameter(n int) string
	// SameBytes is the format of a condition that a text column has the bytes of a parameter; empty if = means that.
	SameBytes() string
	// Returning reports whether a change can return its row in the same form as a query.
	Returning() bool
	// Upsert reports whether INSERT supports ON CONFLICT (key).
	Upsert() bool
	// FirstVersion returns an expression for the version of a new row, perhaps with a parameter of b: microseconds since
	// 1970. It exceeds every earlier version of the key, if those also began so and grew by one with each write, and if the
	// statement does not wait for another write of the key: the expression is evaluated before that (WritePlan.Renew).
	FirstVersion(b *Builder) string
}

// Query is a query with one parameter for each column of a key.
type Query struct {
	SQL   string
	Keyed bool // its first columns are the key
	List  bool // the parameters stand for many keys

	Key   []string // the columns of the key; without Keyed, they are among those of its result
	Table string   // set if this package wrote the query
	// One is the same for one key, without List; nil unless Table is set. PostgreSQL plans a statement with = ANY($1) for each run,
	// and one with = $1 once.
	One *Query
}

// Width is how many columns a key has.
func (q *Query) Width() int { return max(1, len(q.Key)) }

// QuoteWith quotes an identifier as SQL does: quotes inside are doubled.
func QuoteWith(q, name string) string {
	return q + strings.ReplaceAll(name, q, q+q) + q
}

// Expand repeats the parameter of a list, (?), for each key. rows is the word before a list of keys with several columns.
func (q *Query) Expand(keys int, rows string) string {
	if !q.List {
		return q.SQL
	}
	one := "?"
	if q.Width() > 1 {
		one = "(?" + strings.Repeat(",?", q.Width()-1) + ")"
	} else {
		rows = ""
	}
	return strings.Replace(q.SQL, listParameter, "("+rows+one+strings.Repeat(","+one, keys-1)+")", 1)
}

// AndAll writes a condition for each of several columns.
func AndAll(columns []string, condition func(i int, column string) string) string {
	all := make([]string, len(columns))
	for i, column := range columns {
		all[i] = condition(i, column)
	}
	return strings.Join(all, " AND ")
}

// QuoteAll quotes the columns of a table t.
func QuoteAll(s Syntax, prefix string, columns []string) []string {
	quoted := make([]string, len(columns))
	for i, column := range columns {
		quoted[i] = prefix + s.Quote(column)
	}
	return quoted
}

// SelectIn returns SELECT … FROM table AS t WHERE t.column IN (?), for databases whose statements are expanded (Query.Expand).
func SelectIn(s Syntax, selected, table string, columns []string) string {
	list := strings.Join(QuoteAll(s, "t.", columns), ", ")
	if len(columns) > 1 {
		list = "(" + list + ")"
	}
	return fmt.Sprintf("SELECT %s FROM %s AS t WHERE %s IN %s", selected, QuoteTable(s, table), list, listParameter)
}

// BatchIn is Syntax.Batch of these databases.
func BatchIn(columns []string) string {
	if len(columns) > 1 {
		return "(" + strings.Join(columns, ", ") + ") IN " + listParameter
	}
	return "IN " + listParameter
}

// listParameter is the place of the keys in the batch queries of MySQL and SQLite.
const listParameter = "(?)"

// SplitTable splits table or schema.table.
func SplitTable(table string) (schema, name string) {
	schema, name, ok := strings.Cut(table, ".")
	if !ok {
		return "", table
	}
	return schema, name
}
