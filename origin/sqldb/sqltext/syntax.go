// Package sqltext writes the SQL statements that load and change the rows of a dataset. It is pure.
package sqltext

import "strings"

// Syntax is how one kind of database writes SQL.
type Syntax interface {
	// Quote quotes an identifier.
	Quote(name string) string
	// KeyText returns the expression whose text is compared with the requested keys.
	KeyText(column string) string
	// InKeys follows a column in a condition that holds for each key of the statement's parameter.
	InKeys() string
	// KeyParameter is the one parameter of a statement that loads keys.
	KeyParameter() string
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

// Query is a query with one parameter, for keys.
type Query struct {
	SQL   string
	Keyed bool // the first column of its result is the key
	List  bool // the parameter stands for many keys

	Table, Key string // set if this package wrote the query
}

// QuoteWith quotes an identifier as SQL does: quotes inside are doubled.
func QuoteWith(q, name string) string {
	return q + strings.ReplaceAll(name, q, q+q) + q
}

// Expand repeats the parameter of a list, (?), for each key.
func (q *Query) Expand(keys int) string {
	if !q.List {
		return q.SQL
	}
	return strings.Replace(q.SQL, listParameter, "(?"+strings.Repeat(",?", keys-1)+")", 1)
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
