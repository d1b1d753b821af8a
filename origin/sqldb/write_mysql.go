package sqldb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	mysqldriver "github.com/go-sql-driver/mysql"
)

func (*mysql) mark(int) string { return "?" }
func (*mysql) returns() bool   { return false } // MariaDB alone has some of it

// upserts is false: ON DUPLICATE KEY goes by any unique index, and would change another row.
func (*mysql) upserts() bool { return false }

// exactly is beyond all collations: of case, of accents and of blanks at the end.
func (*mysql) exactly() string {
	return "CAST(CONVERT(%s USING utf8mb4) AS BINARY) = CAST(%s AS BINARY)"
}

// firstVersion is by the clock of the database, which all sidecars share.
func (*mysql) firstVersion(*draft) string { return "CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)" }

func (m *mysql) table(ctx context.Context, conn *sql.Conn, name, key string) (*table, error) {
	schema, bare := splitTable(name)
	json, err := m.checkedJSON(ctx, conn, schema, bare)
	if err != nil {
		return nil, err
	}
	rows, err := conn.QueryContext(ctx, `SELECT COLUMN_NAME, LOWER(COLUMN_TYPE), IS_NULLABLE = 'NO',
		EXTRA LIKE '%GENERATED%' AND EXTRA NOT LIKE '%DEFAULT_GENERATED%' FROM information_schema.COLUMNS
		WHERE TABLE_SCHEMA = COALESCE(NULLIF(?, ''), DATABASE()) AND TABLE_NAME = ?
		ORDER BY ORDINAL_POSITION`, schema, bare)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	t := &table{}
	for rows.Next() {
		var c tableColumn
		var declared string
		if err := rows.Scan(&c.name, &declared, &c.notNull, &c.generated); err != nil {
			return nil, err
		}
		c.declareMySQL(declared)
		if json[c.name] {
			c.form = formJSON
		}
		t.columns = append(t.columns, c)
		if strings.EqualFold(c.name, key) {
			t.key = mysqlKeyType(declared)
		}
	}
	return t, rows.Err()
}

// declareMySQL reads a column type such as "int(10) unsigned".
func (c *tableColumn) declareMySQL(declared string) {
	integer := mysqlKeyType(declared)
	base, _, _ := strings.Cut(declared, "(")
	base, _, _ = strings.Cut(base, " ")
	c.finite = true
	switch {
	case declared == "tinyint(1)":
		c.form, c.bits = formBool, 8
	case integer.bits > 0:
		c.form, c.bits, c.unsigned = formInteger, integer.bits, integer.unsigned
	case base == "bit", base == "year":
		c.form, c.bits, c.unsigned = formInteger, 64, true
	case base == "float":
		c.form, c.bits = formFloat, 32
	case base == "double":
		c.form, c.bits = formFloat, 64
	case base == "decimal":
		c.form = formDecimal
	case base == "json":
		c.form = formJSON
	case base == "datetime", base == "timestamp":
		c.form = formTimestamp
	case strings.HasSuffix(base, "blob"), strings.HasSuffix(base, "binary"), slices.Contains(mysqlBytes, base):
		c.form = formBytes
	}
}

// mysqlBytes are the types besides blobs that the driver gives as bytes.
var mysqlBytes = []string{"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
	"geometrycollection", "geomcollection", "vector"}

// change reads a row back with the statement of Load: of UPDATE … RETURNING neither MySQL nor MariaDB knows. An
// isolation of READ COMMITTED, which the session has, keeps gaps between rows from being locked.
func (m *mysql) change(ctx context.Context, conn *sql.Conn, e *edit) error {
	locked := *e.statement
	locked.sql += " FOR UPDATE"
	tx := &transaction{edit: e}
	tx.begin = func(ctx context.Context) error { return m.begin(ctx, conn) }
	tx.read = func(ctx context.Context) error {
		return mysqlRefusal(m.read(ctx, conn, &locked, []string{e.change.Key}, e.rows))
	}
	tx.exec = func(ctx context.Context, s step) (int64, error) {
		n, err := m.execute(ctx, conn, s)
		if errorNumber(err) == mysqlDuplicate {
			return 0, duplicate(ctx, tx, err)
		}
		return n, mysqlRefusal(err)
	}
	tx.rollback = func(ctx context.Context) { rollback(ctx, conn) }
	tx.commit = func(ctx context.Context) error { return commitMySQL(ctx, conn) }
	return tx.run(ctx)
}

