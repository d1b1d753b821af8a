package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
	"github.com/ringside-cache/ringside/origin/sqldb/tables"
)

// catalog implements sqldb.Catalog.
type catalog struct{ *server }

func (c catalog) ReadTable(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (*tables.Table, error) {
	schema, bare := sqltext.SplitTable(ds.Table)
	json, err := c.checkedJSON(ctx, conn, schema, bare)
	if err != nil {
		return nil, err
	}
	mariadb, err := c.isMariaDB(ctx, conn)
	if err != nil {
		return nil, err
	}
	rows, err := conn.QueryContext(ctx, `SELECT COLUMN_NAME, LOWER(COLUMN_TYPE), IS_NULLABLE = 'NO',
		EXTRA LIKE '%GENERATED%' AND EXTRA NOT LIKE '%DEFAULT_GENERATED%', EXTRA LIKE '%on update%',
		EXTRA LIKE '%auto_increment%', COALESCE(COLUMN_DEFAULT LIKE '%(%', 0) FROM information_schema.COLUMNS
		WHERE TABLE_SCHEMA = COALESCE(NULLIF(?, ''), DATABASE()) AND TABLE_NAME = ?
		ORDER BY ORDINAL_POSITION`, schema, bare)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	t := &tables.Table{}
	for rows.Next() {
		var c rowjson.Column
		var declared string
		var counts, computed bool
		if err := rows.Scan(&c.Name, &declared, &c.NotNull, &c.Generated, &c.AutoUpdate, &counts, &computed); err != nil {
			return nil, err
		}
		declare(&c, declared)
		if json[c.Name] {
			c.Form, c.Inexact = rowjson.FormJSON, true
		}
		t.Columns = append(t.Columns, c)
		t.SetKeyType(ds, c.Name, strings.EqualFold, keyTypeOf(declared))
		t.SetGeneration(ds, c.Name, strings.EqualFold, generation(counts, computed && mariadb))
	}
	return t, rows.Err()
}

// generation returns how the database generates a key. Of other columns than AUTO_INCREMENT ones, only MariaDB can return it.
func generation(counts, returned bool) tables.Generation {
	switch {
	case counts:
		return tables.GeneratedInsertID
	case returned:
		return tables.GeneratedReturned
	}
	return tables.NotGenerated
}

// declare reads a column type such as "int(10) unsigned".
func declare(c *rowjson.Column, declared string) {
	integer := keyTypeOf(declared)
	base, _, _ := strings.Cut(declared, "(")
	base, _, _ = strings.Cut(base, " ")
	c.Finite = true
	switch {
	case declared == "tinyint(1)":
		c.Form, c.Bits = rowjson.FormBool, 8
	case integer.Bits > 0:
		c.Form, c.Bits, c.Unsigned = rowjson.FormInteger, integer.Bits, integer.Unsigned
	case base == "bit", base == "year":
		c.Form, c.Bits, c.Unsigned = rowjson.FormInteger, 64, true
	case base == "float":
		c.Form, c.Bits = rowjson.FormFloat, 32
	case base == "double":
		c.Form, c.Bits = rowjson.FormFloat, 64
	case base == "decimal":
		c.Form = rowjson.FormDecimal
	case base == "json":
		c.Form, c.Inexact = rowjson.FormJSON, true // numbers and times that JSON does not have
	case base == "enum":
		c.Enum = true
	case base == "datetime", base == "timestamp":
		c.Form = rowjson.FormTimestamp
	case base == "date":
		c.Form = rowjson.FormDate
	case strings.HasSuffix(base, "blob"), strings.HasSuffix(base, "binary"), slices.Contains(byteTypes, base):
		c.Form = rowjson.FormBytes
	}
}

// byteTypes are the types besides blobs that the driver returns as bytes.
var byteTypes = []string{"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
	"geometrycollection", "geomcollection", "vector"}

// keyTypeOf reads a column type such as "int(10) unsigned".
func keyTypeOf(columnType string) rowset.KeyType {
	name, _, _ := strings.Cut(strings.ToLower(columnType), "(")
	name, _, _ = strings.Cut(name, " ")
	bits := map[string]int{"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}[name]
	return rowset.KeyType{Bits: bits, Unsigned: strings.Contains(columnType, "unsigned"), UUID: name == "uuid"}
}

// jsonCheck accepts both quotes, as the server prints those of its sql_mode.
var jsonCheck = regexp.MustCompile("^json_valid\\([`\"](.*)[`\"]\\)$")

// checkedJSON returns the text columns of MariaDB that hold JSON.
func (s *server) checkedJSON(ctx context.Context, conn *sql.Conn, schema, table string) (map[string]bool, error) {
	if mariadb, err := s.isMariaDB(ctx, conn); err != nil || !mariadb {
		return nil, err // MySQL has a type JSON, which the protocol transmits
	}
	columns := map[string]bool{}
	err := eachPair(ctx, conn, `SELECT CHECK_CLAUSE, '' FROM information_schema.CHECK_CONSTRAINTS
		WHERE CONSTRAINT_SCHEMA = COALESCE(NULLIF(?, ''), DATABASE()) AND TABLE_NAME = ?`, schema, table,
		func(clause, _ string) {
			if m := jsonCheck.FindStringSubmatch(clause); m != nil {
				columns[m[1]] = true
			}
		})
	return columns, err
}

// eachPair calls each with the two columns of each row of a query about a table.
func eachPair(ctx context.Context, conn *sql.Conn, query, schema, table string, each func(a, b string)) error {
	rows, err := conn.QueryContext(ctx, query, schema, table)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var a, b string
		if err := rows.Scan(&a, &b); err != nil {
			return err
		}
		each(a, b)
	}
	return rows.Err()
}

func (catalog) CheckWritable(ctx context.Context, conn *sql.Conn, ds origin.Dataset) error {
	schema, name := sqltext.SplitTable(ds.Table)
	return checkEngine(ctx, conn, schema, name)
}

func (catalog) UniqueIndexes(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (tables.Indexes, error) {
	schema, name := sqltext.SplitTable(ds.Table)
	return tables.QueryIndexes(ctx, conn, `SELECT INDEX_NAME, IF(SUB_PART IS NULL, COALESCE(COLUMN_NAME, ''), '')
		FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = COALESCE(NULLIF(?, ''), DATABASE()) AND TABLE_NAME = ?
		AND NON_UNIQUE = 0`, schema, name)
}

func (catalog) IsView(ctx context.Context, conn *sql.Conn, ds origin.Dataset) (view bool, err error) {
	schema, name := sqltext.SplitTable(ds.Table)
	err = conn.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM information_schema.TABLES
		WHERE TABLE_SCHEMA = COALESCE(NULLIF(?, ''), DATABASE()) AND TABLE_NAME = ? AND TABLE_TYPE LIKE '%VIEW')`, schema, name).Scan(&view)
	return view, err
}

func checkEngine(ctx context.Context, conn *sql.Conn, schema, name string) error {
	without := ""
	err := eachPair(ctx, conn, `SELECT t.ENGINE, e.TRANSACTIONS FROM information_schema.TABLES t
		JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE
		WHERE TABLE_SCHEMA = COALESCE(NULLIF(?, ''), DATABASE()) AND TABLE_NAME = ?`, schema, name,
		func(engine, transactions string) {
			if transactions != "YES" {
				without = engine
			}
		})
	if err == nil && without != "" {
		err = fmt.Errorf("the engine %s of table %s has no transactions: ALTER TABLE … ENGINE = InnoDB", without, name)
	}
	return err
}
