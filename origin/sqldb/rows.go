package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
)

// reading is one statement read through database/sql.
type reading struct {
	st   *statement
	key  string // the one that was asked for, where the statement is not keyed
	c    *collector
	cell func(name, typeName string, v any) cell
}

func (r *reading) run(ctx context.Context, conn *sql.Conn, query string, parameters []any) error {
	rows, err := conn.QueryContext(ctx, query, parameters...)
	if err != nil {
		return err
	}
	defer rows.Close()
	names, types, err := columnsOf(rows)
	if err != nil {
		return err
	}
	skip := 0
	if r.st.keyed {
		skip = 1
	}
	if err := r.c.columns(names[skip:]); err != nil {
		return err
	}
	values, targets := scanTargets(len(names))
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return err
		}
		r.row(names, types, values, skip)
	}
	return rows.Err()
}

func (r *reading) row(names, types []string, values []any, skip int) {
	key := r.key
	if r.st.keyed {
		key = keyText(values[0])
	}
	cells := make([]cell, len(values)-skip)
	for i := range cells {
		cells[i] = r.cell(names[i+skip], types[i+skip], values[i+skip])
	}
	r.c.row(key, cells)
}

// keyText is a key column's value as its database prints it.
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

func columnsOf(rows *sql.Rows) (names, types []string, err error) {
	columns, err := rows.ColumnTypes()
	if err != nil {
		return nil, nil, err
	}
	for _, column := range columns {
		names, types = append(names, column.Name()), append(types, column.DatabaseTypeName())
	}
	return names, types, nil
}

// describeByRunning asks for a key that hardly exists: neither MySQL nor SQLite tells the columns of a statement that
// it has only prepared.
func describeByRunning(ctx context.Context, conn *sql.Conn, query string) (columns []column, err error) {
	rows, err := conn.QueryContext(ctx, query, "0")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	names, types, err := columnsOf(rows)
	for i := range names {
		columns = append(columns, column{names[i], types[i] == "" || strings.Contains(types[i], "INT")})
	}
	return columns, err
}

// parameters are keys that ofType has let pass, as the driver takes them.
func (kt keyType) parameters(keys []string) []any {
	parameters := make([]any, len(keys))
	for i, key := range keys {
		parameters[i], _ = kt.parse(key) // it did in ofType
	}
	return parameters
}
