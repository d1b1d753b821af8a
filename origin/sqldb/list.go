package sqldb

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"

	"github.com/ringside-cache/ringside/origin"
	"github.com/ringside-cache/ringside/origin/sqldb/rowjson"
	"github.com/ringside-cache/ringside/origin/sqldb/rowset"
	"github.com/ringside-cache/ringside/origin/sqldb/sqltext"
)

const maxListRows = 1000 // origin.ListQuery

// Lister returns the origin.Lister of a dataset, which must be of a table. The order of the keys is the database's own.
func (db *DB) Lister(ds origin.Dataset) (origin.Lister, error) {
	s, err := db.tableSource(ds)
	if err != nil {
		return nil, err
	}
	return &rowLister{s, db.catalogOf(ds)}, nil
}

// rowLister goes through the rows that a source reads.
type rowLister struct {
	source  *source
	catalog *tableCache
}

// List implements origin.Lister. A value of Where that can not be its column's is a *origin.ValueError.
func (l *rowLister) List(ctx context.Context, q origin.ListQuery) ([]origin.Row, error) {
	rows, err := l.list(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("origin %q, dataset %q: list: %w", l.source.db.name, l.source.dataset.Name, err)
	}
	return rows, nil
}

func (l *rowLister) list(ctx context.Context, q origin.ListQuery) ([]origin.Row, error) {
	if q.Limit < 1 || q.Limit > maxListRows {
		return nil, fmt.Errorf("a limit of %d: want 1 to %d", q.Limit, maxListRows)
	}
	db := l.source.db
	c := rowset.New(l.source.dataset, true, db.maxValueBytes, nil)
	if q.After != "" && len(c.ValidKeys([]string{q.After})) == 0 {
		return nil, c.Result(q.After).Err
	}
	err := db.onConn(ctx, func(conn *sql.Conn) error {
		t, err := l.catalog.get(ctx, conn)
		if err == nil {
			err = l.read(ctx, conn, t, q, c)
		}
		if err != nil && t != nil {
			l.catalog.doubt(t, err)
		}
		return err
	})
	switch {
	case err == nil:
		return c.Page(q.Limit)
	case db.database.Errors.InvalidKey(err):
		return nil, origin.InvalidValue("", "the database says that `after` or a value to look for is not of its column's type")
	}
	return nil, err
}

func (l *rowLister) read(ctx context.Context, conn *sql.Conn, t *Table, q origin.ListQuery, c *rowset.Set) error {
	s, err := l.step(t, q)
	if err != nil {
		return err
	}
	c.Begin(nil)
	c.Paged()
	st := *l.source.query
	st.SQL = s.SQL
	return l.source.db.database.Reader.List(ctx, conn, &st, s.Parameters, c)
}

// step writes the statement of a page.
func (l *rowLister) step(t *Table, q origin.ListQuery) (sqltext.Step, error) {
	ds, dialect := l.source.dataset, l.source.db.database.Syntax
	d, key := &sqltext.Builder{Syntax: dialect}, "t."+dialect.Quote(ds.Key)
	d.Add("SELECT %s, %s FROM %s AS t WHERE ", dialect.KeyText(key), sqltext.Selected(ds, dialect), sqltext.QuoteTable(dialect, ds.Table))
	limit := q.Limit
	if q.After == "" {
		d.Add("%s IS NOT NULL", key)
		limit++ // the first may have the empty key, which nobody can ask for
	} else {
		after, err := t.Key.Parse(q.After)
		if err != nil {
			return sqltext.Step{}, fmt.Errorf("%w: %w", origin.ErrInvalidKey, err)
		}
		d.Add("%s > %s", key, d.Parameter(sqltext.Parameter{Column: ds.Key, Value: after}))
	}
	if ds.Value != "" {
		d.Add(" AND t.%s IS NOT NULL", dialect.Quote(ds.Value)) // NULL is absent
	}
	if err := l.filter(d, t, q.Where); err != nil {
		return sqltext.Step{}, err
	}
	d.Add(" ORDER BY %s LIMIT %d", key, limit)
	return d.Step(), nil
}

func (l *rowLister) filter(d *sqltext.Builder, t *Table, where map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(where)) {
		column := t.Column(name)
		if column == nil || !sqltext.Shows(l.source.dataset, name) {
			return origin.InvalidValue(name, "there is no such column to look for")
		}
		v, err := column.Decode(rowjson.PlainInput(where[name]))
		if err != nil {
			return err
		}
		quoted, a := "t."+d.Syntax.Quote(name), sqltext.Parameter{Column: name, Value: v}
		d.Add(" AND %s = %s", quoted, d.Parameter(a))
		if exactly := d.Syntax.SameBytes(); exactly != "" && column.Form == rowjson.FormText { //guard:filter-ignores-case
			d.Add(" AND "+exactly, quoted, d.Parameter(a))
		}
	}
	return nil
}
