package mysql

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"regexp"
	"slices"

	mysqldriver "github.com/go-sql-driver/mysql"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb"
)

// errorClasses implements sqldb.ErrorClasses.
type errorClasses struct{}

// InvalidKey knows 1292, incorrect value (of a type such as UUID or INET6), and 1366, incorrect string value.
func (errorClasses) InvalidKey(err error) bool {
	return errorNumber(err) == 1292 || errorNumber(err) == 1366
}

// TimedOut knows 1969, max_statement_time of MariaDB, 3024, MAX_EXECUTION_TIME of MySQL, and 1205, lock wait timeout.
func (errorClasses) TimedOut(err error) bool {
	return slices.Contains([]uint16{1205, 1969, 3024}, errorNumber(err))
}

// Denied knows the errors about missing rights; 1419 is about triggers on a server with a binary log.
func (errorClasses) Denied(err error) bool {
	return slices.Contains([]uint16{1044, 1142, 1143, 1227, 1370, 1419}, errorNumber(err))
}

func (errorClasses) NoTable(err error) bool { return errorNumber(err) == 1146 }

func errorNumber(err error) uint16 {
	if e, ok := errors.AsType[*mysqldriver.MySQLError](err); ok {
		return e.Number
	}
	return 0
}

const duplicateKey = 1062

var (
	foreignKey     = regexp.MustCompile("FOREIGN KEY \\([`\"]([^)]*)[`\"]\\)")
	columnName     = regexp.MustCompile("(?i)(?:column|field) (?:[`'\"][^`'\"]*[`'\"]\\.)*[`'\"]([^`'\"]+)[`'\"]")
	constraintName = regexp.MustCompile("(?i)constraint [`'\"]([^`'\"]+)[`'\"]")
	indexName      = regexp.MustCompile(`for key '([^']+)'$`)
)

// refusal turns an error about a value into one that names the column and contains no value of any row; a lost connection
// becomes driver.ErrBadConn and a deadlock sqldb.ErrRetry.
func refusal(err error) error {
	if errors.Is(err, mysqldriver.ErrInvalidConn) {
		return driver.ErrBadConn
	}
	e, ok := errors.AsType[*mysqldriver.MySQLError](err)
	if !ok {
		return err
	}
	column := find(columnName, e.Message)
	switch e.Number {
	case 1053, 1927, 4031: // server shutdown; connection killed; connection idle too long
		return driver.ErrBadConn
	case 1020, 1213: // the row has changed since it was read; deadlock
		return fmt.Errorf("%w: %w", sqldb.ErrRetry, err)
	case 1048, 1364:
		return origin.InvalidValue(column, "it must have a value: the column takes no null and has no default")
	case duplicateKey:
		return origin.InvalidValue("", "another row has a value that unique index %s allows once", find(indexName, e.Message))
	case 1406, 1265:
		return origin.InvalidValue(column, "it is too long, or not among the values of the column")
	case 1264, 1690, 3669:
		return origin.InvalidValue(column, "it is out of range")
	case 1292, 1366, 1411, 3140, 4078:
		return origin.InvalidValue(column, "it is not of the column's type")
	case 1451, 1452:
		return origin.InvalidValue(find(foreignKey, e.Message),
			"a foreign key refuses it: the row that it refers to is missing, or others refer to it")
	case 3819, 4025:
		return origin.InvalidValue("", "constraint %s of the table refuses it", find(constraintName, e.Message))
	case 1644:
		return origin.InvalidValue("", "a trigger of the table refuses it: %s", e.Message)
	case 1906, 3105:
		return origin.InvalidValue(column, "the database generates it: leave it out")
	}
	return err
}

// find returns the first group of the last match.
func find(in *regexp.Regexp, message string) string {
	all := in.FindAllStringSubmatch(message, -1)
	if len(all) == 0 {
		return ""
	}
	return all[len(all)-1][1]
}