// begin opens a transaction that may write, in a session that may not. MySQL bounds the time of no statement but
// SELECT; what may take long in the others is a lock, of which it counts whole seconds.
func (m *mysql) begin(ctx context.Context, conn *sql.Conn) error {
	mariadb, err := m.isMariaDB(ctx, conn)
	if limit := serverTimeout(ctx); err == nil && !mariadb && limit > 0 {
		_, err = conn.ExecContext(ctx, "SET SESSION innodb_lock_wait_timeout = "+
			strconv.Itoa(int(math.Ceil(limit.Seconds()))))
	}
	if err == nil {
		_, err = conn.ExecContext(ctx, "START TRANSACTION READ WRITE")
	}
	return mysqlRefusal(err)
}

func (m *mysql) execute(ctx context.Context, conn *sql.Conn, s step) (int64, error) {
	statement, err := m.withTimeLimit(ctx, conn, s.sql)
	if err != nil {
		return 0, err
	}
	result, err := conn.ExecContext(ctx, statement, s.values()...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected() // those that were met, changed or not: the connector sets ClientFoundRows
}

const mysqlDuplicate = 1062

// duplicate tells the row of the key, which may have come between an UPDATE that did not meet it and the INSERT, from
// another row that has what another unique index allows once.
func duplicate(ctx context.Context, tx *transaction, err error) error {
	if err := tx.read(ctx); err != nil {
		return err
	}
	switch {
	case !tx.edit.met():
		return mysqlRefusal(err)
	case tx.edit.change.If.Absent:
		return tx.edit.missed()
	}
	return errAgain
}

// commitMySQL knows the few errors after which a transaction is rolled back for certain: a deadlock (of a cluster, at
// this late hour) and a server that turned read-only.
func commitMySQL(ctx context.Context, conn *sql.Conn) error {
	if err := ctx.Err(); err != nil {
		rollback(ctx, conn)
		return err
	}
	_, err := conn.ExecContext(ctx, "COMMIT")
	switch {
	case err == nil, errors.Is(err, driver.ErrBadConn): // which says that nothing was sent
		return err
	case slices.Contains([]uint16{1205, 1213, 1290, 1792, 1836}, errorNumber(err)):
		return mysqlRefusal(err)
	}
	return unknown(err) //guard:lost-answer-commit-told-certain-mariadb
}

var (
	mysqlForeignKey = regexp.MustCompile("FOREIGN KEY \\([`\"]([^)]*)[`\"]\\)")
	mysqlColumn     = regexp.MustCompile("(?i)(?:column|field) (?:[`'\"][^`'\"]*[`'\"]\\.)*[`'\"]([^`'\"]+)[`'\"]")
	mysqlConstraint = regexp.MustCompile("(?i)constraint [`'\"]([^`'\"]+)[`'\"]")
	mysqlIndex      = regexp.MustCompile(`for key '([^']+)'$`)
)

// mysqlRefusal makes of what the database says of a value an error that names the column, in words that have nothing
// of any row's values; of a lost connection and of a deadlock, errors that say that another attempt may succeed.
func mysqlRefusal(err error) error {
	if errors.Is(err, mysqldriver.ErrInvalidConn) {
		return driver.ErrBadConn
	}
	e, ok := errors.AsType[*mysqldriver.MySQLError](err)
	if !ok {
		return err
	}
	column := find(mysqlColumn, e.Message)
	switch e.Number {
	case 1053, 1927, 4031: // the server stops; the connection was killed; it was idle too long
		return driver.ErrBadConn
	case 1020, 1213: // the row has changed since it was read; deadlock
		return fmt.Errorf("%w: %w", errAgain, err)
	case 1048, 1364:
		return invalid(column, "it must have a value: the column takes no null and has no default")
	case mysqlDuplicate:
		return invalid("", "another row has a value that unique index %s allows once", find(mysqlIndex, e.Message))
	case 1406, 1265:
		return invalid(column, "it is too long, or not among the values of the column")
	case 1264, 1690, 3669:
		return invalid(column, "it is out of range")
	case 1292, 1366, 1411, 3140, 4078:
		return invalid(column, "it is not of the column's type")
	case 1451, 1452:
		return invalid(find(mysqlForeignKey, e.Message),
			"a foreign key refuses it: the row that it refers to is missing, or others refer to it")
	case 3819, 4025:
		return invalid("", "constraint %s of the table refuses it", find(mysqlConstraint, e.Message))
	case 1644:
		return invalid("", "a trigger of the table refuses it: %s", e.Message)
	case 1906, 3105:
		return invalid(column, "the database generates it: leave it out")
	}
	return err
}

func find(in *regexp.Regexp, message string) string {
	all := in.FindAllStringSubmatch(message, -1)
	if len(all) == 0 {
		return ""
	}
	return all[len(all)-1][1]
}
