package sqlite

import (
	"context"
	"database/sql/driver"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// pragma is a setting of a connection.
type pragma struct {
	name  string
	value int64
}

// common are those on which the names of columns, and what a read sees, depend.
var common = []pragma{
	{"read_uncommitted", 0}, // with cache=shared, a read would see rows that are rolled back
	{"full_column_names", 0}, {"short_column_names", 1}, {"count_changes", 0},
}

// pragmasOfReads and pragmasOfWrites are set on each connection of their kind.
var (
	pragmasOfReads  = append([]pragma{{"busy_timeout", busySlice.Milliseconds()}, {"query_only", 1}}, common...)
	pragmasOfWrites = append([]pragma{{"busy_timeout", busySlice.Milliseconds()}, {"query_only", 0}, {"ignore_check_constraints", 0},
		{"foreign_keys", 1}}, common...) //guard:sqlite-ignores-foreign-keys
)

// sessionConnector sets and verifies the pragmas of each connection. They win over the parameters of the DSN, some of which
// the driver applies after all _pragma parameters.
type sessionConnector struct {
	driver.Connector
	pragmas []pragma
}

func (c sessionConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range c.pragmas {
		if err := p.set(ctx, conn); err != nil {
			_ = conn.Close() // the first error is returned
			return nil, err
		}
	}
	return conn, nil
}

func (p pragma) set(ctx context.Context, conn driver.Conn) error {
	statement := "PRAGMA " + p.name + " = " + strconv.FormatInt(p.value, 10)
	if _, err := conn.(driver.ExecerContext).ExecContext(ctx, statement, nil); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	rows, err := conn.(driver.QueryerContext).QueryContext(ctx, "PRAGMA "+p.name, nil)
	if err != nil {
		return fmt.Errorf("PRAGMA %s: %w", p.name, err)
	}
	defer rows.Close() // it is read to its end
	got := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(got); err != nil {
		return fmt.Errorf("PRAGMA %s: %w", p.name, err)
	}
	if len(got) == 0 || got[0] != driver.Value(p.value) {
		return fmt.Errorf("SQLite does not keep %s: it is %v", statement, got)
	}
	return nil
}

// pragmaBusy lets the pragmas of the DSN wait for another connection.
func pragmaBusy(d time.Duration) string { return fmt.Sprintf("busy_timeout(%d)", d.Milliseconds()) }

// inMemory reports whether each connection would have an empty database of its own.
func inMemory(path string, parameters url.Values) bool {
	memory := path == ":memory:" || slices.Contains(parameters["mode"], "memory") //guard:sqlite-database-of-a-connection
	return memory && !slices.Contains(parameters["cache"], "shared")
}
