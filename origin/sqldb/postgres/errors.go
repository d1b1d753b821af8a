package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
	"github.com/ringside-cache/ringside/origin/sqldb/postgres/session"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// errorClasses implements sqldb.ErrorClasses.
type errorClasses struct{}

// classes are those of the SQLSTATEs (PostgreSQL, appendix A) that do not concern the statement's keys and values alone. Two
// characters stand for all codes that begin with them and are not listed.
var classes = map[string]errclass.Class{
	"08":    errclass.Broken,   // connection exception
	"08P01": errclass.Origin,   // protocol violation; PgBouncer's errors about databases, accounts and waiting
	"0P":    errclass.Denied,   // invalid role
	"25":    errclass.Origin,   // invalid transaction state
	"25006": errclass.ReadOnly, // read-only transaction
	"25P03": errclass.Broken,   // idle in transaction timeout
	"25P04": errclass.TimedOut, // transaction timeout
	"26":    errclass.Broken,   // no such prepared statement
	"28":    errclass.Origin,   // authentication
	"3D":    errclass.Origin,   // no such database
	"3F":    errclass.Outdated, // no such schema
	"40":    errclass.Retry,    // transaction rollback: serialization failure, deadlock, conflict with recovery
	"40002": errclass.Statement,
	"42501": errclass.Denied,

	// The configured query, or a trigger, does not fit the schema. Text that a type cannot parse may also have a code of class
	// 42 (ltree: 42601), but it is not one of these.
	"0A000": errclass.Outdated, // cached plan must not change result type
	"42P01": errclass.NoTable,
	"42P02": errclass.Outdated, // undefined parameter
	"42P05": errclass.Broken,   // duplicate prepared statement
	"42P08": errclass.Outdated, // ambiguous parameter
	"42P18": errclass.Outdated, // indeterminate type
	"42702": errclass.Outdated, // ambiguous column
	"42703": errclass.Outdated, // undefined column
	"42704": errclass.Outdated, // undefined object
	"42725": errclass.Outdated, // ambiguous function
	"42803": errclass.Outdated, // grouping
	"42804": errclass.Outdated, // types do not match
	"42809": errclass.Outdated, // wrong kind of object
	"42846": errclass.Outdated, // cannot coerce
	"42883": errclass.Outdated, // undefined function or operator
	"42P10": errclass.Outdated, // no index for ON CONFLICT
	"55000": errclass.Outdated, // object not in prerequisite state: view that cannot be written

	"53":    errclass.Origin,   // insufficient resources
	"55006": errclass.Origin,   // object in use
	"55P03": errclass.TimedOut, // lock not available
	"57":    errclass.Broken,   // operator intervention: shutdown, startup
	"57000": errclass.Origin,
	"57014": errclass.TimedOut, // query canceled
	"58":    errclass.Origin,   // system error
	"58030": errclass.Row,      // a file cannot be read
	"72":    errclass.Retry,    // snapshot too old
	"F0":    errclass.Origin,   // configuration file
	"HV001": errclass.Origin,   // foreign data: out of memory
	"HV00N": errclass.Origin,   // foreign data: no connection
	"XX":    errclass.Row,      // internal error: damaged table or index
}

func (errorClasses) Class(err error) errclass.Class {
	if _, ok := errors.AsType[*readOnlyError](err); ok {
		return errclass.ReadOnly
	}
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || len(e.Code) != 5 {
		return errclass.Origin
	}
	if e.Code == "08P01" && !isConnecting(err) { //guard:session-lost-behind-a-pooler
		return errclass.Broken // PgBouncer has lost the server's session (invalid server parameter) and ends this one
	}
	class, ok := classes[e.Code]
	if !ok {
		class, ok = classes[e.Code[:2]]
	}
	switch {
	case !ok, isRaised(e) && class != errclass.Retry, isRowPolicy(e):
		return errclass.Statement
	case class == errclass.Outdated || class == errclass.NoTable:
		if parameterNo.MatchString(e.Where) { // a key that is no regclass, for example
			return errclass.Statement
		}
	}
	return class
}

func (errorClasses) Code(err error) string { return "SQLSTATE " + session.SQLState(err) }

