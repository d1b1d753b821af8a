package sqldb

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/origin"
)

// Dataset says which rows of a database are its values: those of a table, or those of a query.
type Dataset struct {
	// Name is the dataset's name in the configuration; errors name it.
	Name string

	// Table is table or schema.table. Its queries are made here.
	Table string
	// Key is the column of Table that holds the key; it should have a unique index.
	Key string
	// Columns are those of the value, in order; empty means all of Table, in its order. Only with Table.
	Columns []string

	// Query reads the row of one key, its only parameter: $1 in PostgreSQL, ? elsewhere. Instead of Table.
	Query string
	// Batch reads the rows of many keys; its first column is the key and no part of the value. The parameter is an
	// array in PostgreSQL (= ANY($1)), and a list elsewhere (IN (?), the ? is repeated). Without it many keys cost one
	// query each.
	Batch string

	// Version is the integer column that grows with each write of the row; empty where there is none.
	Version string
	// Value is the one column that is the value, as it is; empty means the row as a JSON object.
	Value string
}

func (ds Dataset) check(d dialect) error {
	switch {
	case (ds.Table == "") == (ds.Query == ""):
		return errors.New("set either table and key, or query")
	case ds.Table != "" && ds.Key == "":
		return errors.New("table needs key: the column that holds the key")
	case ds.Table != "" && ds.Batch != "":
		return errors.New("batch goes with query; with table it is made for you")
	case ds.Query != "" && (ds.Key != "" || len(ds.Columns) > 0):
		return errors.New("key and columns go with table; a query names its own columns")
	case ds.Value != "" && len(ds.Columns) > 0:
		return errors.New("set either value or columns")
	}
	return ds.checkParameters(d)
}

func (ds Dataset) checkParameters(d dialect) error {
	if ds.Query != "" && !strings.Contains(ds.Query, d.parameter()) {
		return fmt.Errorf("query must compare the key with its parameter, %s", d.parameter())
	}
	list := d.parameter()
	if list == "?" {
		list = listParameter
	}
	if ds.Batch != "" && strings.Count(ds.Batch, list) != 1 {
		return fmt.Errorf("batch must have the parameter for its keys once, as in: %s", strings.TrimSpace(d.isAny()))
	}
	return nil
}

// statement is what loads many keys, or each key of many.
func (ds Dataset) statement(d dialect) *statement {
	switch {
	case ds.Table != "":
		return &statement{sql: ds.tableSQL(d), keyed: true, list: true, table: ds.Table, key: ds.Key}
	case ds.Batch != "":
		return &statement{sql: ds.Batch, keyed: true, list: true}
	}
	return &statement{sql: ds.Query}
}

func (ds Dataset) tableSQL(d dialect) string {
	return fmt.Sprintf("SELECT %s, %s FROM %s AS t WHERE t.%s%s", d.keyColumn("t."+d.quote(ds.Key)),
		ds.selected(d), quoteTable(d, ds.Table), d.quote(ds.Key), d.isAny())
}

// selected are the columns behind the key.
func (ds Dataset) selected(d dialect) string {
	names := ds.Columns
	if ds.Value != "" {
		names = []string{ds.Value}
	}
	if len(names) == 0 {
		return "t.*"
	}
	if ds.Version != "" && !slices.Contains(names, ds.Version) {
		names = append(slices.Clone(names), ds.Version)
	}
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = "t." + d.quote(name)
	}
	return strings.Join(quoted, ", ")
}

func quoteTable(d dialect, table string) string {
	schema, name, ok := strings.Cut(table, ".")
	if !ok {
		return d.quote(table)
	}
	return d.quote(schema) + "." + d.quote(name)
}

// Dataset returns the origin of one dataset. It does not connect; Check does.
func (db *DB) Dataset(ds Dataset) (origin.Origin, error) {
	return db.source(ds)
}

func (db *DB) source(ds Dataset) (*source, error) {
	if err := ds.check(db.dialect); err != nil {
		return nil, fmt.Errorf("dataset %q: %w", ds.Name, err)
	}
	return &source{db: db, dataset: ds, statement: ds.statement(db.dialect)}, nil
}
