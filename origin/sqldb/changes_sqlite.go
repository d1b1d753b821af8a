package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/ringside-cache/ringside/origin"
)

// locate implements recorder. A schema is the name of an attached file.
func (s sqlite) locate(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (at located, err error) {
	schema, table := splitTable(ds.Table)
	if schema == "" {
		schema = "main"
	}
	var kind string
	err = conn.QueryRowContext(ctx, "SELECT name, type FROM "+s.quote(schema)+
		".sqlite_master WHERE name = ? COLLATE NOCASE", table).Scan(&at.table, &kind)
	if err == nil && kind != "table" {
		err = errors.New("it is no table of its own: only a table has triggers that tell of its rows")
	}
	at.schema, at.keyText = schema, s.keyColumn
	return at, err
}

func (sqlite) scripts() string { return "sqlite.sql" }

func (sqlite) denied(err error) bool {
	const primary = 0xff // the rest of a code says more about it
	code := sqliteCode(err) & primary
	return code == sqlite3.SQLITE_READONLY || code == sqlite3.SQLITE_PERM
}

// missing goes by the text: the code is that of any error in a statement.
func (sqlite) missing(err error) bool {
	return sqliteCode(err) == sqlite3.SQLITE_ERROR && strings.Contains(err.Error(), "no such table")
}

func (s sqlite) covered(ctx context.Context, conn *sql.Conn, ds origin.Dataset, words []string) (
	missing []string, err error,
) {
	at, err := s.locate(ctx, conn, ds)
	if err != nil {
		return nil, err
	}
	for _, event := range []string{"INSERT", "UPDATE", "DELETE"} {
		var triggers int
		err := conn.QueryRowContext(ctx, "SELECT count(*) FROM "+s.quote(at.schema)+`.sqlite_master WHERE type = 'trigger'
			AND tbl_name = ? COLLATE NOCASE AND instr(sql, ?) > 0 AND instr(sql, ?) > 0
			AND instr(sql, ?) > 0`, at.table, " "+event+" ON ", words[0], words[1]).Scan(&triggers)
		if err != nil {
			return nil, err
		}
		if triggers == 0 {
			missing = append(missing, event)
		}
	}
	return missing, nil
}

// apply tries until no other writer is in its way.
func (sqlite) apply(ctx context.Context, conn *sql.Conn, script string) error {
	for {
		_, err := conn.ExecContext(ctx, script)
		if err == nil {
			return nil
		}
		rollback(ctx, conn)
		if sqliteCode(err)&0xff != sqlite3.SQLITE_BUSY || ctx.Err() != nil {
			return err
		}
	}
}

func splitTable(table string) (schema, name string) {
	schema, name, ok := strings.Cut(table, ".")
	if !ok {
		return "", table
	}
	return schema, name
}
