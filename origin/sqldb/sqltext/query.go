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
		return errors.New("table needs key: the column that holds the key, or the columns")
	case len(ds.Key) > origin.MaxKeyColumns:
		return fmt.Errorf("key has %d columns; at most %d are allowed", len(ds.Key), origin.MaxKeyColumns)
	case hasDuplicate(ds.Key):
		return errors.New("key names a column twice")
	case ds.Table != "" && ds.Batch != "":
		return errors.New("batch belongs to query; with table, batches need no query")
	case ds.Query != "" && len(ds.Columns) > 0:
		return errors.New("columns belongs to table; a query names its own columns")
	case ds.Value != "" && len(ds.Columns) > 0:
		return errors.New("set either value or columns")
	case !ds.Many && (len(ds.Order) > 0 || ds.MaxRows != 0):
		return errors.New("order and max_rows belong to rows: many")
	case ds.Many && ds.Version != "":
		return ErrVersionOfMany
	case ds.Many && ds.Expires != "":
		return errors.New("expires does not fit rows: many: several rows have no common end; use ttl")
	case !slices.Contains([]string{"", origin.IntegerSeconds, origin.IntegerMilliseconds}, ds.IntegerTimes):
		return fmt.Errorf("integer_times is %s or %s", origin.IntegerSeconds, origin.IntegerMilliseconds)
	}
	return checkParameters(ds, s)
}

// ErrVersionOfMany says that several rows have no version that grows with each change.
var ErrVersionOfMany = errors.New("version does not fit rows: many: when a row is deleted, the highest version of the others is lower " +
	"than before; remove version, and use feed to see changes at once")

func hasDuplicate(names []string) bool {
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return true
		}
	}
	return false
}

func checkParameters(ds origin.Dataset, s Syntax) error {
	width := max(1, len(ds.Key))
	for n := range width {
		if p := s.Parameter(n + 1); ds.Query != "" && strings.Count(ds.Query, p) < parametersAlike(s, width) {
			return fmt.Errorf("query must compare %s with its parameter, %s", keyName(ds, n), p)
		}
		list := s.Parameter(n + 1)
		if list == "?" {
			list = listParameter
		}
		if ds.Batch != "" && strings.Count(ds.Batch, list) != 1 {
			return fmt.Errorf("batch must have the parameter %s for its keys once, as in: %s", list, s.Batch(ds.Key))
		}
	}
	return nil
}

// parametersAlike is how many parameters of a query look the same.
func parametersAlike(s Syntax, width int) int {
	if s.Parameter(1) == s.Parameter(2) {
		return width
	}
	return 1
}

func keyName(ds origin.Dataset, n int) string {
	if len(ds.Key) > 1 {
		return "the key column " + ds.Key[n]
	}
	return "the key"
}

// Load returns the query that loads many keys, or one key if the dataset has no query for many.
func Load(ds origin.Dataset, s Syntax) *Query {
	switch {
	case ds.Table != "":
		one := &Query{SQL: oneSQL(ds, s), Keyed: true, Table: ds.Table, Key: ds.Key}
		return &Query{SQL: tableSQL(ds, s), Keyed: true, List: true, Table: ds.Table, Key: ds.Key, One: one}
	case ds.Batch != "":
		return &Query{SQL: ds.Batch, Keyed: true, List: true, Key: ds.Key}
	}
	return &Query{SQL: ds.Query, Key: ds.Key}
}

func tableSQL(ds origin.Dataset, s Syntax) string {
	return s.SelectKeys(KeyTexts(ds, s)+", "+Selected(ds, s), ds.Table, ds.Key)
}

func oneSQL(ds origin.Dataset, s Syntax) string {
	same := AndAll(QuoteAll(s, "t.", ds.Key), func(i int, column string) string { return column + " = " + s.Parameter(i+1) })
	return fmt.Sprintf("SELECT %s, %s FROM %s AS t WHERE %s", KeyTexts(ds, s), Selected(ds, s), QuoteTable(s, ds.Table), same)
}

// KeyTexts returns the columns of the key in the form in which they are compared.
func KeyTexts(ds origin.Dataset, s Syntax) string {
	texts := QuoteAll(s, "t.", ds.Key)
	for i, column := range texts {
		texts[i] = s.KeyText(column)
	}
	return strings.Join(texts, ", ")
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
	for _, name := range append([]string{ds.Version, ds.Expires}, ds.Order...) {
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

var likeEscaper = strings.NewReplacer("|", "||", "%", "|%", "_", "|_")

// KeyPrefix returns conditions that all keys of these columns that begin with prefix meet, and few others.
func KeyPrefix(columns []string, prefix string, s Syntax) (conditions []string) {
	parts := []string{prefix}
	if len(columns) > 1 {
		parts = strings.Split(prefix, "/")
	}
	for i, part := range parts[:min(len(parts), len(columns))] {
		pattern, open := part, i == len(parts)-1
		if len(columns) > 1 {
			pattern = origin.UnescapeKeyPrefix(part)
		}
		pattern = likeEscaper.Replace(pattern)
		if open {
			pattern += "%"
		}
		if pattern != "%" {
			conditions = append(conditions, s.KeyLike("t."+s.Quote(columns[i]), pattern))
		}
	}
	return conditions
}

// Duplicate returns the query of a row if a key has two. Keys are equal if their bytes are, whatever the collation.
func Duplicate(ds origin.Dataset, s Syntax) *Query {
	columns := QuoteAll(s, "t.", ds.Key)
	present := AndAll(columns, func(_ int, column string) string { return column + " IS NOT NULL" })
	for i, column := range columns {
		columns[i] = s.KeyBytes(column)
	}
	return &Query{Keyed: true, SQL: fmt.Sprintf("SELECT 'key', COUNT(*) AS n FROM %s AS t WHERE %s GROUP BY %s HAVING COUNT(*) > 1 LIMIT 1",
		QuoteTable(s, ds.Table), present, strings.Join(columns, ", "))}
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
