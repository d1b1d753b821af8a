package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/origin"
)

// locate implements recorder.
func (m *mysql) locate(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (at located, err error) {
	schema, table := splitTable(ds.Table)
	var keyType, kind string
	err = conn.QueryRowContext(ctx, `SELECT c.TABLE_SCHEMA, c.TABLE_NAME, c.DATA_TYPE, t.TABLE_TYPE
		FROM information_schema.COLUMNS AS c JOIN information_schema.TABLES AS t USING (TABLE_SCHEMA, TABLE_NAME)
		WHERE TABLE_SCHEMA = COALESCE(NULLIF(?, ''), DATABASE()) AND TABLE_NAME = ? AND c.COLUMN_NAME = ?`,
		schema, table, ds.Key).Scan(&at.schema, &at.table, &keyType, &kind)
	if err == nil && kind != "BASE TABLE" {
		err = errors.New("it is no table of its own: only a table has triggers that tell of its rows")
	}
	at.keyText = func(column string) string { return "CONVERT(" + column + " USING utf8mb4)" }
	if strings.HasSuffix(keyType, "binary") || strings.HasSuffix(keyType, "blob") { //guard:key-bytes-told
		at.keyText = func(column string) string { return column }
	}
	return at, err
}

func (*mysql) scripts() string { return "mysql.sql" }

// denied knows the ways to say that a right is missing; 1419 is about triggers where there is a binary log.
func (*mysql) denied(err error) bool {
	return slices.Contains([]uint16{1044, 1142, 1143, 1227, 1370, 1419}, errorNumber(err))
}

func (*mysql) missing(err error) bool { return errorNumber(err) == 1146 }

// covered has nothing to say to an account that may not see triggers: it is shown none.
func (m *mysql) covered(ctx context.Context, conn *sql.Conn, ds origin.Dataset, words []string) (
	missing []string, err error,
) {
	at, err := m.locate(ctx, conn, ds)
	if err != nil {
		return nil, err
	}
	var sees bool
	err = conn.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM information_schema.USER_PRIVILEGES
		WHERE PRIVILEGE_TYPE = 'TRIGGER' UNION SELECT 1 FROM information_schema.SCHEMA_PRIVILEGES
		WHERE PRIVILEGE_TYPE = 'TRIGGER' AND ? LIKE TABLE_SCHEMA UNION SELECT 1 FROM information_schema.TABLE_PRIVILEGES
		WHERE PRIVILEGE_TYPE = 'TRIGGER' AND TABLE_SCHEMA = ? AND TABLE_NAME = ?)`,
		at.schema, at.schema, at.table).Scan(&sees)
	if err != nil || !sees {
		return nil, err
	}
	for _, event := range []string{"INSERT", "UPDATE", "DELETE"} {
		var triggers int
		err := conn.QueryRowContext(ctx, `SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = ?
			AND EVENT_OBJECT_TABLE = ? AND EVENT_MANIPULATION = ? AND LOCATE(?, ACTION_STATEMENT) > 0
			AND LOCATE(?, ACTION_STATEMENT) > 0`, at.schema, at.table, event, words[0], words[1]).Scan(&triggers)
		if err != nil {
			return nil, err
		}
		if triggers == 0 {
			missing = append(missing, event)
		}
	}
	return missing, nil
}

// apply gives the connection up in the end, as it can write now. Nothing undoes the first statements of a script whose
// later ones fail: each of MySQL's is a transaction.
func (m *mysql) apply(ctx context.Context, conn *sql.Conn, script string) error {
	defer conn.Raw(func(any) error { return driver.ErrBadConn }) // which is how a pool is told to forget it
	statements := append([]string{"SET SESSION TRANSACTION READ WRITE", "SET SESSION lock_wait_timeout = 5"},
		mysqlStatements(script)...)
	for _, statement := range statements {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// mysqlStatements does what the mysql client does with DELIMITER, which no server knows.
func mysqlStatements(script string) (statements []string) {
	_, script, _ = strings.Cut(script, "DELIMITER //\n")
	script, _, _ = strings.Cut(script, "\nDELIMITER ;")
	for statement := range strings.SplitSeq(script, "\n//") {
		if strings.TrimSpace(statement) != "" {
			statements = append(statements, statement)
		}
	}
	return statements
}
