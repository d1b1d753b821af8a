package postgres

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// syntax implements sqltext.Syntax.
type syntax struct{}

func (syntax) Quote(name string) string { return sqltext.QuoteWith(`"`, name) }

func (syntax) KeyText(column string) string { return column }

func (syntax) KeyBytes(column string) string { return "CAST(" + column + ` AS text) COLLATE "C"` }

// KeyLike writes the pattern in digits, so that nothing in it can end the literal.
func (s syntax) KeyLike(column, pattern string) string {
	return fmt.Sprintf("%s LIKE convert_from('\\x%x', 'UTF8') ESCAPE '|'", s.KeyBytes(column), pattern)
}

// SelectKeys compares several columns with the rows of several arrays. The query that is never run, as nothing refers to it,
// makes the arrays have the types of the columns: parameters get the type of their first use (PostgreSQL, 10.3 and 7.8).
func (s syntax) SelectKeys(selected, table string, columns []string) string {
	from, quoted := sqltext.QuoteTable(s, table), sqltext.QuoteAll(s, "t.", columns)
	each := sqltext.AndAll(quoted, func(i int, column string) string { return column + " = ANY(" + s.Parameter(i+1) + ")" })
	if len(columns) == 1 {
		return fmt.Sprintf("SELECT %s FROM %s AS t WHERE %s", selected, from, each)
	}
	return fmt.Sprintf("WITH types AS (SELECT FROM %s AS t WHERE %s) SELECT %s FROM %s AS t WHERE %s", from, each, selected, from,
		s.Batch(quoted))
}

func (s syntax) Batch(columns []string) string {
	if len(columns) <= 1 {
		return "= ANY($1)"
	}
	arrays := make([]string, len(columns))
	for i := range columns {
		arrays[i] = s.Parameter(i + 1)
	}
	return fmt.Sprintf("(%s) IN (SELECT * FROM unnest(%s))", strings.Join(columns, ", "), strings.Join(arrays, ", "))
}

func (syntax) Parameter(n int) string { return "$" + strconv.Itoa(n) }

func (syntax) SameBytes() string { return "" }

func (syntax) Returning() bool { return true }

func (syntax) Upsert() bool { return true }

// FirstVersion uses the clock of the database, which all sidecars share.
func (syntax) FirstVersion(*sqltext.Builder) string {
	return "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
}
