package sqlite

import (
	"context"
	"database/sql"
	"strings"

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
		return err
	}
	keys = set.OfType(kt, keys)
	if len(keys) == 0 {
		return nil
	}
	r := &rowset.Scan{Query: q, Key: keys[0], Set: set, Cell: cellOf}
	return r.Run(ctx, conn, q.Expand(len(keys)), kt.Parameters(keys))
}

func (reader) List(ctx context.Context, conn *sql.Conn, q *sqltext.Query, parameters []sqltext.Parameter, set *rowset.Set) error {
	r := &rowset.Scan{Query: q, Set: set, Cell: cellOf}
	return r.Run(ctx, conn, q.SQL, sqltext.Step{Parameters: parameters}.Values())
}

// keyTypeOf reads the declared type of the key column each time: it costs microseconds, and nothing reports changes of it.
func keyTypeOf(ctx context.Context, conn *sql.Conn, q *sqltext.Query) (rowset.KeyType, error) {
	if q.Table == "" {
		return rowset.KeyType{}, nil
	}
	d := syntax{}
	rows, err := conn.QueryContext(ctx, "SELECT "+d.Quote(q.Key)+" FROM "+sqltext.QuoteTable(d, q.Table)+" LIMIT 0")
	if err != nil {
		return rowset.KeyType{}, err
	}
	defer rows.Close()
	_, types, err := rowset.ColumnsOf(rows)
	if err != nil || !strings.Contains(types[0], "INT") { // integer affinity (datatype3.html, 3.1)
		return rowset.KeyType{}, err
	}
	return rowset.KeyType{Bits: 64}, nil
}