// isConnecting reports whether err occurred while a connection was made.
func isConnecting(err error) bool {
	_, ok := errors.AsType[*pgconn.ConnectError](err)
	return ok
}

// isRaised reports whether a function of the application raised the error (RAISE), with whichever code.
func isRaised(e *pgconn.PgError) bool { return e.Routine == "exec_stmt_raise" }

// isRowPolicy reports whether the new row violates a policy of row-level security. Its code is that of a missing right, but
// the account may write other rows.
func isRowPolicy(e *pgconn.PgError) bool {
	return e.Code == "42501" && e.Routine == "ExecWithCheckOptions"
}

var (
	// columnsOfKey finds a, b in: Key (a, b)=(1, 2) already exists.
	columnsOfKey = regexp.MustCompile(`\((.*?)\)=\(`)
	parameterNo  = regexp.MustCompile(`\$(\d+)`)
)

// refusal says which column the database rejects, and why; it contains no value of any row. The class of e is
// errclass.Statement.
func refusal(e *pgconn.PgError, key []string, parameters []sqltext.Parameter) error {
	columns := ""
	if m := columnsOfKey.FindStringSubmatch(e.Detail); m != nil {
		columns = m[1]
	}
	switch {
	case isRaised(e):
		return origin.InvalidValue("", "a trigger of the table refuses it: %s", e.Message)
	case isRowPolicy(e):
		return origin.InvalidValue("", "a row-level security policy of the table refuses it for this account")
	case e.Code == "23502":
		return origin.InvalidValue(e.ColumnName, "it must have a value: the column takes no null and has no default")
	case e.Code == "23503":
		return origin.InvalidValue(columns, "foreign key %s refuses it: the row that it refers to is missing, or others refer to it",
			e.ConstraintName)
	case e.Code == "23505":
		return origin.InvalidValue(columns, "another row has this value, and unique index %s allows it once", e.ConstraintName)
	case e.Code == "428C9":
		return origin.InvalidValue("", "the database generates a column that is named: leave it out")
	case e.Code == "23514" && e.ConstraintName == "":
		return origin.InvalidValue("", "the table has no partition for it")
	case e.Code == "44000":
		return origin.InvalidValue("", "the check option of the view refuses it")
	case strings.HasPrefix(e.Code, "23"):
		return origin.InvalidValue("", "constraint %s of the table refuses it", e.ConstraintName)
	}
	column := columnOfParameter(e.Where, parameters)
	if slices.Contains(key, column) {
		return fmt.Errorf("%w: %s", origin.ErrInvalidKey, reason(e.Code))
	}
	return origin.InvalidValue(column, "%s", reason(e.Code))
}

// columnOfParameter returns the column whose parameter the database could not read; its number stands last in where.
func columnOfParameter(where string, parameters []sqltext.Parameter) string {
	all := parameterNo.FindAllStringSubmatch(where, -1)
	if len(all) == 0 {
		return ""
	}
	n, err := strconv.Atoi(all[len(all)-1][1])
	if err != nil || n < 1 || n > len(parameters) {
		return ""
	}
	return parameters[n-1].Column
}

// reason explains a code (PostgreSQL, appendix A).
func reason(code string) string {
	switch code {
	case "22001":
		return "it is too long"
	case "22003":
		return "it is out of range"
	case "22007", "22008":
		return "it is not a date or time of the column's type"
	case "22021", "22P05":
		return "it has a character that the database's encoding does not have"
	case "22P02", "42601":
		return "it is not of the column's type"
	case "54000":
		return "it is too large for the table or an index"
	}
	return "the database rejects it (SQLSTATE " + code + ")"
}

// isReadOnly reports whether the server is a standby.
func isReadOnly(ctx context.Context, conn *sql.Conn) (standby bool, err error) {
	err = session.Use(conn, func(c *pgx.Conn) error {
		results, err := c.PgConn().Exec(ctx, "SELECT pg_is_in_recovery()").ReadAll()
		if err = session.WantResults(len(results), 1, err); err != nil {
			return err
		}
		row := session.OnlyRow(results[0])
		if len(row) != 1 {
			return session.ErrOutOfStep
		}
		standby = string(row[0]) == "t"
		return nil
	})
	return standby, err
}
