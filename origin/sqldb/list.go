package sqldb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
	"github.com/ringside-cache/ringside/origin/sqldb/tables"
)

// maxListRows is the limit of origin.ListQuery.
const maxListRows = 1000

// Lister implements origin.ListableSource, for datasets of a table. The order of the keys is that of the database.
func (db *DB) Lister(ds origin.Dataset) (origin.Lister, error) {
	s, err := db.tableSource(ds)
	if err == nil && len(ds.Key) > 1 {
		err = errors.New("only a dataset with a key of one column can be listed")
	}
	if err != nil {
		return nil, err
	}
	return &rowLister{s, tables.NewCache(db.database.Catalog.ReadTable, ds)}, nil
}

// rowLister lists the rows that a source reads.
type rowLister struct {
	source *source
	tables *tables.Cache
}

// List implements origin.Lister. A value of Where that does not fit its column is a *origin.ValueError.
func (l *rowLister) List(ctx context.Context, q origin.ListQuery) ([]origin.Row, error) {
	rows, err := l.list(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("origin %q: list: %w", l.source.db.name, withAdvice(err))
	}
	return rows, nil
}

func (l *rowLister) list(ctx context.Context, q origin.ListQuery) ([]origin.Row, error) {
	if q.Limit < 1 || q.Limit > maxListRows {
		return nil, fmt.Errorf("limit %d: want 1 to %d", q.Limit, maxListRows)
	}
	db := l.source.db
	set := rowset.New(l.source.dataset, db.maxValueBytes)
	if q.After != "" && len(set.ValidKeys([]string{q.After})) == 0 {
		return nil, set.Result(q.After).Err
	}
	err := db.onConn(ctx, func(conn *sql.Conn) error {
		t, err := l.tables.Get(ctx, conn)
		if err == nil {
			err = l.read(ctx, conn, t, q, set)
		}
		if err != nil && t != nil && l.tables.Recheck(t, db.classOf(err), err) {
			if t, err = l.tables.Get(ctx, conn); err == nil {
				err = l.read(ctx, conn, t, q, set)
			}
		}
		return err
	})
	switch {
	case err == nil:
		return set.Page(q.Limit)
	case db.classOf(err).OfKeys() && (q.After != "" || len(q.Where) > 0):
		return nil, origin.InvalidValue("", "the database rejects `after` or a value of a filter (%s): it is not of its column's type",
			db.database.Errors.Code(err))
	}
	return nil, err
}

func (l *rowLister) read(ctx context.Context, conn *sql.Conn, t *tables.Table, q origin.ListQuery, set *rowset.Set) error {
	s, err := l.step(t, q)
	if err != nil {
		return err
	}
	set.Begin(nil)
	set.Paged()
	query := *l.source.query
	query.SQL = s.SQL
	return l.source.db.database.Reader.List(ctx, conn, &query, s.Parameters, set)
}

// step writes the statement of a page.
func (l *rowLister) step(t *tables.Table, q origin.ListQuery) (sqltext.Step, error) {
	ds, syntax := l.source.dataset, l.source.db.database.Syntax
	after, err := t.KeyParameters(ds, q.After)
	if err != nil && (q.After != "" || t.CheckKeyTypes(ds) != nil) {
		return sqltext.Step{}, err
	}
	b, key := &sqltext.Builder{Syntax: syntax}, "t."+syntax.Quote(ds.Key[0])
	b.Add("SELECT %s, %s FROM %s AS t WHERE ", syntax.KeyText(key), sqltext.Selected(ds, syntax), sqltext.QuoteTable(syntax, ds.Table))
	limit := q.Limit
	if q.After == "" {
		b.Add("%s IS NOT NULL", key)
		limit++ // the first row may have the empty key, which cannot be requested
	} else {
		b.Add("%s > %s", key, b.Parameter(after[0]))
	}
	if ds.Value != "" {
		b.Add(" AND t.%s IS NOT NULL", syntax.Quote(ds.Value)) // a row whose value is NULL is absent
	}
	if err := l.filter(b, t, q.Where); err != nil {
		return sqltext.Step{}, err
	}
	b.Add(" ORDER BY %s LIMIT %d", key, limit)
	return b.Step(), nil
}

func (l *rowLister) filter(b *sqltext.Builder, t *tables.Table, where map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(where)) {
		column := t.Column(name)
		if column == nil || !sqltext.Shows(l.source.dataset, name) {
			return origin.InvalidValue(name, "there is no such column to filter by")
		}
		v, err := column.Decode(rowjson.PlainInput(where[name]))
		if err != nil {
			return err
		}
		quoted, p := "t."+b.Syntax.Quote(name), sqltext.Parameter{Column: name, Value: v}
		b.Add(" AND %s = %s", quoted, b.Parameter(p))
		if same := b.Syntax.SameBytes(); same != "" && column.Form == rowjson.FormText { //guard:filter-ignores-case
			b.Add(" AND "+same, quoted, b.Parameter(p))
		}
	}
	return nil
}
