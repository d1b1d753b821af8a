package tables

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/ringside-cache/ringside/origin"
)

// CheckUnique returns an error unless the catalog has a unique index of the key column; err is that of reading it.
func CheckUnique(ds origin.Dataset, unique bool, err error) error {
	if err != nil {
		return fmt.Errorf("find a unique index of table %s: %w", ds.Table, err)
	}
	if !unique { //guard:duplicate-keys-writable
		return fmt.Errorf("key: %s of table %s is not unique: make it the primary key, or give it a unique index "+
			"of its own", keyColumns(ds), ds.Table)
	}
	return nil
}

// QueryUnique is CheckUnique with the result of a query of the catalog.
func QueryUnique(ctx context.Context, conn *sql.Conn, ds origin.Dataset, query string, args ...any) error {
	var unique bool
	err := conn.QueryRowContext(ctx, query, args...).Scan(&unique)
	return CheckUnique(ds, unique, err)
}

func keyColumns(ds origin.Dataset) string {
	if len(ds.Key) == 1 {
		return fmt.Sprintf("column %q", ds.Key[0])
	}
	return "the combination of columns " + strings.Join(ds.Key, ", ")
}
