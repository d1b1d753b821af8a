package postgres

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/changefeed"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// triggers implements changefeed.Triggers.
type triggers struct{}

func (triggers) Locate(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (at changefeed.Table, err error) {
	var relkind, keyType string
	err = limited(ctx, conn, func(rows pgx.Rows) error {
		return rows.Scan(&at.Schema, &at.Name, &relkind, &keyType)
	}, `SELECT n.nspname, c.relname, c.relkind::text, format_type(COALESCE(NULLIF(t.typbasetype, 0), t.oid), NULL)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
		WHERE c.oid = to_regclass($1) AND a.attname = $2`, sqltext.QuoteTable(syntax{}, ds.Table), ds.Key)
	switch {
	case err != nil:
		return changefeed.Table{}, err
	case !strings.Contains("rp", relkind):
		return changefeed.Table{}, changefeed.ErrNotATable
	}
	at.KeyText = func(column string) string { return "format('%s', " + column + ")" } // as the type prints itself
	if keyType == "character" || keyType == "bpchar" {
		at.KeyText = func(column string) string { return column + "::text" } // without the padding
	}
	return at, nil
}

//go:embed triggers.sql
var script string

func (triggers) Script() string { return script }

func (triggers) OwnSchemaOnly() bool { return false }

// MissingEvents ignores disabled triggers; one trigger may be for several events (pg_trigger.h, TRIGGER_TYPE_…).
func (triggers) MissingEvents(ctx context.Context, conn *sql.Conn, ds origin.Dataset, marks []string) (
	missing []string, err error,
) {
	err = limited(ctx, conn, func(rows pgx.Rows) error {
		var event string
		err := rows.Scan(&event)
		missing = append(missing, event)
		return err
	}, `SELECT event FROM (VALUES ('INSERT', 4), ('UPDATE', 16), ('DELETE', 8), ('TRUNCATE', 32)) AS e (event, bit)
		WHERE NOT EXISTS (SELECT FROM pg_trigger t JOIN pg_proc f ON f.oid = t.tgfoid
			WHERE t.tgrelid = to_regclass($1) AND t.tgenabled IN ('O', 'A') AND t.tgtype & bit <> 0
			AND position($2 IN f.prosrc) > 0 AND position($3 IN f.prosrc) > 0)`, sqltext.QuoteTable(syntax{}, ds.Table), marks[0], marks[1])
	return missing, err
}

// Apply runs the script as it is: it contains its own transaction.
func (triggers) Apply(ctx context.Context, conn *sql.Conn, text string) error {
	return onPgx(conn, func(c *pgx.Conn) error {
		_, err := c.PgConn().Exec(ctx, text).ReadAll()
		if err != nil && !c.IsClosed() {
			_, end := c.PgConn().Exec(ctx, "ROLLBACK").ReadAll()
			err = errors.Join(err, end)
		}
		return err
	})
}

func (triggers) Log(table string) changefeed.Log { return &changeLog{table: table} }
