package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	_ "embed"
	"slices"
	"strings"

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
	at.Schema = cmp.Or(schema, "main")
	texts := slices.Repeat([]func(string) string{syntax{}.KeyText}, len(ds.Key))
	at.KeyText = changefeed.KeyText(syntax{}, ds.Key, texts, changefeed.JoinWithPipes)
	var kind string
	err = conn.QueryRowContext(ctx, "SELECT name, type FROM "+syntax{}.Quote(at.Schema)+
		".sqlite_master WHERE name = ? COLLATE NOCASE", table).Scan(&at.Name, &kind)
	if err == nil && kind != "table" {
		err = changefeed.ErrNoTriggers
	}
	for _, column := range ds.Key {
		var declared string
		if err == nil {
			err = conn.QueryRowContext(ctx, "SELECT upper(type) FROM pragma_table_xinfo(?, ?) WHERE name = ? COLLATE NOCASE",
				at.Name, at.Schema, column).Scan(&declared)
		}
		if err == nil && isReal(declared) { //guard:real-key-accepted
			err = changefeed.ErrKeyType(declared, "the application's SQLite prints digits that this one may print differently")
		}
	}
	if err == nil {
		at.Unique, err = uniqueIndexes(ctx, conn, at, ds.Key)
	}
	return at, err
}

// isReal reports whether a declared type has the affinity REAL (datatype3.html, 3.1).
func isReal(declared string) bool {
	for _, word := range []string{"INT", "CHAR", "CLOB", "TEXT", "BLOB"} {
		if strings.Contains(declared, word) {
			return false
		}
	}
	return strings.Contains(declared, "REAL") || strings.Contains(declared, "FLOA") || strings.Contains(declared, "DOUB")
}

// uniqueIndexes returns the unique indexes, except that of the key, and the column that is the rowid, which has no index.
// Expressions have no name: an index with one is left out.
func uniqueIndexes(ctx context.Context, conn *sql.Conn, at changefeed.Table, key []string) (all [][]changefeed.UniqueColumn, err error) {
	rows, err := conn.QueryContext(ctx, `SELECT l.name, x.name, x.coll FROM pragma_index_list(?1, ?2) AS l,
			pragma_index_xinfo(l.name, ?2) AS x WHERE l."unique" AND x.key
			AND NOT EXISTS (SELECT 1 FROM pragma_index_xinfo(l.name, ?2) AS e WHERE e.key AND e.name IS NULL)
		UNION ALL SELECT '', name, 'BINARY' FROM pragma_table_info(?1, ?2) WHERE pk = 1
			AND (SELECT count(*) FROM pragma_table_info(?1, ?2) WHERE pk) = 1
			AND NOT EXISTS (SELECT 1 FROM pragma_index_list(?1, ?2) WHERE origin = 'pk')`, at.Name, at.Schema)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	last := ""
	for rows.Next() {
		var index string
		var c changefeed.UniqueColumn
		if err := rows.Scan(&index, &c.Name, &c.Collation); err != nil {
			return nil, err
		}
		if len(all) == 0 || index != last {
			all, last = append(all, nil), index
		}
		all[len(all)-1] = append(all[len(all)-1], c)
	}
	return slices.DeleteFunc(all, func(columns []changefeed.UniqueColumn) bool {
		return len(columns) == len(key) && !slices.ContainsFunc(columns, func(c changefeed.UniqueColumn) bool {
			return !slices.ContainsFunc(key, func(name string) bool { return strings.EqualFold(c.Name, name) })
		})
	}), rows.Err()
}

//go:embed triggers.sql
var triggersFile string

var parts = changefeed.Parts(triggersFile)

func (triggers) Script(tags *changefeed.Tags) (install, remove string) {
	values := map[string]string{"DropReplaced": tags.Fill(parts["drop replaced"], nil), "Replaced": ""}
	var rows []string
	for _, columns := range tags.Unique() {
		var same strings.Builder
		for _, c := range columns {
			name := syntax{}.Quote(c.Name)
			same.WriteString(" AND t." + name + " = NEW." + name + " COLLATE " + syntax{}.Quote(c.Collation))
		}
		rows = append(rows, tags.Fill(parts["replaced row"], map[string]string{"AndSameUnique": same.String()}))
	}
	if rows != nil {
		values["Replaced"] = tags.Fill(parts["replaced"], map[string]string{"ReplacedRows": strings.Join(rows, "\n")})
	}
	return tags.Fill(parts["install"], values), tags.Fill(parts["remove"], values)
}

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
	return untilFree(ctx, func() error {
		_, err := conn.ExecContext(ctx, text)
		if err != nil {
			sqldb.Rollback(ctx, conn)
		}
		return err
	})
}

func (triggers) Log(table string) changefeed.Log { return &changeLog{table: table} }
