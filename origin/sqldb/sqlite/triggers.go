package sqlite

import (
	"context"
	"database/sql"
	_ "embed"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb"
	"github.com/ringside-cache/ringside/origin/sqldb/changefeed"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// triggers implements changefeed.Triggers.
type triggers struct{}

// Locate takes the name of an attached file as schema.
func (s triggers) Locate(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (at changefeed.Table, err error) {
	schema, table := sqltext.SplitTable(ds.Table)
	if schema == "" {
		schema = "main"
	}
	var kind string
	err = conn.QueryRowContext(ctx, "SELECT name, type FROM "+syntax{}.Quote(schema)+
		".sqlite_master WHERE name = ? COLLATE NOCASE", table).Scan(&at.Name, &kind)
	if err == nil && kind != "table" {
		err = changefeed.ErrNotATable
	}
	at.Schema, at.KeyText = schema, syntax{}.KeyText
	return at, err
}

//go:embed triggers.sql
var script string

func (triggers) Script() string { return script }

func (triggers) OwnSchemaOnly() bool { return true }

func (s triggers) MissingEvents(ctx context.Context, conn *sql.Conn, ds origin.Dataset, marks []string) (
	missing []string, err error,
) {
	at, err := s.Locate(ctx, conn, ds)
	if err != nil {
		return nil, err
	}
	for _, event := range []string{"INSERT", "UPDATE", "DELETE"} {
		var triggers int
		err := conn.QueryRowContext(ctx, "SELECT count(*) FROM "+syntax{}.Quote(at.Schema)+`.sqlite_master WHERE type = 'trigger'
			AND tbl_name = ? COLLATE NOCASE AND instr(sql, ?) > 0 AND instr(sql, ?) > 0
			AND instr(sql, ?) > 0`, at.Name, " "+event+" ON ", marks[0], marks[1]).Scan(&triggers)
		if err != nil {
			return nil, err
		}
		if triggers == 0 {
			missing = append(missing, event)
		}
	}
	return missing, nil
}

// Apply runs the script until no other writer blocks it.
func (triggers) Apply(ctx context.Context, conn *sql.Conn, text string) error {
	for {
		_, err := conn.ExecContext(ctx, text)
		if err == nil {
			return nil
		}
		sqldb.Rollback(ctx, conn)
		if !isBusy(err) || ctx.Err() != nil {
			return err
		}
	}
}

func (triggers) Log(table string) changefeed.Log { return &changeLog{table: table} }
