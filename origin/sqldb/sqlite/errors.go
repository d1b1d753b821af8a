package sqlite

import (
	"errors"
	"regexp"
	"strings"

	sqlitedriver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb"
)

// errorClasses implements sqldb.ErrorClasses.
type errorClasses struct{}

// InvalidKey is always false: SQLite compares anything with anything.
func (errorClasses) InvalidKey(error) bool { return false }

// TimedOut is always false: the context interrupts the statement, which runs in this process.
func (errorClasses) TimedOut(error) bool { return false }

func (errorClasses) Denied(err error) bool {
	code := errorCode(err) & primaryCode
	return code == sqlite3.SQLITE_READONLY || code == sqlite3.SQLITE_PERM
}

// NoTable goes by the text: the code is that of any error in a statement.
func (errorClasses) NoTable(err error) bool {
	return errorCode(err) == sqlite3.SQLITE_ERROR && strings.Contains(err.Error(), "no such table")
}

// primaryCode masks the part of a code that names the kind of error (rescode.html).
const primaryCode = 0xff

func isBusy(err error) bool { return errorCode(err)&primaryCode == sqlite3.SQLITE_BUSY }

func errorCode(err error) int {
	if e, ok := errors.AsType[*sqlitedriver.Error](err); ok {
		return e.Code()
	}
	return 0
}

var constraintColumns = regexp.MustCompile(`.*constraint failed: (.+?)(?: \(\d+\))?$`)

// refusal turns SQLite's error about a value into one that names the column (rescode.html). SQLite's messages contain the
// names of columns and constraints, and no values of rows.
func refusal(err error) error {
	name := ""
	if err != nil {
		if m := constraintColumns.FindStringSubmatch(err.Error()); m != nil {
			name = m[1]
		}
	}
	switch errorCode(err) {
	case sqlite3.SQLITE_CONSTRAINT_NOTNULL:
		return origin.InvalidValue(lastPart(name), "it must have a value: the column takes no null and has no default")
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID:
		return origin.InvalidValue(lastPart(name), "another row has this value, and a unique index allows it once")
	case sqlite3.SQLITE_CONSTRAINT_CHECK:
		return origin.InvalidValue("", "constraint %s of the table refuses it", name)
	case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
		return origin.InvalidValue("", "a foreign key refuses it: the row that it refers to is missing, or others refer to it")
	case sqlite3.SQLITE_CONSTRAINT_TRIGGER:
		return origin.InvalidValue("", "a trigger of the table refuses it: %v", err)
	case sqlite3.SQLITE_CONSTRAINT_DATATYPE, sqlite3.SQLITE_MISMATCH:
		return origin.InvalidValue("", "a value is not of its column's type")
	case sqlite3.SQLITE_TOOBIG:
		return origin.InvalidValue("", "it is too large for the database")
	case sqlite3.SQLITE_ERROR:
		if strings.Contains(err.Error(), "ON CONFLICT clause does not match") {
			return sqldb.ErrNotUnique
		}
	}
	return err
}

// lastPart turns t.a, t.b into a, b.
func lastPart(columns string) string {
	names := strings.Split(columns, ", ")
	for i, name := range names {
		names[i] = name[strings.LastIndex(name, ".")+1:]
	}
	return strings.Join(names, ", ")
}
