package mysql

import (
	"context"
	"database/sql"
	"strings"
	"sync"
	"time"

	"github.com/ringside-cache/ringside/origin/sqldb"
	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

// reader implements sqldb.Reader.
type reader struct {
	*server
	tables sync.Map // :: [2]string{table, key} → *tableTypes
}

func (r *reader) Describe(ctx context.Context, conn *sql.Conn, q *sqltext.Query) ([]rowset.ResultColumn, error) {
	return rowset.DescribeByRunning(ctx, conn, q.Expand(1))
}

func (r *reader) Read(ctx context.Context, conn *sql.Conn, q *sqltext.Query, keys []string, set *rowset.Set) error {
	types, err := r.typesOf(ctx, conn, q)
	if err != nil {
		return err
	}
	keys = set.OfType(types.key, keys)
	if len(keys) == 0 {
		return nil
	}
	query, err := r.withTimeLimit(ctx, conn, q.Expand(len(keys)))
	if err != nil {
		return err
	}
	scan := &rowset.Scan{Query: q, Key: keys[0], Set: set, Cell: types.cell}
	err = scan.Run(ctx, conn, query, types.key.Parameters(keys))
	if err != nil {
		r.tables.Delete(tableKey(q)) // the table may have been altered
	}
	return err
}

func (r *reader) List(ctx context.Context, conn *sql.Conn, q *sqltext.Query, parameters []sqltext.Parameter, set *rowset.Set) error {
	types, err := r.typesOf(ctx, conn, q)
	if err != nil {
		return err
	}
	query, err := r.withTimeLimit(ctx, conn, q.SQL)
	if err != nil {
		return err
	}
	//guard:list-rounds-floats
	scan := &rowset.Scan{Query: q, Set: set, Cell: types.cell, Prepare: true} // as text, a FLOAT has six digits
	return scan.Run(ctx, conn, query, sqltext.Step{Parameters: parameters}.Values())
}

// tableTypes is what the protocol does not transmit about a table's columns.
type tableTypes struct {
	read time.Time
	key  rowset.KeyType
	bool map[string]bool // :: column → declared tinyint(1), for which BOOL is an alias
	json map[string]bool // :: column → text that MariaDB checks with json_valid, for which JSON is an alias
}

func tableKey(q *sqltext.Query) [2]string { return [2]string{q.Table, q.Key} }

// typesOf returns the types in the table of a query; none if the query is from the configuration.
func (r *reader) typesOf(ctx context.Context, conn *sql.Conn, q *sqltext.Query) (*tableTypes, error) {
	if q.Table == "" {
		return &tableTypes{}, nil
	}
	if known, ok := r.tables.Load(tableKey(q)); ok && time.Since(known.(*tableTypes).read) < sqldb.CatalogLifetime {
		return known.(*tableTypes), nil
	}
	types, err := r.readTypes(ctx, conn, q)
	if err == nil {
		r.tables.Store(tableKey(q), types)
	}
	return types, err
}

func (r *reader) readTypes(ctx context.Context, conn *sql.Conn, q *sqltext.Query) (*tableTypes, error) {
	schema, table, ok := strings.Cut(q.Table, ".")
	if !ok {
		schema, table = "", q.Table
	}
	types := &tableTypes{read: time.Now(), bool: map[string]bool{}}
	err := eachPair(ctx, conn, `SELECT COLUMN_NAME, COLUMN_TYPE FROM information_schema.COLUMNS
		WHERE TABLE_SCHEMA = COALESCE(NULLIF(?, ''), DATABASE()) AND TABLE_NAME = ?`, schema, table,
		func(name, columnType string) {
			types.bool[name] = columnType == "tinyint(1)"
			if strings.EqualFold(name, q.Key) {
				types.key = keyTypeOf(columnType)
			}
		})
	if err != nil {
		return nil, err
	}
	types.json, err = r.checkedJSON(ctx, conn, schema, table)
	return types, err
}
