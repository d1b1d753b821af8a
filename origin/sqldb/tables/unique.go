package tables

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/origin"
)

// Indexes are the columns of the unique indexes of a table, by index. The name of an expression, or of a prefix of a column, is empty.
// Indexes of some rows only are not among them.
type Indexes map[string][]string

// QueryIndexes runs a query of the catalog whose columns are an index and one of its columns.
func QueryIndexes(ctx context.Context, conn *sql.Conn, query string, args ...any) (Indexes, error) {
	rows, err := conn.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := Indexes{}
	for rows.Next() {
		var index, column string
		if err := rows.Scan(&index, &column); err != nil {
			return nil, err
		}
		found[index] = append(found[index], column)
	}
	return found, rows.Err()
}

// Cover reports whether a key has one row: an index is of some of its columns. A second row would violate that index.
func (x Indexes) Cover(key []string) bool {
	for _, columns := range x {
		others := func(column string) bool { return !slices.Contains(key, column) }
		if !slices.ContainsFunc(columns, others) {
			return true
		}
	}
	return false
}

// CheckWritable returns an error unless an index is of the columns of the key, in any order: a write names them all as that of
// its row.
func (x Indexes) CheckWritable(ds origin.Dataset) error {
	for _, columns := range x {
		if len(columns) == len(ds.Key) && (Indexes{"": columns}).Cover(ds.Key) {
			return nil
		}
	}
	//guard:duplicate-keys-writable
	return fmt.Errorf("key: %s is not unique: make it the primary key, or give it a unique index of its own", keyOf(ds))
}

// NotUnique returns the error of a key that may have two rows, because of why.
func NotUnique(ds origin.Dataset, why string) error {
	return &origin.FieldError{Field: "key", Err: fmt.Errorf("%s %s: %s", keyOf(ds), why,
		"create a unique index of it, or set rows: many if a key has several rows")}
}

func keyOf(ds origin.Dataset) string {
	if len(ds.Key) == 1 {
		return fmt.Sprintf("column %q of table %s", ds.Key[0], ds.Table)
	}
	return fmt.Sprintf("the combination of columns %s of table %s", strings.Join(ds.Key, ", "), ds.Table)
}
