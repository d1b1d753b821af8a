package sqldb

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/origin"
)

func checkDataset(ds origin.Dataset, d dialect) error {
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
	return checkParameters(ds, d)
}

func checkParameters(ds origin.Dataset, d dialect) error {
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
func statementOf(ds origin.Dataset, d dialect) *statement {
	switch {
	case ds.Table != "":
		return &statement{sql: tableSQL(ds, d), keyed: true, list: true, table: ds.Table, key: ds.Key}
	case ds.Batch != "":
		return &statement{sql: ds.Batch, keyed: true, list: true}
	}
	return &statement{sql: ds.Query}
}

func tableSQL(ds origin.Dataset, d dialect) string {
	return fmt.Sprintf("SELECT %s, %s FROM %s AS t WHERE t.%s%s", d.keyColumn("t."+d.quote(ds.Key)),
		selected(ds, d), quoteTable(d, ds.Table), d.quote(ds.Key), d.isAny())
}

// selected are the columns behind the key.
func selected(ds origin.Dataset, d dialect) string {
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
func (db *DB) Dataset(ds origin.Dataset) (origin.Origin, error) {
	return db.source(ds)
}

func (db *DB) source(ds origin.Dataset) (*source, error) {
	if err := checkDataset(ds, db.dialect); err != nil {
		return nil, fmt.Errorf("dataset %q: %w", ds.Name, err)
	}
	return &source{db: db, dataset: ds, statement: statementOf(ds, db.dialect)}, nil
}
