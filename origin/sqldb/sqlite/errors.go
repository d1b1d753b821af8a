package sqlite

import (
	"errors"
	"regexp"
	"strconv"
	"strings"

	sqlitedriver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
	"github.com/ringside-cache/ringside/origin/sqldb/tables"
)

// errorClasses implements sqldb.ErrorClasses.
type errorClasses struct{}

// classes are those of the result codes (rescode.html) that do not concern the statement's keys and values alone. A primary
// code stands for its extended codes that are not listed.
var classes = map[int]errclass.Class{
	sqlite3.SQLITE_INTERNAL:        errclass.Origin,
	sqlite3.SQLITE_PERM:            errclass.Denied,
	sqlite3.SQLITE_ABORT:           errclass.Retry,
	sqlite3.SQLITE_BUSY:            errclass.Retry,
	sqlite3.SQLITE_LOCKED:          errclass.Retry,
	sqlite3.SQLITE_NOMEM:           errclass.Origin,
	sqlite3.SQLITE_READONLY:        errclass.Denied,
	sqlite3.SQLITE_INTERRUPT:       errclass.Origin, // by the context
	sqlite3.SQLITE_IOERR:           errclass.Broken,
	sqlite3.SQLITE_CORRUPT:         errclass.Row,
	sqlite3.SQLITE_FULL:            errclass.Origin,
	sqlite3.SQLITE_CANTOPEN:        errclass.Broken,
	sqlite3.SQLITE_PROTOCOL:        errclass.Retry,
	sqlite3.SQLITE_SCHEMA:          errclass.Retry,
	sqlite3.SQLITE_MISUSE:          errclass.Origin,
	sqlite3.SQLITE_NOLFS:           errclass.Origin,
	sqlite3.SQLITE_AUTH:            errclass.Denied,
	sqlite3.SQLITE_FORMAT:          errclass.Origin,
	sqlite3.SQLITE_RANGE:           errclass.Outdated,
	sqlite3.SQLITE_NOTADB:          errclass.Broken,
	sqlite3.SQLITE_NOTFOUND:        errclass.Origin,
	sqlite3.SQLITE_READONLY | 4<<8: errclass.Broken,   // SQLITE_READONLY_DBMOVED
	sqlite3.SQLITE_ERROR | 1<<8:    errclass.Outdated, // SQLITE_ERROR_MISSING_COLLSEQ
	sqlite3.SQLITE_ERROR | 2<<8:    errclass.Retry,    // SQLITE_ERROR_RETRY
	sqlite3.SQLITE_ERROR | 3<<8:    errclass.Retry,    // SQLITE_ERROR_SNAPSHOT
}

// wrongQuery matches messages about a query that does not fit the schema: they have the same code as errors about values.
var wrongQuery = regexp.MustCompile(`no such (column|function|module|collation)|has no column named|ambiguous column|syntax error|incomplete input|` +
	`wrong number of arguments|unable to use function|unrecognized token|misuse of |has \d+ columns? but|values for \d+ columns`)

func (errorClasses) Class(err error) errclass.Class {
	e, ok := errors.AsType[*sqlitedriver.Error](err)
	if !ok {
		return errclass.Origin
	}
	class, ok := classes[e.Code()]
	if !ok {
		class, ok = classes[e.Code()&primaryCode]
	}
	switch message := err.Error(); {
	case ok:
		return class
	case e.Code() != sqlite3.SQLITE_ERROR:
	case strings.Contains(message, "no such table"):
		return errclass.NoTable
	case wrongQuery.MatchString(message):
		return errclass.Outdated
	}
	return errclass.Statement
}

func (errorClasses) Code(err error) string { return "SQLite error " + strconv.Itoa(errorCode(err)) }

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
			return tables.ErrNotUnique
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
