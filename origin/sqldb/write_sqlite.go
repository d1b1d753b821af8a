package sqldb

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"regexp"
	"strings"
	"time"

	sqlitedriver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// busySlice is how long SQLite itself waits for another writer. It sleeps through a context that is done, so that this
// is short, and repeated while the context lasts.
const busySlice = 20 * time.Millisecond

func (sqlite) mark(int) string { return "?" }
func (sqlite) returns() bool   { return false } // RETURNING forgets how columns are declared
func (sqlite) upserts() bool   { return true }

func (sqlite) exactly() string { return "%s COLLATE BINARY = %s" }

// firstVersion is by the clock of this host, which the database shares, but whose milliseconds are too long for it: a row
// can be made, deleted and made again within one.
func (sqlite) firstVersion(d *draft) string { return d.value(assignment{"", clock{}}) } //guard:row-comes-back-within-millisecond-older

// clock is the time at which a statement is run, in microseconds since 1970. Its transaction has begun by then: no other
// writer comes between.
type clock struct{}

// Value implements driver.Valuer.
func (clock) Value() (driver.Value, error) { return time.Now().UnixMicro(), nil }

// The values of hidden in table_xinfo (pragma.html).
const (
	sqliteVirtual = 2
	sqliteStored  = 3
)

func (sqlite) table(ctx context.Context, conn *sql.Conn, name, key string) (*table, error) {
	schema, bare := splitTable(name)
	rows, err := conn.QueryContext(ctx, `SELECT name, type, "notnull", hidden FROM pragma_table_xinfo(?, ?)`, bare,
		cmp.Or(schema, "main"))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	t := &table{}
	for rows.Next() {
		var c tableColumn
		var declared string
		var hidden int
		if err := rows.Scan(&c.name, &declared, &c.notNull, &hidden); err != nil {
			return nil, err
		}
		c.generated = hidden == sqliteVirtual || hidden == sqliteStored
		c.declare(strings.ToUpper(declared))
		t.columns = append(t.columns, c)
		if c.name == key && strings.Contains(strings.ToUpper(declared), "INT") {
			t.key = keyType{bits: 64}
		}
	}
	return t, rows.Err()
}

// declare goes by the names that sqliteCell knows, and then by the affinity (datatype3.html, 3.1).
func (c *tableColumn) declare(declared string) {
	c.unchecked = true
	base, _, _ := strings.Cut(declared, "(")
	has := func(words ...string) bool {
		for _, word := range words {
			if strings.Contains(declared, word) {
				return true
			}
		}
		return false
	}
	switch base {
	case "BOOL", "BOOLEAN":
		c.form, c.bits = formBool, 64
	case "DATETIME", "TIMESTAMP", "TIMESTAMPTZ":
		c.form = formTimestamp
	case "DATE":
		c.form = formDate
	case "TIME":
		c.form = formTime
	case "JSON", "JSONB":
		c.form = formJSON
	case "BLOB", "BYTEA", "BINARY", "VARBINARY":
		c.form = formBytes
	case "UUID":
	default:
		switch {
		case has("INT"):
			c.form, c.bits = formInteger, 64
		case has("CHAR", "CLOB", "TEXT"):
		case has("REAL", "FLOA", "DOUB"):
			c.form, c.bits = formFloat, 64
		case scaleOf(declared) > 0:
			c.form, c.scale = formDecimal, scaleOf(declared)
		default:
			c.form = formAny
		}
	}
}

func (s sqlite) change(ctx context.Context, conn *sql.Conn, e *edit) error {
	tx := &transaction{edit: e}
	tx.begin = func(ctx context.Context) error { return untilFree(ctx, conn, "BEGIN IMMEDIATE") }
	tx.exec = func(ctx context.Context, st step) (int64, error) {
		result, err := conn.ExecContext(ctx, st.sql, st.values()...)
		if err != nil {
			return 0, sqliteRefusal(err)
		}
		return result.RowsAffected()
	}
	tx.read = func(ctx context.Context) error {
		return s.read(ctx, conn, e.statement, []string{e.change.Key}, e.rows)
	}
	tx.rollback = func(ctx context.Context) { rollback(ctx, conn) }
	tx.commit = func(ctx context.Context) error { return commitSQLite(ctx, conn) }
	return tx.run(ctx)
}

// untilFree runs a statement until no other connection is in its way.
func untilFree(ctx context.Context, conn *sql.Conn, statement string) error {
	for {
		_, err := conn.ExecContext(ctx, statement)
		if sqliteCode(err)&0xff != sqlite3.SQLITE_BUSY || ctx.Err() != nil {
			return err
		}
	}
}

// commitSQLite does not let the context interrupt the COMMIT, which waits for nobody but readers, and for these in
// slices. One that fails leaves the transaction open: when it can be rolled back, nothing was written.
func commitSQLite(ctx context.Context, conn *sql.Conn) error {
	err := ctx.Err()
	for err == nil {
		_, err = conn.ExecContext(context.WithoutCancel(ctx), "COMMIT")
		if err == nil {
			return nil
		}
		if sqliteCode(err)&0xff == sqlite3.SQLITE_BUSY {
			err = ctx.Err()
		}
	}
	if rollback(ctx, conn) {
		return sqliteRefusal(err)
	}
	return unknown(err)
}

func sqliteCode(err error) int {
	if e, ok := errors.AsType[*sqlitedriver.Error](err); ok {
		return e.Code()
	}
	return 0
}

var sqliteColumns = regexp.MustCompile(`.*constraint failed: (.+?)(?: \(\d+\))?$`)

// sqliteRefusal makes of what SQLite says of a value an error that names the column (rescode.html). Its messages have
// the names of columns and constraints, and nothing of the rows.
func sqliteRefusal(err error) error {
	name := ""
	if err != nil {
		if m := sqliteColumns.FindStringSubmatch(err.Error()); m != nil {
			name = m[1]
		}
	}
	switch sqliteCode(err) {
	case sqlite3.SQLITE_CONSTRAINT_NOTNULL:
		return invalid(lastPart(name), "it must have a value: the column takes no null and has no default")
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID:
		return invalid(lastPart(name), "another row has this value, and a unique index allows it once")
	case sqlite3.SQLITE_CONSTRAINT_CHECK:
		return invalid("", "constraint %s of the table refuses it", name)
	case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
		return invalid("", "a foreign key refuses it: the row that it refers to is missing, or others refer to it")
	case sqlite3.SQLITE_CONSTRAINT_TRIGGER:
		return invalid("", "a trigger of the table refuses it: %v", err)
	case sqlite3.SQLITE_CONSTRAINT_DATATYPE, sqlite3.SQLITE_MISMATCH:
		return invalid("", "a value is not of its column's type")
	case sqlite3.SQLITE_TOOBIG:
		return invalid("", "it is too large for the database")
	case sqlite3.SQLITE_ERROR:
		if strings.Contains(err.Error(), "ON CONFLICT clause does not match") {
			return errNotUnique
		}
	}
	return err
}

// lastPart makes a, b of t.a, t.b.
func lastPart(columns string) string {
	names := strings.Split(columns, ", ")
	for i, name := range names {
		names[i] = name[strings.LastIndex(name, ".")+1:]
	}
	return strings.Join(names, ", ")
}
