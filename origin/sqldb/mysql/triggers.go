package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	_ "embed"
	"strings"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/changefeed"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// triggers implements changefeed.Triggers.
type triggers struct{ *server }

func (t triggers) Locate(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (at changefeed.Table, err error) {
	schema, table := sqltext.SplitTable(ds.Table)
	var keyType, kind string
	err = conn.QueryRowContext(ctx, `SELECT c.TABLE_SCHEMA, c.TABLE_NAME, c.DATA_TYPE, t.TABLE_TYPE
		FROM information_schema.COLUMNS AS c JOIN information_schema.TABLES AS t USING (TABLE_SCHEMA, TABLE_NAME)
		WHERE TABLE_SCHEMA = COALESCE(NULLIF(?, ''), DATABASE()) AND TABLE_NAME = ? AND c.COLUMN_NAME = ?`,
		schema, table, ds.Key).Scan(&at.Schema, &at.Name, &keyType, &kind)
	if err == nil && kind != "BASE TABLE" {
		err = changefeed.ErrNotATable
	}
	at.KeyText = func(column string) string { return "CONVERT(" + column + " USING utf8mb4)" }
	if strings.HasSuffix(keyType, "binary") || strings.HasSuffix(keyType, "blob") { //guard:binary-key-replaced
		at.KeyText = func(column string) string { return column }
	}
	return at, err
}

//go:embed triggers.sql
var script string

func (triggers) Script() string { return script }

func (triggers) OwnSchemaOnly() bool { return false }

// MissingEvents returns nothing for an account that may not see triggers: the catalog would show it none.
func (t triggers) MissingEvents(ctx context.Context, conn *sql.Conn, ds origin.Dataset, marks []string) (
	missing []string, err error,
) {
	at, err := t.Locate(ctx, conn, ds)
	if err != nil {
		return nil, err
	}
	var visible bool
	err = conn.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM information_schema.USER_PRIVILEGES
		WHERE PRIVILEGE_TYPE = 'TRIGGER' UNION SELECT 1 FROM information_schema.SCHEMA_PRIVILEGES
		WHERE PRIVILEGE_TYPE = 'TRIGGER' AND ? LIKE TABLE_SCHEMA UNION SELECT 1 FROM information_schema.TABLE_PRIVILEGES
		WHERE PRIVILEGE_TYPE = 'TRIGGER' AND TABLE_SCHEMA = ? AND TABLE_NAME = ?)`,
		at.Schema, at.Schema, at.Name).Scan(&visible)
	if err != nil || !visible {
		return nil, err
	}
	for _, event := range []string{"INSERT", "UPDATE", "DELETE"} {
		var count int
		err := conn.QueryRowContext(ctx, `SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = ?
			AND EVENT_OBJECT_TABLE = ? AND EVENT_MANIPULATION = ? AND LOCATE(?, ACTION_STATEMENT) > 0
			AND LOCATE(?, ACTION_STATEMENT) > 0`, at.Schema, at.Name, event, marks[0], marks[1]).Scan(&count)
		if err != nil {
			return nil, err
		}
		if count == 0 {
			missing = append(missing, event)
		}
	}
	return missing, nil
}

// Apply drops the connection at the end, as it can write now. Nothing undoes the first statements of a script whose later
// ones fail: in MySQL each of them is a transaction.
func (t triggers) Apply(ctx context.Context, conn *sql.Conn, text string) error {
	defer conn.Raw(func(any) error { return driver.ErrBadConn }) // makes the pool drop it
	statements := append([]string{"SET SESSION TRANSACTION READ WRITE", "SET SESSION lock_wait_timeout = 5"},
		splitStatements(text)...)
	for _, statement := range statements {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// splitStatements does what the mysql client does with DELIMITER, which servers do not support.
func splitStatements(script string) (statements []string) {
	_, script, _ = strings.Cut(script, "DELIMITER //\n")
	script, _, _ = strings.Cut(script, "\nDELIMITER ;")
	for statement := range strings.SplitSeq(script, "\n//") {
		if strings.TrimSpace(statement) != "" {
			statements = append(statements, statement)
		}
	}
	return statements
}

func (t triggers) Log(table string) changefeed.Log {
	return &changeLog{mysql: t.server, table: table, grace: gapGrace}
}
