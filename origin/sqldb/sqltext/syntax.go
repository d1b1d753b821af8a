// Package sqltext writes the SQL statements that load and change the rows of a dataset. It is pure.
package sqltext

import "strings"

// syntax is how one kind of database writes SQL.
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
	// FirstVersion returns an expression for the version of a new row, perhaps with a parameter of d: microseconds since
	// 1970. It exceeds every earlier version of the key, if those also began so and grew by one with each write.
	FirstVersion(d *Builder) string
}

// statement is a query with one parameter.
type Query struct {
	SQL   string
	Keyed bool // the first column of its result is the key
	List  bool // the parameter stands for many keys

	Table, Key string // of a statement that this package made; empty otherwise
}

// quoteWith quotes an identifier as SQL does: the quote inside is doubled.
func QuoteWith(q, name string) string {
	return q + strings.ReplaceAll(name, q, q+q) + q
}

// expand writes the parameter of a list, (?), once per key.
func Expand(st *Query, keys int) string {
	if !st.List {
		return st.SQL
	}
	return strings.Replace(st.SQL, listParameter, "(?"+strings.Repeat(",?", keys-1)+")", 1)
}

// listParameter is what stands for the keys in the batch statements of MySQL and SQLite.
const listParameter = "(?)"

func SplitTable(table string) (schema, name string) {
	schema, name, ok := strings.Cut(table, ".")
	if !ok {
		return "", table
	}
	return schema, name
}
