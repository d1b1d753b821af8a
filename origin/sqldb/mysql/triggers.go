package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	_ "embed"
	"fmt"
	"strings"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/changefeed"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// triggers implements changefeed.Triggers.
type triggers struct{ *server }

func (t triggers) Locate(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (at changefeed.Table, err error) {
	schema, table := sqltext.SplitTable(ds.Table)
	texts := make([]func(string) string, len(ds.Key))
	for i, column := range ds.Key {
		var key keyColumn
		var kind string
		err = conn.QueryRowContext(ctx, `SELECT c.TABLE_SCHEMA, c.TABLE_NAME, LOWER(c.DATA_TYPE), LOWER(c.COLUMN_TYPE),
			COALESCE(c.DATETIME_PRECISION, 0), t.TABLE_TYPE
			FROM information_schema.COLUMNS AS c JOIN information_schema.TABLES AS t USING (TABLE_SCHEMA, TABLE_NAME)
			WHERE TABLE_SCHEMA = COALESCE(NULLIF(?, ''), DATABASE()) AND TABLE_NAME = ? AND c.COLUMN_NAME = ?`,
			schema, table, column).Scan(&at.Schema, &at.Name, &key.base, &key.declared, &key.precision, &kind)
		if err == nil && kind != "BASE TABLE" {
			err = changefeed.ErrNoTriggers
		}
		if err == nil {
			texts[i], err = key.text()
		}
		if err != nil {
			return changefeed.Table{}, err
		}
	}
	at.KeyText = changefeed.KeyText(syntax{}, ds.Key, texts, func(texts []string) string {
		return "CONCAT(" + strings.Join(texts, ", '/', ") + ")"
	})
	at.Warnings, err = cascades(ctx, conn, at)
	return at, err
}

// keyColumn is the type of a key column.
type keyColumn struct {
	base, declared string // such as int, int(10) unsigned
	precision      int    // digits of fractional seconds
}

// text returns the expression by which a trigger prints a key as a read does, whatever the time zone, sql_mode and character
// set of the writer's session are.
func (k keyColumn) text() (func(column string) string, error) {
	format := "CONVERT(%s USING utf8mb4)"
	switch k.base {
	case "tinyint", "smallint", "mediumint", "int", "bigint", "year":
		//guard:key-of-altered-type-silent
		if strings.Contains(k.declared, "zerofill") || k.base == "year" { // a cast would print a text as 0, after ALTER TABLE
			format = "CONVERT(CAST(%s AS UNSIGNED) USING utf8mb4)" // without the zeros; ZEROFILL implies UNSIGNED
		}
	case "char": // sql_mode may have PAD_CHAR_TO_FULL_LENGTH
		format = "CONVERT(TRIM(TRAILING ' ' FROM %s) USING utf8mb4)"
	case "timestamp":
		format = k.timestamp()
	case "decimal":
		if strings.Contains(k.declared, "zerofill") {
			return nil, changefeed.ErrKeyType(k.declared, "its zeros depend on the client")
		}
	case "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set", "date", "datetime", "time", "uuid", "inet4", "inet6":
	case "binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob": //guard:binary-key-replaced
		format = "%s"
	case "float", "double":
		return nil, changefeed.ErrKeyType(k.declared, "the server and its clients print 1e15 differently") //guard:double-key-accepted
	default:
		return nil, changefeed.ErrKeyType(k.declared, "it has no text that finds its row")
	}
	return func(column string) string { return strings.ReplaceAll(format, "%s", column) }, nil
}

// timestamp prints a TIMESTAMP in UTC. CONVERT_TZ would confuse the two hours at the end of daylight saving time of the
// session's time zone; UNIX_TIMESTAMP takes the stored value.
func (k keyColumn) timestamp() string {
	fraction := ""
	if k.precision > 0 {
		fraction = "." + strings.Repeat("0", k.precision)
	}
	return fmt.Sprintf("CONVERT(IF(UNIX_TIMESTAMP(%%s) = 0, '0000-00-00 00:00:00%s', CAST(CAST('1970-01-01' AS DATETIME(6)) + "+
		"INTERVAL UNIX_TIMESTAMP(%%s) SECOND AS DATETIME(%d))) USING utf8mb4)", fraction, k.precision)
}

// cascades returns a warning for each foreign key whose actions change rows without running triggers.
func cascades(ctx context.Context, conn *sql.Conn, at changefeed.Table) (warnings []string, err error) {
	err = eachPair(ctx, conn, `SELECT CONSTRAINT_NAME, CONCAT('ON DELETE ', DELETE_RULE, ' ON UPDATE ', UPDATE_RULE)
		FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = ? AND TABLE_NAME = ?
		AND (DELETE_RULE NOT IN ('RESTRICT', 'NO ACTION') OR UPDATE_RULE NOT IN ('RESTRICT', 'NO ACTION'))`, at.Schema, at.Name,
		func(name, rules string) {
			warnings = append(warnings, fmt.Sprintf("rows that foreign key %s changes (%s) are not reported: MySQL and MariaDB run no "+
				"triggers for them; invalidate the dataset after such statements, or let the application change the rows", name, rules))
		})
	return warnings, err
}

//go:embed triggers.sql
var triggersFile string

var parts = changefeed.Parts(triggersFile)

func (triggers) Script(tags *changefeed.Tags) (install, remove string) {
	install = tags.Fill(parts["install"], map[string]string{"MissingTable": tags.Fill(parts["missing table"], nil)})
	return install, tags.Fill(parts["remove"], nil)
}

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
	for _, statement := range []string{"SET SESSION TRANSACTION READ WRITE", "SET SESSION lock_wait_timeout = 5"} {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	if err := t.mayCreateTriggers(ctx, conn); err != nil {
		return err
	}
	for _, statement := range splitStatements(text) {
		if _, err := conn.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// mayCreateTriggers finds out whether CREATE TRIGGER would fail for an account without global privileges, before the script has
// dropped the triggers that it replaces. The server checks this before it looks for the table.
func (t triggers) mayCreateTriggers(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, "CREATE TRIGGER ringside_probe BEFORE INSERT ON ringside_no_such_table FOR EACH ROW SET @ringside = 1")
	if errorNumber(err) != binlogNeedsSuper { //guard:binary-log-not-explained
		return nil
	}
	mariadb, unknown := t.isMariaDB(ctx, conn)
	if unknown != nil {
		return unknown
	}
	return explainBinaryLog(err, mariadb)
}

// binlogNeedsSuper is the error about triggers on a server with a binary log.
const binlogNeedsSuper = 1419

// explainBinaryLog says which privilege is missing, and which statement helps.
func explainBinaryLog(err error, mariadb bool) error {
	persist, privilege := "SET PERSIST", "SET_USER_ID (MySQL 8.2 and later: SET_ANY_DEFINER) or SUPER"
	if mariadb {
		persist, privilege = "SET GLOBAL", "SUPER"
	}
	return fmt.Errorf("the server has a binary log and log_bin_trust_function_creators is OFF, so that CREATE TRIGGER needs the global "+
		"privilege %s in addition to TRIGGER on the table: let an administrator run `%s log_bin_trust_function_creators = 1` "+
		"(and keep it in the server's configuration), or use such an account: %w", privilege, persist, err)
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
