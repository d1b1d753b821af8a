package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/ringside-cache/ringside/origin"
)

// locate implements recorder.
func (p postgres) locate(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (at located, err error) {
	var relkind, keyType string
	err = limited(ctx, conn, func(rows pgx.Rows) error {
		return rows.Scan(&at.schema, &at.table, &relkind, &keyType)
	}, `SELECT n.nspname, c.relname, c.relkind::text, format_type(COALESCE(NULLIF(t.typbasetype, 0), t.oid), NULL)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
		WHERE c.oid = to_regclass($1) AND a.attname = $2`, quoteTable(p, ds.Table), ds.Key)
	switch {
	case err != nil:
		return located{}, err
	case !strings.Contains("rp", relkind):
		return located{}, errors.New("it is no table of its own: only a table has triggers that tell of its rows")
	}
	at.keyText = func(column string) string { return "format('%s', " + column + ")" } // as the type prints itself
	if keyType == "character" || keyType == "bpchar" {
		at.keyText = func(column string) string { return column + "::text" } // without the padding
	}
	return at, nil
}

func (postgres) scripts() string { return "postgres.sql" }

func (postgres) denied(err error) bool { return sqlState(err) == "42501" }

func (postgres) missing(err error) bool { return sqlState(err) == "42P01" }

// covered looks at enabled triggers only; one may be for several events (pg_trigger.h, TRIGGER_TYPE_…).
func (p postgres) covered(ctx context.Context, conn *sql.Conn, ds origin.Dataset, words []string) (
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
			AND position($2 IN f.prosrc) > 0 AND position($3 IN f.prosrc) > 0)`, quoteTable(p, ds.Table), words[0], words[1])
	return missing, err
}

// apply lets the script be the transaction that it says it is.
func (postgres) apply(ctx context.Context, conn *sql.Conn, script string) error {
	return onPgx(conn, func(c *pgx.Conn) error {
		_, err := c.PgConn().Exec(ctx, script).ReadAll()
		if err != nil && !c.IsClosed() {
			_, end := c.PgConn().Exec(ctx, "ROLLBACK").ReadAll()
			err = errors.Join(err, end)
		}
		return err
	})
}
