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
	return rowset.DescribeByRunning(ctx, conn, q.Expand(1))
}

func (reader) Read(ctx context.Context, conn *sql.Conn, q *sqltext.Query, keys []string, set *rowset.Set) error {
	kt, err := keyTypeOf(ctx, conn, q)
	if err != nil {
		return errclass.Keyless(err)
	}
	keys = set.OfType(kt, keys)
	if len(keys) == 0 {
		return nil
	}
	parameters := keyParameters(kt, keys)
	if q.List {
		return scan(ctx, conn, q, keys[0], q.Expand(len(parameters)), parameters, set)
	}
	for _, parameter := range parameters {
		err := scan(ctx, conn, q, keys[0], q.SQL, []any{parameter}, set)
		if err != nil || set.Rows() > 0 {
			return err
		}
	}
	return nil
}

func (reader) Probe(ctx context.Context, conn *sql.Conn, q *sqltext.Query) error {
	return rowset.Probe(ctx, conn, q.Expand(1))
}

func (reader) List(ctx context.Context, conn *sql.Conn, q *sqltext.Query, parameters []sqltext.Parameter, set *rowset.Set) error {
	return scan(ctx, conn, q, "", q.SQL, sqltext.Step{Parameters: parameters}.Values(), set)
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
func keyTypeOf(ctx context.Context, conn *sql.Conn, q *sqltext.Query) (rowset.KeyType, error) {
	if q.Table == "" {
		return rowset.KeyType{Untyped: true}, nil
	}
	d := syntax{}
	rows, err := conn.QueryContext(ctx, "SELECT "+d.Quote(q.Key)+" FROM "+sqltext.QuoteTable(d, q.Table)+" LIMIT 0")
	if err != nil {
		return rowset.KeyType{}, err
	}
	defer rows.Close()
	_, types, err := rowset.ColumnsOf(rows)
	if err != nil {
		return rowset.KeyType{}, err
	}
	return declaredKeyType(types[0]), nil
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

// keyParameters returns each value whose text is one of the keys: without an affinity, each has its own type.
func keyParameters(kt rowset.KeyType, keys []string) (parameters []any) {
	if !kt.Untyped { //guard:untyped-key-not-found
		return kt.Parameters(keys)
	}
	for _, key := range keys {
		parameters = append(parameters, key, []byte(key))
		if v, err := (rowset.KeyType{Bits: 64}).Parse(key); err == nil {
			parameters = append(parameters, v)
		} else if v, err := strconv.ParseFloat(key, 64); err == nil {
			parameters = append(parameters, v)
		}
	}
	return parameters
}
