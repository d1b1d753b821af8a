package postgres

import (
	"strconv"

	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// syntax implements sqltext.Syntax.
type syntax struct{}

func (syntax) Quote(name string) string { return sqltext.QuoteWith(`"`, name) }

func (syntax) KeyText(column string) string { return column }

func (syntax) InKeys() string { return " = ANY($1)" }

func (syntax) KeyParameter() string { return "$1" }

func (syntax) Parameter(n int) string { return "$" + strconv.Itoa(n) }

func (syntax) SameBytes() string { return "" }

func (syntax) Returning() bool { return true }

func (syntax) Upsert() bool { return true }

// FirstVersion uses the clock of the database, which all sidecars share.
func (syntax) FirstVersion(*sqltext.Builder) string {
	return "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
}
