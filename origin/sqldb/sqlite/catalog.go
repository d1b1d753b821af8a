package sqlite

import (
	"cmp"
	"context"
	"database/sql"
	"strings"
	"time"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
	"github.com/ringside-cache/ringside/origin/sqldb/tables"
)

// The values of hidden in table_xinfo for generated columns (pragma.html).
const (
	hiddenVirtual = 2
	hiddenStored  = 3
)

// catalog implements sqldb.Catalog.
type catalog struct{}

func (catalog) ReadTable(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (*tables.Table, error) {
	schema, bare := sqltext.SplitTable(ds.Table)
	rows, err := conn.QueryContext(ctx, `SELECT name, type, "notnull", hidden, coalesce(dflt_value LIKE '%(%', 0) OR name = (`+rowID+`)
		FROM pragma_table_xinfo(?1, ?2)`, bare, cmp.Or(schema, "main"))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	t := &tables.Table{}
	for rows.Next() {
		var c rowjson.Column
		var declared string
		var hidden int
		var computed sql.NullBool
		if err := rows.Scan(&c.Name, &declared, &c.NotNull, &hidden, &computed); err != nil {
			return nil, err
		}
		if computed.Bool {
			t.SetGeneration(ds, c.Name, strings.EqualFold, tables.GeneratedReturned)
		}
		c.Generated = hidden == hiddenVirtual || hidden == hiddenStored
		declare(&c, strings.ToUpper(declared))
		c.Epoch = epochUnits[ds.IntegerTimes]
		t.Columns = append(t.Columns, c)
		t.SetKeyType(ds, c.Name, strings.EqualFold, declaredKeyType(strings.ToUpper(declared)))
	}
	return t, rows.Err()
}

// rowID selects the column that is the rowid, which has no index: the only one of the primary key, declared INTEGER.
const rowID = `SELECT name FROM pragma_table_info(?1, ?2) WHERE pk = 1 AND upper(type) = 'INTEGER'
	AND (SELECT count(*) FROM pragma_table_info(?1, ?2) WHERE pk) = 1
	AND NOT EXISTS (SELECT 1 FROM pragma_index_list(?1, ?2) WHERE origin = 'pk')`

var epochUnits = map[string]time.Duration{
	origin.IntegerSeconds: time.Second, origin.IntegerMilliseconds: time.Millisecond,
}

// declare goes by the type names that cellOf knows, and then by the affinity (datatype3.html, 3.1).
func declare(c *rowjson.Column, declared string) {
	c.Unchecked = true
	base := baseType(declared)
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

func (catalog) CheckWritable(context.Context, *sql.Conn, origin.Dataset) error { return nil }

// UniqueIndexes includes the primary key, which has no index if it is the rowid.
func (catalog) UniqueIndexes(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (tables.Indexes, error) {
	schema, name := sqltext.SplitTable(ds.Table)
	return tables.QueryIndexes(ctx, conn, `SELECT l.name, coalesce(i.name, '') FROM pragma_index_list(?1, ?2) AS l, pragma_index_info(l.name, ?2) AS i
		WHERE l."unique" AND NOT l.partial UNION ALL SELECT '', name FROM pragma_table_info(?1, ?2) WHERE pk`,
		name, cmp.Or(schema, "main"))
}

func (catalog) IsView(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (view bool, err error) {
	schema, name := sqltext.SplitTable(ds.Table)
	err = conn.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pragma_table_list WHERE schema = ? AND name = ? COLLATE NOCASE
		AND type IN ('view', 'virtual'))`, cmp.Or(schema, "main"), name).Scan(&view)
	return view, err
}
