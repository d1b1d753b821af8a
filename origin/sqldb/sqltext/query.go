package sqltext

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/origin"
)

func Check(ds origin.Dataset, d Syntax) error {
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

func checkParameters(ds origin.Dataset, d Syntax) error {
	if ds.Query != "" && !strings.Contains(ds.Query, d.KeyParameter()) {
		return fmt.Errorf("query must compare the key with its parameter, %s", d.KeyParameter())
	}
	list := d.KeyParameter()
	if list == "?" {
		list = listParameter
	}
	if ds.Batch != "" && strings.Count(ds.Batch, list) != 1 {
		return fmt.Errorf("batch must have the parameter for its keys once, as in: %s", strings.TrimSpace(d.InKeys()))
	}
	return nil
}

// statement is what loads many keys, or each key of many.
func Load(ds origin.Dataset, d Syntax) *Query {
	switch {
	case ds.Table != "":
		return &Query{SQL: tableSQL(ds, d), Keyed: true, List: true, Table: ds.Table, Key: ds.Key}
	case ds.Batch != "":
		return &Query{SQL: ds.Batch, Keyed: true, List: true}
	}
	return &Query{SQL: ds.Query}
}

func tableSQL(ds origin.Dataset, d Syntax) string {
	return fmt.Sprintf("SELECT %s, %s FROM %s AS t WHERE t.%s%s", d.KeyText("t."+d.Quote(ds.Key)),
		Selected(ds, d), QuoteTable(d, ds.Table), d.Quote(ds.Key), d.InKeys())
}

// selected are the columns behind the key.
func Selected(ds origin.Dataset, d Syntax) string {
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
		quoted[i] = "t." + d.Quote(name)
	}
	return strings.Join(quoted, ", ")
}

func QuoteTable(d Syntax, table string) string {
	schema, name, ok := strings.Cut(table, ".")
	if !ok {
		return d.Quote(table)
	}
	return d.Quote(schema) + "." + d.Quote(name)
}

// shows reports whether readers see a column.
func Shows(ds origin.Dataset, name string) bool {
	if name == ds.Key || name == ds.Version {
		return true
	}
	if ds.Value != "" {
		return name == ds.Value
	}
	return len(ds.Columns) == 0 || slices.Contains(ds.Columns, name)
}

// checkWriter finds what of a dataset no write can be made of.
func CheckWriter(ds origin.Dataset) error {
	if ds.Value != "" && (ds.Value == ds.Key || ds.Value == ds.Version) {
		return origin.InvalidValue(ds.Value, "`value` must be another column than `key` and `version`, which a value does not set")
	}
	return nil
}
