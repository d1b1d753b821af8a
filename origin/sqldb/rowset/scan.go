package rowset

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// Scan runs a query through database/sql and adds its rows to a Set.
type Scan struct {
	Query *sqltext.Query
	Key   string // the requested key, if the query is not keyed
	Set   *Set
	// Types, if set, checks the types of the columns before rows are read.
	Types func(types []string) error
	// Cell turns a value of the driver into a cell.
	Cell func(name, typeName string, v any) rowjson.Cell
	// Raw returns the statement to run instead of text, if the driver would convert values of these types. Nil means never.
	Raw func(text string, types []string) (raw string, ok bool)
	// Prepare makes the driver prepare also a statement without parameters, so that all values arrive in the same protocol.
	Prepare bool
}

// Run runs text, which is the query with its parameters expanded.
func (r *Scan) Run(ctx context.Context, conn *sql.Conn, text string, parameters []any) error {
	query := conn.QueryContext
	if r.Prepare && len(parameters) == 0 {
		statement, err := conn.PrepareContext(ctx, text)
		if err != nil {
			return err
		}
		defer statement.Close()
		query = func(ctx context.Context, _ string, _ ...any) (*sql.Rows, error) { return statement.QueryContext(ctx) }
	}
	rows, err := query(ctx, text, parameters...)
	if err != nil {
		return err
	}
	defer rows.Close()
	names, types, err := ColumnsOf(rows)
	if err != nil {
		return err
	}
	if raw, ok := r.rawText(text, types); ok {
		_ = rows.Close() // nothing is read from it
		if rows, err = conn.QueryContext(ctx, raw, parameters...); err != nil {
			return err
		}
		defer rows.Close()
	}
	return r.read(rows, names, types)
}

func (r *Scan) rawText(text string, types []string) (raw string, ok bool) {
	if r.Raw == nil {
		return "", false
	}
	return r.Raw(text, types)
}

// read adds the rows of a result whose columns have these names and types.
func (r *Scan) read(rows *sql.Rows, names, types []string) error {
	columns, err := r.Set.ColumnsOfResult(r.Query, names)
	if errors.Is(err, errNoColumns) {
		return cmp.Or(rows.Err(), err)
	}
	if err != nil {
		return err
	}
	if r.Types != nil {
		if err := r.Types(types); err != nil {
			return err
		}
	}
	values, targets := scanTargets(len(names))
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return err
		}
		r.row(names, types, values, columns)
	}
	return rows.Err()
}

var errNoColumns = errors.New("the statement has not returned the columns of the key: use a SELECT with the key as first columns")

func (r *Scan) row(names, types []string, values []any, columns Columns) {
	key, ok := columns.Key(r.Key, func(column int) (string, bool) { return keyText(values[column]), values[column] != nil })
	if !ok {
		return
	}
	cells, skip := make([]rowjson.Cell, len(values)-columns.Skip), columns.Skip
	for i := range cells {
		cells[i] = r.Cell(names[i+skip], types[i+skip], values[i+skip])
	}
	r.Set.Row(key, cells)
}

// keyText returns a value of a key column as the database prints it.
func keyText(v any) string {
	switch v := v.(type) {
	case []byte:
		return string(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case uint64:
		return strconv.FormatUint(v, 10)
	}
	return fmt.Sprint(v)
}

func scanTargets(n int) (values, targets []any) {
	values, targets = make([]any, n), make([]any, n)
	for i := range values {
		targets[i] = &values[i]
	}
	return values, targets
}

// ColumnsOf returns the names and the types of the columns of a result.
func ColumnsOf(rows *sql.Rows) (names, types []string, err error) {
	columns, err := rows.ColumnTypes()
	if err != nil {
		return nil, nil, err
	}
	for _, column := range columns {
		names, types = append(names, column.Name()), append(types, column.DatabaseTypeName())
	}
	return names, types, nil
}

// Probe runs a query for the key NULL, of as many columns as width.
func Probe(ctx context.Context, conn *sql.Conn, query string, width int) error {
	rows, err := conn.QueryContext(ctx, query, make([]any, width)...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() { // an error may follow rows
	}
	return rows.Err()
}

// DescribeByRunning returns the columns of a query by running it for the key "0", of as many columns as width: neither MySQL nor SQLite reports the
// columns of a statement that is only prepared.
func DescribeByRunning(ctx context.Context, conn *sql.Conn, query string, width int) (columns []ResultColumn, err error) {
	rows, err := conn.QueryContext(ctx, query, slices.Repeat([]any{"0"}, width)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	names, types, err := ColumnsOf(rows)
	for i := range names {
		columns = append(columns, ResultColumn{names[i], types[i] == "" || strings.Contains(types[i], "INT")})
	}
	return columns, err
}

// ResultColumn describes one column of a result.
type ResultColumn struct {
	Name    string
	Integer bool
}
