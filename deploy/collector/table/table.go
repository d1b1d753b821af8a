// Package table keeps rows of telemetry in the table cnf_metrics of PostgreSQL, MySQL, MariaDB or SQLite.
package table

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/deploy/collector/telemetry"
	"github.com/ringside-cache/ringside/deploy/schema"
)

// maxRows is the limit of rows per statement. With seven parameters per row it stays below the limits of all databases
// (SQLite 32766, the others 65535).
const maxRows = 4000

// Table is cnf_metrics of one database. It is safe for concurrent use.
type Table struct {
	db      *sql.DB
	dialect dialect
}

// Open checks the name of the driver (postgres, mysql, sqlite) and the DSN without connecting. Its errors contain no part
// of the DSN, which is a secret.
func Open(driver, dsn string) (*Table, error) {
	open, ok := map[string]func(dsn string) (*sql.DB, dialect, error){
		"postgres": openPostgres, "mysql": openMySQL, "sqlite": openSQLite,
	}[driver]
	if !ok {
		return nil, fmt.Errorf("driver %q is unknown: use postgres, mysql or sqlite", driver)
	}
	db, dialect, err := open(dsn)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // SQLite allows only one writer
	return &Table{db: db, dialect: dialect}, nil
}

// Close closes the connection.
func (t *Table) Close() error { return t.db.Close() }

// Create creates the table if it does not exist.
func (t *Table) Create(ctx context.Context) error {
	statement, err := schema.Files.ReadFile(t.dialect.schema)
	if err == nil {
		_, err = t.db.ExecContext(ctx, string(statement))
	}
	if err != nil {
		return fmt.Errorf("create table cnf_metrics: %w", err)
	}
	return nil
}

// Upsert writes rows, up to 4000 per statement. An existing row gets the next version. A new row starts with its time in
// microseconds, as in Ringside's own writes, so that a deleted row never returns with a version that a cache has seen:
// versions of a row grow by less than one per microsecond.
func (t *Table) Upsert(ctx context.Context, rows []telemetry.Row) error {
	for chunk := range slices.Chunk(rows, maxRows) {
		args := make([]any, 0, 7*len(chunk))
		for _, r := range chunk {
			args = append(args, r.ID, t.dialect.time(r.Time), r.Type, r.Value, r.Unit, r.Status, r.Time.UnixMicro())
		}
		if _, err := t.db.ExecContext(ctx, t.dialect.upsert(len(chunk)), args...); err != nil {
			return fmt.Errorf("write %d rows to cnf_metrics: %w", len(chunk), err)
		}
	}
	return nil
}

// Delete removes rows by id and ignores missing ones.
func (t *Table) Delete(ctx context.Context, ids []string) error {
	for chunk := range slices.Chunk(ids, maxRows) {
		args := make([]any, len(chunk))
		for i, id := range chunk {
			args[i] = id
		}
		statement := "DELETE FROM cnf_metrics WHERE cnf_id IN (" + t.dialect.parameters(0, len(chunk)) + ")"
		if _, err := t.db.ExecContext(ctx, statement, args...); err != nil {
			return fmt.Errorf("delete %d rows from cnf_metrics: %w", len(chunk), err)
		}
	}
	return nil
}

// Held returns the rows, without their times, whose ids begin with one of the prefixes. Each prefix ends with a slash.
func (t *Table) Held(ctx context.Context, prefixes []string) (held []telemetry.Row, err error) {
	for _, prefix := range prefixes {
		if held, err = t.appendHeld(ctx, held, prefix); err != nil {
			return nil, fmt.Errorf("read the rows %s… of cnf_metrics: %w", prefix, err)
		}
	}
	return held, nil
}

// appendHeld selects a range of ids, which uses the primary key. LIKE would interpret the underscores of a prefix as
// wildcards.
func (t *Table) appendHeld(ctx context.Context, held []telemetry.Row, prefix string) ([]telemetry.Row, error) {
	const afterSlash = "0" // in ASCII
	rows, err := t.db.QueryContext(ctx, "SELECT cnf_id, metric_type, value, unit, status FROM cnf_metrics "+
		"WHERE cnf_id >= "+t.dialect.parameter(0)+" AND cnf_id < "+t.dialect.parameter(1),
		prefix, strings.TrimSuffix(prefix, "/")+afterSlash)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r telemetry.Row
		if err := rows.Scan(&r.ID, &r.Type, &r.Value, &r.Unit, &r.Status); err != nil {
			return nil, err
		}
		held = append(held, r)
	}
	return held, rows.Err()
}
