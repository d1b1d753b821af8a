package rowset

import (
	"context"
	"database/sql"
	"slices"
)

// YieldKey takes the components of a key; false means that no more are wanted. It must not keep the slice.
type YieldKey func(components []string) bool

// ListKeys runs a query without parameters through database/sql, and passes on its rows without NULL.
func ListKeys(ctx context.Context, conn *sql.Conn, text string, yield YieldKey) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rows, err := conn.QueryContext(ctx, text)
	if err != nil {
		return err
	}
	defer func() {
		cancel() // first: Close would read the rest of the rows
		_ = rows.Close()
	}()
	names, err := rows.Columns()
	if err != nil {
		return err
	}
	values, targets := scanTargets(len(names))
	components := make([]string, len(names))
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return err
		}
		if slices.Contains(values, nil) {
			continue
		}
		for i, v := range values {
			components[i] = keyText(v)
		}
		if !yield(components) {
			return nil
		}
	}
	return rows.Err()
}
