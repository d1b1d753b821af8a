package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"strings"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// The values of hidden in table_xinfo for generated columns (pragma.html).
const (
	hiddenVirtual = 2
	hiddenStored  = 3
)

// catalog implements sqldb.Catalog.
type catalog struct{}

func (catalog) ReadTable(ctx context.Context, conn *sql.Conn, name, key string) (*sqldb.Table, error) {
	schema, bare := sqltext.SplitTable(name)
	rows, err := conn.QueryContext(ctx, `SELECT name, type, "notnull", hidden FROM pragma_table_xinfo(?, ?)`, bare,
		cmp.Or(schema, "main"))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	t := &sqldb.Table{}
	for rows.Next() {
		var c rowjson.Column
		var declared string
		var hidden int
		if err := rows.Scan(&c.Name, &declared, &c.NotNull, &hidden); err != nil {
			return nil, err
		}
		c.Generated = hidden == hiddenVirtual || hidden == hiddenStored
		declare(&c, strings.ToUpper(declared))
		t.Columns = append(t.Columns, c)
		if c.Name == key && strings.Contains(strings.ToUpper(declared), "INT") {
			t.Key = rowset.KeyType{Bits: 64}
		}
	}
	return t, rows.Err()
}

// declare goes by the type names that cellOf knows, and then by the affinity (datatype3.html, 3.1).
func declare(c *rowjson.Column, declared string) {
	c.Unchecked = true
	base, _, _ := strings.Cut(declared, "(")
	has := func(words ...string) bool {
		for _, word := range words {
			if strings.Contains(declared, word) {
				return true
			}
		}
		return false
	}
	switch base {
	case "BOOL", "BOOLEAN":
		c.Form, c.Bits = rowjson.FormBool, 64
	case "DATETIME", "TIMESTAMP", "TIMESTAMPTZ":
		c.Form = rowjson.FormTimestamp
	case "DATE":
		c.Form = rowjson.FormDate
	case "TIME":
		c.Form = rowjson.FormTime
	case "JSON", "JSONB":
		c.Form = rowjson.FormJSON
	case "BLOB", "BYTEA", "BINARY", "VARBINARY":
		c.Form = rowjson.FormBytes
	case "UUID":
	default:
		switch {
		case has("INT"):
			c.Form, c.Bits = rowjson.FormInteger, 64
		case has("CHAR", "CLOB", "TEXT"):
		case has("REAL", "FLOA", "DOUB"):
			c.Form, c.Bits = rowjson.FormFloat, 64
		case scaleOf(declared) > 0:
			c.Form, c.Scale = rowjson.FormDecimal, scaleOf(declared)
		default:
			c.Form = rowjson.FormAny
		}
	}
}

func (catalog) CheckWritable(ctx context.Context, conn *sql.Conn, ds origin.Dataset) error {
	schema, name := sqltext.SplitTable(ds.Table)
	return sqldb.QueryUnique(ctx, conn, ds, `SELECT EXISTS (SELECT 1 FROM pragma_index_list(?1, ?2) AS l
			WHERE l."unique" AND NOT l.partial AND (SELECT count(*) FROM pragma_index_info(l.name, ?2)) = 1
			AND (SELECT name FROM pragma_index_info(l.name, ?2)) = ?3)
		OR COALESCE((SELECT group_concat(name) FROM pragma_table_info(?1, ?2) WHERE pk) = ?3, FALSE)`,
		name, cmp.Or(schema, "main"), ds.Key)
}
