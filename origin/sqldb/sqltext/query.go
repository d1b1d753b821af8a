package sqltext

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ringside-cache/ringside/origin"
)

// Check returns what is wrong with the fields of a dataset.
func Check(ds origin.Dataset, s Syntax) error {
	switch {
	case (ds.Table == "") == (ds.Query == ""):
		return errors.New("set either table and key, or query")
	case ds.Table != "" && len(ds.Key) == 0:
		return errors.New("table needs key: the column that holds the key")
	case ds.Table != "" && ds.Batch != "":
		return errors.New("batch belongs to query; with table, batches need no query")
	case ds.Query != "" && (len(ds.Key) > 0 || len(ds.Columns) > 0):
		return errors.New("key and columns belong to table; a query names its own columns")
	case ds.Value != "" && len(ds.Columns) > 0:
		return errors.New("set either value or columns")
	case !ds.Many && (len(ds.Order) > 0 || ds.MaxRows != 0):
		return errors.New("order and max_rows belong to rows: many")
	case ds.Many && ds.Version != "":
		return ErrVersionOfMany
	case !slices.Contains([]string{"", origin.IntegerSeconds, origin.IntegerMilliseconds}, ds.IntegerTimes):
		return fmt.Errorf("integer_times is %s or %s", origin.IntegerSeconds, origin.IntegerMilliseconds)
	}
	return checkParameters(ds, s)
}

// ErrVersionOfMany says that several rows have no version that grows with each change.
var ErrVersionOfMany = errors.New("version does not fit rows: many: when a row is deleted, the highest version of the others is lower " +
	"than before; remove version, and use feed to see changes at once")

func checkParameters(ds origin.Dataset, s Syntax) error {
	if ds.Query != "" && !strings.Contains(ds.Query, s.KeyParameter()) {
		return fmt.Errorf("query must compare the key with its parameter, %s", s.KeyParameter())
	}
	list := s.KeyParameter()
	if list == "?" {
		list = listParameter
	}
	if ds.Batch != "" && strings.Count(ds.Batch, list) != 1 {
		return fmt.Errorf("batch must have the parameter for its keys once, as in: %s", strings.TrimSpace(s.InKeys()))
	}
	return nil
}

// Load returns the query that loads many keys, or one key if the dataset has no query for many.
func Load(ds origin.Dataset, s Syntax) *Query {
	switch {
	case ds.Table != "":
		return &Query{SQL: tableSQL(ds, s), Keyed: true, List: true, Table: ds.Table, Key: ds.Key[0]}
	case ds.Batch != "":
		return &Query{SQL: ds.Batch, Keyed: true, List: true}
	}
	return &Query{SQL: ds.Query}
}

func tableSQL(ds origin.Dataset, s Syntax) string {
	return fmt.Sprintf("SELECT %s, %s FROM %s AS t WHERE t.%s%s", s.KeyText("t."+s.Quote(ds.Key[0])),
		Selected(ds, s), QuoteTable(s, ds.Table), s.Quote(ds.Key[0]), s.InKeys())
}

// Selected returns the columns after the key.
func Selected(ds origin.Dataset, s Syntax) string {
	names := ds.Columns
	if ds.Value != "" {
		names = []string{ds.Value}
	}
	if len(names) == 0 {
		return "t.*"
	}
	names = slices.Clone(names)
	for _, name := range append([]string{ds.Version}, ds.Order...) {
		if name = strings.TrimPrefix(name, "-"); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = "t." + s.Quote(name)
	}
	return strings.Join(quoted, ", ")
}

// QuoteTable quotes table or schema.table.
func QuoteTable(s Syntax, table string) string {
	schema, name, ok := strings.Cut(table, ".")
	if !ok {
		return s.Quote(table)
	}
	return s.Quote(schema) + "." + s.Quote(name)
}

// Shows reports whether a column is visible to readers.
func Shows(ds origin.Dataset, name string) bool {
	if slices.Contains(ds.Key, name) || name == ds.Version {
		return true
	}
	if ds.Value != "" {
		return name == ds.Value
	}
	return len(ds.Columns) == 0 || slices.Contains(ds.Columns, name)
}

// CheckWriter returns why a dataset of a table cannot be written.
func CheckWriter(ds origin.Dataset) error {
	if ds.Many { //guard:many-rows-written-as-one
		return origin.InvalidValue("", "a dataset with rows: many cannot be written: write each row through a dataset with rows: one")
	}
	if ds.Value != "" && (slices.Contains(ds.Key, ds.Value) || ds.Value == ds.Version) {
		return origin.InvalidValue(ds.Value, "`value` must be another column than `key` and `version`, which a value does not set")
	}
	return nil
}
