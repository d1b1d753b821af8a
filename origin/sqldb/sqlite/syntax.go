package sqlite

import (
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// syntax implements sqltext.Syntax.
type syntax struct{}

func (syntax) Quote(name string) string { return sqltext.QuoteWith(`"`, name) }

// KeyText keeps the driver from reading a key of a column declared DATE or the like as a time.
func (syntax) KeyText(column string) string { return "CAST(" + column + " AS TEXT)" }

func (syntax) KeyBytes(column string) string { return "CAST(" + column + " AS TEXT) COLLATE BINARY" }

// KeyLike writes the pattern in digits, so that nothing in it can end the literal.
func (s syntax) KeyLike(column, pattern string) string {
	return fmt.Sprintf("%s LIKE CAST(X'%x' AS TEXT) ESCAPE '|'", s.KeyText(column), pattern)
}

func (s syntax) SelectKeys(selected, table string, columns []string) string {
	return sqltext.SelectIn(s, selected, table, columns)
}

func (syntax) Batch(columns []string) string { return sqltext.BatchIn(columns) }

func (syntax) Parameter(int) string { return "?" }

func (syntax) SameBytes() string { return "%s COLLATE BINARY = %s" }

func (syntax) Returning() bool { return false } // RETURNING loses the declared types of columns

func (syntax) Upsert() bool { return true }

// FirstVersion uses the clock of this host, which the database shares. SQLite's own clock has milliseconds only, in which a
// row can be created, deleted and created again.
func (syntax) FirstVersion(b *sqltext.Builder) string {
	return b.Parameter(sqltext.Parameter{Value: clock{}}) //guard:sqlite-row-recreated-within-a-millisecond
}

// clock is the time at which a statement runs, in microseconds since 1970. Its transaction has begun by then, so that no
// other writer can run in between.
type clock struct{}

// Value implements driver.Valuer.
func (clock) Value() (driver.Value, error) { return time.Now().UnixMicro(), nil }
