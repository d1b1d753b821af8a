package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ringside-cache/ringside/origin/sqldb/errclass"
	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// reader implements sqldb.Reader.
type reader struct{}

func (reader) Describe(ctx context.Context, conn *sql.Conn, q *sqltext.Query) ([]rowset.ResultColumn, error) {
	return rowset.DescribeByRunning(ctx, conn, q.Expand(1, rows), q.Width())
}

func (reader) Read(ctx context.Context, conn *sql.Conn, q *sqltext.Query, keys []string, set *rowset.Set) error {
	kt, err := keyTypeOf(ctx, conn, q)
	if err != nil {
		return errclass.Keyless(err)
	}
	keys, parameters := set.OfType(kt, keys)
	if len(keys) == 0 {
		return nil
	}
	parameters = alternatives(kt, parameters)
	if !q.List {
		for _, one := range parameters {
			if err := scan(ctx, conn, q, keys[0], q.SQL, one, set); err != nil || set.Rows() > 0 {
				return err
			}
		}
		return nil
	}
	for some := range slices.Chunk(parameters, maxParameters/q.Width()) {
		if err := scan(ctx, conn, q, keys[0], q.Expand(len(some), rows), slices.Concat(some...), set); err != nil {
			return err
		}
	}
	return nil
}

// maxParameters is SQLITE_MAX_VARIABLE_NUMBER (limits.html).
const maxParameters = 32766

// rows begins a list of row values, which are compared by IN (rowvalue.html).
const rows = "VALUES "

func (reader) Probe(ctx context.Context, conn *sql.Conn, q *sqltext.Query) error {
	return rowset.Probe(ctx, conn, q.Expand(1, rows), q.Width())
}

func (reader) List(ctx context.Context, conn *sql.Conn, q *sqltext.Query, parameters []sqltext.Parameter, set *rowset.Set) error {
	return scan(ctx, conn, q, "", q.SQL, sqltext.Step{Parameters: parameters}.Values(), set)
}

func (reader) ListKeys(ctx context.Context, conn *sql.Conn, text string, yield rowset.YieldKey) error {
	return rowset.ListKeys(ctx, conn, text, yield)
}

func scan(ctx context.Context, conn *sql.Conn, q *sqltext.Query, key, text string, parameters []any, set *rowset.Set) error {
	r := &rowset.Scan{Query: q, Key: key, Set: set, Cell: cells{set.Dataset.IntegerTimes}.cell, Raw: rawText}
	return r.Run(ctx, conn, text, parameters)
}

// rawText returns a statement whose columns have no declared types. The driver parses text in columns of some types as a
// time, and does not return what is stored: its zone, its digits, or that it is only a date.
func rawText(text string, types []string) (raw string, ok bool) {
	parsed := func(declared string) bool {
		return declared == "DATE" || declared == "DATETIME" || declared == "TIMESTAMP"
	}
	if !slices.ContainsFunc(types, parsed) { //guard:driver-parses-times
		return "", false
	}
	names, values := make([]string, len(types)), make([]string, len(types))
	for i := range types {
		names[i] = fmt.Sprintf("c%d", i)
		values[i] = "+" + names[i] // the same value, but no column
	}
	return fmt.Sprintf("WITH q (%s) AS (%s\n) SELECT %s FROM q", strings.Join(names, ", "), strings.TrimRight(text, "; \t\r\n"),
		strings.Join(values, ", ")), true
}

// keyTypeOf reads the declared type of the key column each time: it costs microseconds, and nothing reports changes of it.
func keyTypeOf(ctx context.Context, conn *sql.Conn, q *sqltext.Query) (rowset.KeyTypes, error) {
	if q.Table == "" {
		return slices.Repeat(rowset.KeyTypes{{Untyped: true}}, q.Width()), nil
	}
	d := syntax{}
	rows, err := conn.QueryContext(ctx, "SELECT "+strings.Join(sqltext.QuoteAll(d, "", q.Key), ", ")+" FROM "+
		sqltext.QuoteTable(d, q.Table)+" LIMIT 0")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	_, types, err := rowset.ColumnsOf(rows)
	if err != nil {
		return nil, err
	}
	kt := make(rowset.KeyTypes, len(types))
	for i, declared := range types {
		kt[i] = declaredKeyType(declared)
	}
	return kt, nil
}

// declaredKeyType goes by the affinity of a declared type in upper case (datatype3.html, 3.1). A column without affinity,
// and an expression of a view, compare a number and a text as different. ANY has no affinity in a STRICT table.
func declaredKeyType(declared string) rowset.KeyType {
	contains := func(word string) bool { return strings.Contains(declared, word) }
	switch {
	case contains("INT"):
		return rowset.KeyType{Bits: 64}
	case contains("CHAR"), contains("CLOB"), contains("TEXT"):
		return rowset.KeyType{}
	}
	return rowset.KeyType{Untyped: declared == "" || declared == "ANY" || contains("BLOB")}
}

// alternatives returns the parameters of all values whose texts are one of the keys: in a column without an affinity, each value
// has its own type.
func alternatives(kt rowset.KeyTypes, keys [][]any) (all [][]any) {
	if !slices.ContainsFunc(kt, func(kt rowset.KeyType) bool { return kt.Untyped }) { //guard:untyped-key-not-found
		return keys
	}
	for _, key := range keys {
		combined := [][]any{nil}
		for i, component := range key {
			var longer [][]any
			for _, v := range valuesOf(kt[i], component) {
				for _, begin := range combined {
					longer = append(longer, append(slices.Clone(begin), v))
				}
			}
			combined = longer
		}
		all = append(all, combined...)
	}
	return all
}

func valuesOf(kt rowset.KeyType, component any) []any {
	text, ok := component.(string)
	if !kt.Untyped || !ok {
		return []any{component}
	}
	values := []any{text, []byte(text)}
	if v, err := (rowset.KeyType{Bits: 64}).Parse(text); err == nil {
		return append(values, v)
	}
	if v, err := strconv.ParseFloat(text, 64); err == nil {
		values = append(values, v)
	}
	return values
}
