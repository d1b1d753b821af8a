package postgres

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// errorClasses implements sqldb.ErrorClasses.
type errorClasses struct{}

// InvalidKey knows the errors about text that does not fit a type (PostgreSQL, appendix A, class 22).
func (errorClasses) InvalidKey(err error) bool {
	return slices.Contains([]string{
		"22P02", // invalid text representation
		"22003", // numeric value out of range
		"22007", // invalid datetime format
		"22008", // datetime field overflow
		"22021", // character not in repertoire
	}, sqlState(err))
}

func (errorClasses) TimedOut(err error) bool { return sqlState(err) == "57014" }

func (errorClasses) Denied(err error) bool { return sqlState(err) == "42501" }

func (errorClasses) NoTable(err error) bool { return sqlState(err) == "42P01" }

func sqlState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

var (
	// columnsOfKey finds a, b in: Key (a, b)=(1, 2) already exists.
	columnsOfKey = regexp.MustCompile(`\((.*?)\)=\(`)
	parameterNo  = regexp.MustCompile(`\$(\d+)`)
)

// refusal says which column the database refuses, and why; it contains no value of any row.
func refusal(e *pgconn.PgError, parameters []sqltext.Parameter) error {
	columns := ""
	if m := columnsOfKey.FindStringSubmatch(e.Detail); m != nil {
		columns = m[1]
	}
	switch e.Code {
	case "23502":
		return origin.InvalidValue(e.ColumnName, "it must have a value: the column takes no null and has no default")
	case "23503":
		return origin.InvalidValue(columns, "foreign key %s refuses it: the row that it refers to is missing, or others refer to it",
			e.ConstraintName)
	case "23505":
		return origin.InvalidValue(columns, "another row has this value, and unique index %s allows it once", e.ConstraintName)
	case "428C9":
		return origin.InvalidValue("", "the database generates a column that is named: leave it out")
	case "P0001":
		return origin.InvalidValue("", "a trigger of the table refuses it: %s", e.Message)
	}
	switch {
	case strings.HasPrefix(e.Code, "23"), e.Code == "44000":
		return origin.InvalidValue("", "constraint %s of the table refuses it", e.ConstraintName)
	case strings.HasPrefix(e.Code, "22"):
		return origin.InvalidValue(columnOfParameter(e.Where, parameters), "%s", reason(e.Code))
	}
	return nil
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

// reason explains the codes of class 22 (PostgreSQL, appendix A).
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
	case "22P02":
		return "it is not of the column's type"
	}
	return "the database refuses it (SQLSTATE " + code + ")"
}
