package mysql

import (
	"fmt"

	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// syntax implements sqltext.Syntax.
type syntax struct{}

func (syntax) Quote(name string) string { return sqltext.QuoteWith("`", name) }

func (syntax) KeyText(column string) string { return column }

func (syntax) KeyBytes(column string) string { return "CAST(" + column + " AS BINARY)" }

// KeyLike writes the pattern in digits, so that nothing in it can end the literal.
func (syntax) KeyLike(column, pattern string) string {
	return fmt.Sprintf("%s LIKE CONVERT(X'%x' USING utf8mb4) ESCAPE '|'", column, pattern)
}

func (s syntax) SelectKeys(selected, table string, columns []string) string {
	return sqltext.SelectIn(s, selected, table, columns)
}

func (syntax) Batch(columns []string) string { return sqltext.BatchIn(columns) }

func (syntax) Parameter(int) string { return "?" }

// SameBytes disables every collation: of case, of accents and of trailing blanks.
func (syntax) SameBytes() string {
	return "CAST(CONVERT(%s USING utf8mb4) AS BINARY) = CAST(%s AS BINARY)"
}

func (syntax) Returning() bool { return false } // only MariaDB supports it, and not for UPDATE

// Upsert is false: ON DUPLICATE KEY UPDATE uses any unique index, and would change another row.
func (syntax) Upsert() bool { return false }

// FirstVersion uses the clock of the database, which all sidecars share.
func (syntax) FirstVersion(*sqltext.Builder) string {
	return "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)"
}
